"""Which accelerator guests run on here: proved by a boot, never taken from a device file.

KVM may be there and still not boot a kernel (an emulated KVM, a broken nested one), so the guest
kernel itself is started with a time bound until its first process speaks. What booted is kept in
``proofs.json`` of the cache, for this host, guest kernel and QEMU. What did not is believed for an
hour, until the host is booted anew, or until `doctor` or `--accelerator kvm` tries it again: the
host may only have been busy. Whether this user may open KVM's device is asked anew each time.

Version of proofs.json: 1, first release; 2, one proof for each kind of guest; 3, what did not boot
has its time and the host's boot.
"""

import contextlib
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.drivers.domain_xml import Acceleration
from harness.drivers.kernel_line import build_command_line, build_emulation_words
from harness.drivers.tsc import measure_tsc_khz
from harness.emulator import read_qemu_version, require_emulator
from harness.errors import HostError, InputError, describe_os_error
from harness.images.bootable_files import OEM_PREFIX
from harness.images.bootable_firmware import Firmware
from harness.images.model import GuestKernel
from harness.paths import cache_dir
from harness.places import ELSEWHERE
from harness.process import start_service
from harness.temporary import start_temporary

KVM_DEVICE = Path("/dev/kvm")
KVM_BOUND_S = 10.0
TCG_BOUND_S = 60.0

KVM = Acceleration("kvm")
TCG = Acceleration("tcg")
TUNED_KVM = Acceleration("kvm", "host")
TUNED_TCG = Acceleration("tcg", "max")
KVM_WITHOUT_CAPABILITIES_MSR = Acceleration("kvm", "host,arch-capabilities=off")
"""For a KVM that names a model-specific register which it then refuses to set."""

PATIENCE = "HARNESS_PATIENCE"
"""The variable of a factor for all bounds of first boots, for hosts slow beyond reason."""

FAILURE_KEPT_S = 3600.0
"""How long a guest that did not boot under KVM is not tried again."""

_VERSION = 3
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
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
    found = None if wanted == "tcg" else _find_kvm(guest, anew=wanted == "kvm")
    if wanted == "kvm" and found is not None and not found.proved:
        raise HostError(
            f"KVM cannot run the guests here: {found.reason}",
            hint="`--accelerator auto` falls back to emulation, and says so",
        )
    if found is not None and found.proved:
        return found
    emulated = _read_known(guest, "tcg")
    if emulated is None:
        model = TUNED_TCG if guest.tuned else TCG
        emulated = _remember(guest, _boot(guest, model, TCG_BOUND_S * read_patience()))
    return _explain(emulated, found)


def find_accelerator(guest: Guest, wanted: str = "auto") -> Accelerator:
    """The same from what is known already; starts nothing."""
    found = None
    if wanted != "tcg" and (fault := find_device_fault()):
        found = Accelerator("kvm", False, fault, KVM.cpu)
    elif wanted != "tcg":
        found = _read_known(guest, "kvm")
    if found is not None and (found.proved or wanted == "kvm"):
        return found
    untried = Accelerator("tcg", False, "not tried yet", (TUNED_TCG if guest.tuned else TCG).cpu)
    return _explain(_read_known(guest, "tcg") or untried, found)


def find_device_fault() -> str | None:
    """Why KVM's device cannot be opened by this user now; None if it can."""
    if not KVM_DEVICE.exists():
        return f"there is no {KVM_DEVICE}"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return f"this user may not open {KVM_DEVICE}{_name_group()}"
    return None


def read_patience() -> float:
    """The factor for the bounds of first boots; raises InputError."""
    text = os.environ.get(PATIENCE) or "1"
    with contextlib.suppress(ValueError):
        if 1 <= (factor := float(text)) <= 1000:
            return factor
    raise InputError(f"{PATIENCE} is {text!r}", hint="a factor from 1 to 1000, such as 10")


def _name_group() -> str:
    """How a user comes to be allowed to, where that is a matter of a group."""
    import grp

    with contextlib.suppress(OSError, KeyError):
        info = KVM_DEVICE.stat()
        if info.st_mode & 0o060 == 0o060 and info.st_gid != 0:
            # In the lab a group of the host's may have no number, so it is named by its custom.
            name = grp.getgrgid(info.st_gid).gr_name
            name = "kvm" if name == "nogroup" else name
            return f" (as root: usermod -aG {name} USER, then log in anew)"
    return ""


def _explain(emulated: Accelerator, refused: Accelerator | None) -> Accelerator:
    """Emulation, with why it is not KVM."""
    if refused is None or refused.proved:
        return emulated
    return add_refusal(emulated, refused.reason)


def add_refusal(emulated: Accelerator, reason: str) -> Accelerator:
    """Emulation, with the reason why it is not KVM."""
    reason = f"{emulated.reason}; not KVM: {reason}"
    return Accelerator("tcg", emulated.proved, reason, emulated.cpu)


# ---- the boot --------------------------------------------------------------------------------


def _find_kvm(guest: Guest, *, anew: bool) -> Accelerator:
    """What is known of KVM with this guest, else what a boot shows. With ``anew`` a boot that
    failed in an earlier run is tried again."""
    fault = find_device_fault()
    if fault is not None:
        return _note(guest, Accelerator("kvm", False, fault, KVM.cpu))
    known = _read_known(guest, "kvm", failures=not anew)
    if known is not None:
        return known
    below = _find_kvm(guest.below, anew=anew) if guest.below else None
    if below is not None and not below.proved:
        return _note(guest, below)
    return _remember(guest, _try_kvm(guest))


def _try_kvm(guest: Guest) -> Accelerator:
    # A disk brings firmware and a distribution's whole initramfs.
    bound = KVM_BOUND_S * (3 if guest.disk else 1) * read_patience()
    found = _boot(guest, TUNED_KVM if guest.tuned else KVM, bound)
    if not found.proved and guest.tuned and "MSR" in found.reason:
        found = _boot(guest, KVM_WITHOUT_CAPABILITIES_MSR, bound)
    return found


def _boot(guest: Guest, acceleration: Acceleration, bound: float) -> Accelerator:
    """Start QEMU by hand and listen to its serial port until the guest says its word, or not."""
    begun = time.monotonic()
    try:
        with start_temporary("proof") as folder:
            if guest.uefi:
                shutil.copyfile(guest.uefi.variables, folder / "variables")
            with _start_proof(guest, acceleration, folder) as (pid, console):
                spoke, how = _listen(console, pid, guest.word, bound)
            complaint = find_complaint((folder / "qemu.log").read_text(errors="replace"))
    except OSError as error:
        raise HostError(
            f"no accelerator can be proved: {describe_os_error(error)}", hint=ELSEWHERE
        ) from error
    reason = f"the guest kernel booted in {time.monotonic() - begun:.1f} s"
    return Accelerator(
        acceleration.name, spoke, reason if spoke else complaint or how, acceleration.cpu
    )


@contextlib.contextmanager
def _start_proof(
    guest: Guest, acceleration: Acceleration, folder: Path
) -> Iterator[tuple[int, socket.socket]]:
    """QEMU's pid and its serial port; it is killed in the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        argv = build_proof(guest, acceleration, folder, measure_tsc_khz(), theirs.fileno())
        log, inherited = folder / "qemu.log", (theirs.fileno(),)
        with start_service(argv, log, os.environ, inherited) as pid:
            theirs.close()
            try:
                yield pid, ours
            finally:
                _kill(pid)


def build_proof(
    guest: Guest, acceleration: Acceleration, folder: Path, tsc_khz: int | None, console: int
) -> list[str]:
    """QEMU's command line for the least machine that boots the guest.

    ``console`` is the number of the socket that its serial port is joined to; ``folder`` has its
    own copy of UEFI's variables.
    """
    machine = f"{guest.machine},usb=off" if guest.machine != "microvm" else guest.machine
    argv = [
        require_emulator(),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", machine, "-accel", acceleration.name),
        *("-m", str(_MEMORY_MIB), "-smp", "1"),
        *("-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console"),
    ]
    if acceleration.cpu is not None:
        argv += ["-cpu", acceleration.cpu]
    if guest.kernel:
        argv += ["-kernel", str(guest.kernel), "-initrd", str(guest.initramfs)]
        argv += ["-append", build_command_line(acceleration, tsc_khz)]
    if guest.uefi:
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={_quote(guest.uefi.code)}"]
        argv += ["-drive", f"if=pflash,format=raw,file={_quote(folder / 'variables')}"]
    if guest.disk:
        argv += ["-drive", f"if=none,id=disk,format=raw,readonly=on,file={_quote(guest.disk)}"]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        argv += build_oem_options(build_emulation_words(acceleration, tsc_khz))
    return argv


def build_oem_options(words: Sequence[str]) -> list[str]:
    """How a disk's boot loader is told what a kernel of this machine needs, as libvirt does it."""
    return ["-smbios", f"type=11,value={_quote(OEM_PREFIX + ' '.join(words))}"]


def _quote(value: object) -> str:
    """A value among QEMU's options, which end at a comma unless that is doubled."""
    return str(value).replace(",", ",,")


def _listen(console: socket.socket, pid: int, word: bytes, bound: float) -> tuple[bool, str]:
    """Whether ``word`` comes within ``bound`` seconds, and what happens if it does not."""
    heard = b""
    deadline = time.monotonic() + bound
    with contextlib.ExitStack() as stack:
        gone = os.pidfd_open(pid)
        stack.callback(os.close, gone)
        while (left := deadline - time.monotonic()) > 0:
            watched: list[socket.socket | int] = [console, gone]
            readable, _, _ = select.select(watched, [], [], left)
            if console in readable and (part := _receive(console)):
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
        text = re.sub(r"^qemu-[a-z0-9_-]+: ", "", line.strip())
        if text and not text.startswith("warning:"):
            return text.removeprefix("error: ")
    return None


# ---- what is known already -------------------------------------------------------------------

_found: dict[tuple[str, str], Accelerator] = {}
"""What this process has found out, by host, guest and QEMU, and accelerator."""


def _read_known(guest: Guest, name: str, *, failures: bool = True) -> Accelerator | None:
    """What was found in this run, else what is known of an earlier one on this host."""
    key = _build_key(guest)
    if (key, name) in _found:
        return _found[key, name]
    with contextlib.suppress(TypeError, KeyError):
        entry = dict(_read_proofs()[key][name])
        tried = (entry.pop("tried_at", 0.0), entry.pop("boot", ""), entry.pop("patience", 1.0))
        known = Accelerator(**entry)
        if known.proved or (failures and _is_fresh(*tried)):
            return known
    return None


def _is_fresh(tried_at: float, boot: str, patience: float) -> bool:
    """Whether a failure is still to be believed."""
    recent = 0 <= time.time() - tried_at < FAILURE_KEPT_S
    return recent and boot == _read_boot() and patience >= read_patience()


def _note(guest: Guest, found: Accelerator) -> Accelerator:
    """For this run alone."""
    _found[_build_key(guest), found.name] = found
    return found


def _remember(guest: Guest, found: Accelerator) -> Accelerator:
    """For later runs too, but emulation that did not boot: that is never kept."""
    entry = asdict(found)
    if not found.proved:
        entry |= {"tried_at": time.time(), "boot": _read_boot(), "patience": read_patience()}
        entry["reason"] += "; it is tried again after an hour, or by `doctor`"
    if found.proved or found.name == "kvm":
        proofs = _read_proofs()
        proofs.setdefault(_build_key(guest), {})[found.name] = entry
        _write_proofs(proofs)
    return _note(guest, found)


def forget_failures() -> None:
    """Have KVM tried again with every guest that did not boot."""
    proofs = _read_proofs()
    kept = {
        key: {name: entry for name, entry in found.items() if entry.get("proved")}
        for key, found in proofs.items()
    }
    if kept != proofs:
        _write_proofs(kept)


def _read_boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


def _write_proofs(proofs: dict[str, dict[str, Any]]) -> None:
    text = json.dumps({"version": _VERSION, "proofs": proofs}, indent=1) + "\n"
    path = _proofs_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(text)
    fresh.rename(path)


def _read_proofs() -> dict[str, dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        document = json.loads(_proofs_path().read_text())
        if document["version"] == _VERSION:
            return dict(document["proofs"])
    return {}


def _proofs_path() -> Path:
    return cache_dir() / "proofs.json"


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
