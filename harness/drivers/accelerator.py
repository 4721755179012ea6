"""Which accelerator guests run on here: proved by a boot, never taken from a device file.

KVM may be there and still not boot a kernel (an emulated KVM, a broken nested one), so the guest
kernel itself is started with a time bound until its first process speaks. What was found is kept
in ``proofs.json`` of the cache, for this host, guest kernel and QEMU.

Version of proofs.json: 1, first release.
"""

import contextlib
import functools
import json
import os
import platform
import select
import signal
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.drivers.domain_xml import KVM, TCG, Acceleration, build_command_line
from harness.drivers.tsc import measure_tsc_khz
from harness.errors import HostError
from harness.images.model import GuestKernel
from harness.paths import cache_dir
from harness.process import run_command, start_helper

EMULATOR = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
KVM_BOUND_S = 10.0
TCG_BOUND_S = 60.0

KVM_WITHOUT_CAPABILITIES_MSR = Acceleration("kvm", "host,arch-capabilities=off")
"""For a KVM that names a model-specific register which it then refuses to set."""

_VERSION = 1
_AGENT_SPEAKS = b"@harness init"
_MEMORY_MIB = 256


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What guests run on. ``proved``: the guest kernel booted on it here. ``cpu`` is QEMU's."""

    name: str
    proved: bool
    reason: str
    cpu: str

    @property
    def acceleration(self) -> Acceleration:
        return Acceleration(self.name, self.cpu)


def prove_accelerator(kernel: GuestKernel, wanted: str = "auto") -> Accelerator:
    """The accelerator for ``wanted`` (``auto``, ``kvm``, ``tcg``), by a boot unless one is known.

    ``auto`` is KVM where it boots the guest, else emulation with the reason. Raises HostError where
    KVM was asked for and is not proved, and without QEMU.
    """
    known = _read_known(kernel)
    found = known.get("kvm") if wanted != "tcg" else None
    if found is None and wanted != "tcg":
        found = _try_kvm(kernel)
    if wanted == "kvm" and found is not None and not found.proved:
        raise HostError(
            f"KVM cannot run the guests here: {found.reason}",
            hint="`--accelerator auto` falls back to emulation, and says so",
        )
    if found is not None and found.proved:
        return _remember(kernel, found)
    if found is not None and KVM_DEVICE.exists():
        _remember(kernel, found)
    emulated = known.get("tcg") or _remember(kernel, _boot(kernel, TCG, TCG_BOUND_S))
    return _explain(emulated, found)


def find_accelerator(kernel: GuestKernel, wanted: str = "auto") -> Accelerator:
    """The same from what is known already; starts nothing."""
    known = _read_known(kernel)
    found = known.get("kvm") if wanted != "tcg" else None
    if found is not None and (found.proved or wanted == "kvm"):
        return found
    emulated = known.get("tcg") or Accelerator("tcg", False, "not tried yet", TCG.cpu)
    return _explain(emulated, found)


def _explain(emulated: Accelerator, refused: Accelerator | None) -> Accelerator:
    """Emulation, with why it is not KVM."""
    if refused is None or refused.proved:
        return emulated
    reason = f"{emulated.reason}; not KVM: {refused.reason}"
    return Accelerator("tcg", emulated.proved, reason, emulated.cpu)


# ---- the boot --------------------------------------------------------------------------------


def _try_kvm(kernel: GuestKernel) -> Accelerator:
    if not KVM_DEVICE.exists():
        return Accelerator("kvm", False, f"there is no {KVM_DEVICE}", KVM.cpu)
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Accelerator("kvm", False, f"this user may not open {KVM_DEVICE}", KVM.cpu)
    found = _boot(kernel, KVM, KVM_BOUND_S)
    if not found.proved and "MSR" in found.reason:
        found = _boot(kernel, KVM_WITHOUT_CAPABILITIES_MSR, KVM_BOUND_S)
    return found


def _boot(kernel: GuestKernel, acceleration: Acceleration, bound: float) -> Accelerator:
    """Start QEMU by hand and listen to its serial port until the agent speaks, or not."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "console"))
        listener.listen(1)
        argv = build_proof(kernel, acceleration, folder / "console", measure_tsc_khz())
        words = ["sh", "-c", f'exec "$@" 2>{folder}/qemu.log', "sh", *argv]
        pid = stack.enter_context(start_helper(words, ()))
        stack.callback(_kill, pid)
        spoke, how = _listen(listener, pid, bound)
        seconds = time.monotonic() - begun
        if spoke:
            reason = f"the guest kernel booted in {seconds:.1f} s"
        else:
            reason = find_complaint((folder / "qemu.log").read_text(errors="replace")) or how
    return Accelerator(acceleration.name, spoke, reason, acceleration.cpu)


def build_proof(
    kernel: GuestKernel, acceleration: Acceleration, console: Path, tsc_khz: int | None
) -> list[str]:
    """QEMU's command line for the least machine that reaches the agent."""
    return [
        EMULATOR,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35,usb=off", "-accel", acceleration.name, "-cpu", acceleration.cpu),
        *("-m", str(_MEMORY_MIB), "-smp", "1"),
        *("-kernel", str(kernel.elf), "-initrd", str(kernel.initramfs)),
        *("-append", build_command_line(acceleration, tsc_khz)),
        *("-chardev", f"socket,id=console,path={console}", "-serial", "chardev:console"),
    ]


def _listen(listener: socket.socket, pid: int, bound: float) -> tuple[bool, str]:
    """Whether the agent speaks within ``bound`` seconds, and what happens if it does not."""
    heard = b""
    deadline = time.monotonic() + bound
    with contextlib.ExitStack() as stack:
        gone = os.pidfd_open(pid)
        stack.callback(os.close, gone)
        source = listener
        while (left := deadline - time.monotonic()) > 0:
            watched: list[socket.socket | int] = [source, gone]
            readable, _, _ = select.select(watched, [], [], left)
            if source in readable and source is listener:
                source = stack.enter_context(listener.accept()[0])
            elif source in readable and (part := _receive(source)):
                heard += part
                if _AGENT_SPEAKS in heard:
                    return True, ""
            elif readable:
                return False, "QEMU ended before the guest's first process"
    begun = "its kernel had begun" if heard else "nothing came from its kernel"
    return False, f"the guest kernel did not boot within {bound:g} s ({begun})"


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def find_complaint(messages: str) -> str | None:
    """The first thing QEMU complained of, without its own name; warnings are none."""
    for line in messages.splitlines():
        text = line.strip().removeprefix(f"{EMULATOR}: ")
        if text and not text.startswith("warning:"):
            return text.removeprefix("error: ")
    return None


# ---- what is known already -------------------------------------------------------------------


def _read_known(kernel: GuestKernel) -> dict[str, Accelerator]:
    """Earlier findings by accelerator, for this host, guest kernel and QEMU."""
    entry = _read_proofs().get(_build_key(kernel), {})
    found: dict[str, Accelerator] = {}
    with contextlib.suppress(TypeError):
        found = {name: Accelerator(**fields) for name, fields in entry.items()}
    return found


def _remember(kernel: GuestKernel, found: Accelerator) -> Accelerator:
    proofs = _read_proofs()
    proofs.setdefault(_build_key(kernel), {})[found.name] = asdict(found)
    text = json.dumps({"version": _VERSION, "proofs": proofs}, indent=1) + "\n"
    path = _proofs_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.rename(path)
    return found


def _read_proofs() -> dict[str, dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        document = json.loads(_proofs_path().read_text())
        if document["version"] == _VERSION:
            return dict(document["proofs"])
    return {}


def _proofs_path() -> Path:
    return cache_dir() / "proofs.json"


@functools.cache
def _build_key(kernel: GuestKernel) -> str:
    """The host, its CPU and kernel, the guest kernel, and QEMU: what a finding is true for."""
    parts = (_read_host(), _read_cpu(), platform.release(), kernel.digest, read_qemu_version())
    return " | ".join(parts)


def _read_host() -> str:
    with contextlib.suppress(OSError):
        if identity := Path("/etc/machine-id").read_text().strip():
            return identity
    return platform.node()


def _read_cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def read_qemu_version() -> str:
    """The first line of ``--version``; raises HostError without QEMU."""
    return run_command([EMULATOR, "--version"], timeout=10).stdout.partition("\n")[0]
