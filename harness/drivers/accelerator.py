"""Which accelerator guests run on here: proved by a boot, never taken from a device file.

KVM may be there and still not boot a kernel (an emulated KVM, a broken nested one), so the guest
kernel itself is started with a time bound until its first process speaks. What was found is kept
in ``proofs.json`` of the cache, for this host, guest kernel and QEMU.

Version of proofs.json: 1, first release; 2, one proof for each kind of guest.
"""

import contextlib
import functools
import json
import os
import platform
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.drivers.domain_xml import Acceleration
from harness.drivers.kernel_line import build_command_line, build_emulation_words
from harness.drivers.tsc import measure_tsc_khz
from harness.errors import HostError
from harness.images.bootable_files import OEM_PREFIX
from harness.images.bootable_firmware import Firmware
from harness.images.model import GuestKernel
from harness.paths import cache_dir
from harness.process import run_command, start_helper

EMULATOR = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
KVM_BOUND_S = 10.0
TCG_BOUND_S = 60.0

KVM = Acceleration("kvm")
TCG = Acceleration("tcg")
TUNED_KVM = Acceleration("kvm", "host")
TUNED_TCG = Acceleration("tcg", "max")
KVM_WITHOUT_CAPABILITIES_MSR = Acceleration("kvm", "host,arch-capabilities=off")
"""For a KVM that names a model-specific register which it then refuses to set."""

_VERSION = 2
_MEMORY_MIB = 512


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What guests run on. ``proved``: the guest kernel booted on it here. ``cpu`` is QEMU's."""

    name: str
    proved: bool
    reason: str
    cpu: str | None

    @property
    def acceleration(self) -> Acceleration:
        return Acceleration(self.name, self.cpu)


@dataclass(frozen=True, slots=True)
class Guest:
    """What has to boot for a proof: a kernel on a machine, or a disk with firmware.

    ``digest`` is that of what boots. It is proved once its console has said ``word``. ``below`` is
    a guest that boots the same kernel with less: where KVM cannot do that, this one is not tried.
    """

    digest: str
    machine: str
    word: bytes = b"@harness init"
    tuned: bool = False
    kernel: Path | None = None
    initramfs: Path | None = None
    disk: Path | None = None
    uefi: Firmware | None = None
    below: "Guest | None" = None


def build_direct_guest(kernel: GuestKernel, machine: str = "q35", tuned: bool = False) -> Guest:
    """The guest of a kernel that is booted directly, with nothing but its initramfs."""
    digest = kernel.digest
    return Guest(digest, machine, tuned=tuned, kernel=kernel.elf, initramfs=kernel.initramfs)


def prove_accelerator(guest: Guest, wanted: str = "auto") -> Accelerator:
    """The accelerator for ``wanted`` (``auto``, ``kvm``, ``tcg``), by a boot unless one is known.

    ``auto`` is KVM where it boots the guest, else emulation with the reason. Raises HostError where
    KVM was asked for and is not proved, and without QEMU.
    """
    found = None if wanted == "tcg" else _find_kvm(guest)
    if wanted == "kvm" and found is not None and not found.proved:
        raise HostError(
            f"KVM cannot run the guests here: {found.reason}",
            hint="`--accelerator auto` falls back to emulation, and says so",
        )
    if found is not None and found.proved:
        return found
    emulated = _read_known(guest).get("tcg")
    if emulated is None:
        model = TUNED_TCG if guest.tuned else TCG
        emulated = _remember(guest, _boot(guest, model, TCG_BOUND_S))
    return _explain(emulated, found)


def find_accelerator(guest: Guest, wanted: str = "auto") -> Accelerator:
    """The same from what is known already; starts nothing."""
    known = _read_known(guest)
    found = known.get("kvm") if wanted != "tcg" else None
    if found is not None and (found.proved or wanted == "kvm"):
        return found
    untried = Accelerator("tcg", False, "not tried yet", (TUNED_TCG if guest.tuned else TCG).cpu)
    return _explain(known.get("tcg", untried), found)


def _explain(emulated: Accelerator, refused: Accelerator | None) -> Accelerator:
    """Emulation, with why it is not KVM."""
    if refused is None or refused.proved:
        return emulated
    reason = f"{emulated.reason}; not KVM: {refused.reason}"
    return Accelerator("tcg", emulated.proved, reason, emulated.cpu)


# ---- the boot --------------------------------------------------------------------------------


def _find_kvm(guest: Guest) -> Accelerator:
    """What is known of KVM with this guest, else what a boot shows; remembered if it was tried."""
    known = _read_known(guest).get("kvm")
    if known is not None:
        return known
    below = _find_kvm(guest.below) if guest.below else None
    if below is not None and not below.proved:
        return below
    found = _try_kvm(guest)
    return _remember(guest, found) if KVM_DEVICE.exists() else found


def _try_kvm(guest: Guest) -> Accelerator:
    if not KVM_DEVICE.exists():
        return Accelerator("kvm", False, f"there is no {KVM_DEVICE}", KVM.cpu)
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Accelerator("kvm", False, f"this user may not open {KVM_DEVICE}", KVM.cpu)
    # A disk brings firmware and a distribution's whole initramfs.
    bound = KVM_BOUND_S * (3 if guest.disk else 1)
    found = _boot(guest, TUNED_KVM if guest.tuned else KVM, bound)
    if not found.proved and guest.tuned and "MSR" in found.reason:
        found = _boot(guest, KVM_WITHOUT_CAPABILITIES_MSR, bound)
    return found


def _boot(guest: Guest, acceleration: Acceleration, bound: float) -> Accelerator:
    """Start QEMU by hand and listen to its serial port until the guest says its word, or not."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="harness-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "console"))
        listener.listen(1)
        if guest.uefi:
            shutil.copyfile(guest.uefi.variables, folder / "variables")
        argv = build_proof(guest, acceleration, folder, measure_tsc_khz())
        words = ["sh", "-c", f'exec "$@" 2>{folder}/qemu.log', "sh", *argv]
        pid = stack.enter_context(start_helper(words, ()))
        stack.callback(_kill, pid)
        spoke, how = _listen(listener, pid, guest.word, bound)
        seconds = time.monotonic() - begun
        if spoke:
            reason = f"the guest kernel booted in {seconds:.1f} s"
        else:
            reason = find_complaint((folder / "qemu.log").read_text(errors="replace")) or how
    return Accelerator(acceleration.name, spoke, reason, acceleration.cpu)


def build_proof(
    guest: Guest, acceleration: Acceleration, folder: Path, tsc_khz: int | None
) -> list[str]:
    """QEMU's command line for the least machine that boots the guest; its sockets in ``folder``."""
    machine = f"{guest.machine},usb=off" if guest.machine != "microvm" else guest.machine
    argv = [
        EMULATOR,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", machine, "-accel", acceleration.name),
        *("-m", str(_MEMORY_MIB), "-smp", "1"),
        *("-chardev", f"socket,id=console,path={folder}/console", "-serial", "chardev:console"),
    ]
    if acceleration.cpu is not None:
        argv += ["-cpu", acceleration.cpu]
    if guest.kernel:
        argv += ["-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)]
        argv += ["-append", build_command_line(acceleration, tsc_khz)]
    if guest.uefi:
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={guest.uefi.code}"]
        argv += ["-drive", f"if=pflash,format=raw,file={folder}/variables"]
    if guest.disk:
        argv += ["-drive", f"if=none,id=disk,format=raw,readonly=on,file={guest.disk}"]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        argv += build_oem_options(build_emulation_words(acceleration, tsc_khz))
    return argv


def build_oem_options(words: Sequence[str]) -> list[str]:
    """How a disk's boot loader is told what a kernel of this machine needs, as libvirt does it."""
    return ["-smbios", f"type=11,value={OEM_PREFIX}{' '.join(words)}"]


def _listen(listener: socket.socket, pid: int, word: bytes, bound: float) -> tuple[bool, str]:
    """Whether ``word`` comes within ``bound`` seconds, and what happens if it does not."""
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
                if word in heard:
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


def _read_known(guest: Guest) -> dict[str, Accelerator]:
    """Earlier findings by accelerator, for this host, guest and QEMU."""
    entry = _read_proofs().get(_build_key(guest), {})
    found: dict[str, Accelerator] = {}
    with contextlib.suppress(TypeError):
        found = {name: Accelerator(**fields) for name, fields in entry.items()}
    return found


def _remember(guest: Guest, found: Accelerator) -> Accelerator:
    proofs = _read_proofs()
    proofs.setdefault(_build_key(guest), {})[found.name] = asdict(found)
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
def _build_key(guest: Guest) -> str:
    """The host, its CPU and kernel, the guest, and QEMU: what a finding is true for."""
    shape = f"{guest.machine}{'/tuned' if guest.tuned else ''}{'/uefi' if guest.uefi else ''}"
    host = (_read_host(), read_cpu_model(), platform.release(), read_qemu_version())
    return " | ".join((*host, shape, guest.digest))


def _read_host() -> str:
    with contextlib.suppress(OSError):
        if identity := Path("/etc/machine-id").read_text().strip():
            return identity
    return platform.node()


def read_cpu_model() -> str:
    """The host's CPU, as it names itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def read_qemu_version() -> str:
    """The first line of ``--version``; raises HostError without QEMU."""
    return run_command([EMULATOR, "--version"], timeout=10).stdout.partition("\n")[0]
