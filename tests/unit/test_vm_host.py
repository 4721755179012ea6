"""What virtual machines need of a host they have never seen: names, places, permissions, words."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import linux
from harness.drivers import accelerator, libvirt_vm
from harness.drivers.accelerator import (
    KVM,
    TCG,
    Accelerator,
    Guest,
    build_direct_guest,
    build_proof,
    find_accelerator,
    prove_accelerator,
    read_patience,
)
from harness.drivers.base import Toolbox
from harness.drivers.libvirt_connect import find_hint as find_connection_hint
from harness.drivers.libvirt_connect import require_own_daemon
from harness.drivers.libvirt_embedded import build_conf
from harness.drivers.libvirt_host import find_hint, parse_last_words
from harness.drivers.libvirt_vm import VmDriver, find_tap_fault
from harness.emulator import find_emulator, require_emulator
from harness.errors import HostError, InputError, TrialError
from harness.images.bootable_firmware import Firmware
from harness.images.model import GuestKernel
from harness.run_folder import find_changed_guests

KERNEL = GuestKernel(
    release="6.1",
    digest="sha256:1",
    bzimage=Path("/k/bzImage"),
    elf=Path("/k/vmlinux"),
    initramfs=Path("/k/initramfs"),
    layered=Path("/k/layered"),
    modules=(),
)
LOG = """\
2026-11-29 12:00:24.000+0000: starting up libvirt version: 9.0.0
LC_ALL=C \\
/usr/bin/qemu-system-x86_64 \\
-msg timestamp=on
{said}2026-11-29 12:00:25.754+0000: shutting down, reason=failed
"""


# ---- the emulator ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["bin/qemu-system-x86_64", "libexec/qemu-kvm"], "bin/qemu-system-x86_64"),
        (["libexec/qemu-kvm"], "libexec/qemu-kvm"),
        (["bin/qemu-kvm"], "bin/qemu-kvm"),
        ([], None),
    ],
)
def test_qemu_is_found_by_every_name(
    there: list[str], found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in there:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    candidates = ("qemu-system-x86_64", str(tmp_path / "libexec/qemu-kvm"), "qemu-kvm")
    assert find_emulator(candidates) == (str(tmp_path / found) if found else None)


def test_without_qemu_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.emulator.find_emulator", lambda: None)
    with pytest.raises(HostError, match="qemu-system-x86_64 is not installed"):
        require_emulator()


def make_socket(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


# ---- libvirt's settings ----------------------------------------------------------------------


def test_an_ordinary_users_groups_are_left_alone() -> None:
    """The user -1 of setuid(2): with a number libvirt would set the groups anew."""
    lines = build_conf(privileged=False, huge=None).splitlines()
    assert 'user = "+4294967295"' in lines and 'group = "+4294967295"' in lines
    assert 'user = "+0"' in build_conf(privileged=True, huge=None).splitlines()


def test_libvirt_makes_folders_in_no_hugetlbfs_of_the_host() -> None:
    assert "hugetlbfs_mount = []\n" in build_conf(privileged=False, huge=None)
    assert 'hugetlbfs_mount = ["/proc/1/fd/3/huge"]\n' in build_conf(True, "/proc/1/fd/3/huge")


# ---- proofs ----------------------------------------------------------------------------------


class Bench:
    """A host whose KVM boots a guest, or not, as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self.fault: str | None = None
        self.boots = {"kvm": True, "tcg": True}
        self.tried: list[str] = []
        monkeypatch.setenv("HARNESS_CACHE", str(cache))
        monkeypatch.setattr(accelerator, "find_device_fault", lambda: self.fault)
        monkeypatch.setattr(accelerator, "_boot", self.boot)
        monkeypatch.setattr(accelerator, "read_qemu_version", lambda: "QEMU 10")
        self.begin_run(monkeypatch)

    def begin_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a process has found out is gone with it."""
        monkeypatch.setattr(accelerator, "_found", {})
        self.tried.clear()

    def boot(self, _guest: Guest, model: Any, _bound: float) -> Accelerator:
        self.tried.append(model.name)
        worked = self.boots[model.name]
        return Accelerator(model.name, worked, "booted" if worked else "too slow", model.cpu)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


GUEST = build_direct_guest(KERNEL)


def test_a_boot_that_failed_is_believed_for_an_hour(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.boots["kvm"] = False
    first = prove_accelerator(GUEST)
    assert (first.name, first.reason) == ("tcg", "booted; not KVM: too slow")
    assert prove_accelerator(GUEST) == first == find_accelerator(GUEST)
    assert bench.tried == ["kvm", "tcg"]
    bench.begin_run(monkeypatch)
    bench.boots["kvm"] = True
    again = prove_accelerator(GUEST)
    assert bench.tried == []
    assert again.reason == f"{first.reason}; it is tried again after an hour, or by `doctor`"


def _let_an_hour_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + accelerator.FAILURE_KEPT_S)


def _boot_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_read_boot", lambda: "another")


def _be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PATIENCE", "3")


def _ask_doctor(_: pytest.MonkeyPatch) -> None:
    accelerator.forget_failures()


@pytest.mark.parametrize("event", [_let_an_hour_pass, _boot_anew, _be_patient, _ask_doctor])
def test_a_boot_that_failed_is_tried_again(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    event: Callable[[pytest.MonkeyPatch], None],
) -> None:
    bench.boots["kvm"] = False
    prove_accelerator(GUEST)
    bench.begin_run(monkeypatch)
    bench.boots["kvm"] = True
    event(monkeypatch)
    assert prove_accelerator(GUEST).name == "kvm"
    assert bench.tried == ["kvm"]
    bench.begin_run(monkeypatch)
    assert prove_accelerator(GUEST).name == "kvm"
    assert bench.tried == []


def test_who_asks_for_kvm_has_it_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.boots["kvm"] = False
    with pytest.raises(HostError, match="KVM cannot run the guests here: too slow"):
        prove_accelerator(GUEST, "kvm")
    bench.begin_run(monkeypatch)
    bench.boots["kvm"] = True
    assert prove_accelerator(GUEST, "kvm").name == "kvm"


def test_the_permission_is_asked_for_in_each_run_and_never_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fault = "this user may not open /dev/kvm"
    assert prove_accelerator(GUEST).reason == "booted; not KVM: this user may not open /dev/kvm"
    with pytest.raises(HostError, match="KVM cannot run the guests here: this user may not open"):
        prove_accelerator(GUEST, "kvm")
    bench.begin_run(monkeypatch)
    bench.fault = None
    assert prove_accelerator(GUEST).name == "kvm"
    bench.begin_run(monkeypatch)
    bench.fault = "there is no /dev/kvm"
    assert prove_accelerator(GUEST).name == "tcg"


def test_emulation_that_was_too_slow_is_not_remembered_either(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.boots["tcg"] = False
    assert not prove_accelerator(GUEST, "tcg").proved
    bench.begin_run(monkeypatch)
    bench.boots["tcg"] = True
    assert prove_accelerator(GUEST, "tcg").proved


def test_kvm_that_libvirt_refuses_is_not_what_guests_run_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_driver: VmDriver, name: str) -> None:
        raise HostError(f"libvirt cannot use q35 with {name}: not supported")

    monkeypatch.setattr(VmDriver, "open_hypervisor", refuse)
    monkeypatch.setattr(VmDriver, "find_guest", lambda *_: GUEST)
    image: Any = SimpleNamespace()
    found = VmDriver(Toolbox(Path("starter"))).accelerator(image)
    assert found.name == "tcg"
    assert found.reason.endswith("not KVM: libvirt cannot use q35 with kvm: not supported")
    with pytest.raises(HostError, match="libvirt cannot use q35 with kvm"):
        VmDriver(Toolbox(Path("starter"), accelerator="kvm")).accelerator(image)


def test_what_guests_run_on_never_changes_in_a_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VmDriver, "open_hypervisor", lambda *_: None)
    monkeypatch.setattr(VmDriver, "find_guest", lambda *_: GUEST)
    driver, image = VmDriver(Toolbox(Path("starter"))), SimpleNamespace()
    first = driver.accelerator(image)  # type: ignore[arg-type]
    bench.fault = "there is no /dev/kvm"
    monkeypatch.setattr(accelerator, "_found", {})
    assert driver.accelerator(image) == first  # type: ignore[arg-type]
    assert first.name == "kvm"
    monkeypatch.setattr(libvirt_vm, "find_device_fault", lambda: bench.fault)
    spec: Any = SimpleNamespace(image=image)
    lost = "KVM ran guests when the run began, and now there is no /dev/kvm"
    with pytest.raises(TrialError, match=lost), driver.start_instance(spec):
        pass


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ("kvm", "kvm", None),
        ("kvm", "tcg", "has vm-direct on kvm, and now it is tcg: why"),
        (None, "tcg", None),
        ("tcg", None, None),
    ],
)
def test_a_run_goes_on_with_what_its_guests_ran_on(
    before: str | None, now: str | None, said: str | None
) -> None:
    def build(name: str | None) -> dict[str, object]:
        return {"accelerator": {"vm-direct": {"name": name, "reason": "why"}} if name else {}}

    assert find_changed_guests(build(before), build(now)) == said
    assert find_changed_guests({}, build(now)) is None


@pytest.mark.parametrize(("text", "factor"), [("", 1.0), ("12", 12.0), ("1.5", 1.5)])
def test_a_slow_host_can_be_given_time(
    text: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PATIENCE", text)
    assert read_patience() == factor


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan"])
def test_patience_is_a_factor(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PATIENCE", text)
    with pytest.raises(InputError, match="HARNESS_PATIENCE is"):
        read_patience()


def test_a_comma_in_a_path_ends_no_option_of_qemu() -> None:
    folder = Path("/t,m p")
    uefi = Firmware(Path("/f,w/code.fd"), Path("/f,w/vars.fd"))
    guest = Guest("sha256:1", "q35", disk=Path("/d,k/disk.raw"), uefi=uefi)
    argv = build_proof(guest, TCG, folder, None, 7)
    drives = [argv[place + 1] for place, word in enumerate(argv) if word == "-drive"]
    assert [each.rpartition("file=")[2] for each in drives] == [
        "/f,,w/code.fd",
        "/t,,m p/variables",
        "/d,,k/disk.raw",
    ]


def test_the_proofs_serial_port_has_no_path() -> None:
    argv = build_proof(GUEST, KVM, Path("/t" * 200), None, 7)
    assert "socket,id=console,fd=7" in argv
    assert not any("/t" * 200 in word for word in argv)


# ---- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", None),
        ("qemu: could not open: x\n", "qemu: could not open: x"),
        ("first\n\nlast\n", "last"),
    ],
)
def test_qemus_last_words_are_its_own(said: str, words: str | None) -> None:
    assert parse_last_words(LOG.format(said=said)) == words


def test_a_failure_names_no_log_that_is_not_there(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    assert find_hint("GDBus.Error", "m", log) is None
    log.write_text(LOG.format(said="qemu: no\n"))
    assert find_hint("died", "m", log) == "QEMU's last words: qemu: no"
    assert find_hint("died", "m", None) == "the daemon's log of m has QEMU's own words"
    assert "modprobe tun" in str(find_hint("Unable to open /dev/net/tun", "m", log))


def test_a_missing_helper_of_libvirts_names_its_package() -> None:
    message = "cannot execute binary /usr/lib/libvirt/libvirt_iohelper: No such file or directory"
    hint = str(find_hint(message, "m", None))
    assert "libvirt-daemon-common" in hint and "libvirt-daemon " in hint


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("qemu:///embed?root=/proc/1/fd/3", "no connection driver available", "doctor"),
        ("qemu:///system", "authentication unavailable: no polkit agent available", "-aG libvirt"),
        ("qemu:///system", "Failed to connect socket to '/run/libvirt/x'", "start the daemon"),
        ("qemu:///system", "something else", "the harness needs no daemon"),
    ],
)
def test_a_connection_that_cannot_be_opened_has_its_own_remedy(
    uri: str, message: str, hint: str
) -> None:
    assert hint in find_connection_hint(uri, message)


def test_a_users_session_without_a_daemon_is_not_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(linux, "is_root_of_host", lambda: False)
    with pytest.raises(HostError, match="this user's daemon does not run") as raised:
        require_own_daemon("qemu:///session")
    assert "virtqemud" in str(raised.value.hint)
    require_own_daemon("qemu:///system")
    make_socket(tmp_path / "libvirt/virtqemud-sock")
    require_own_daemon("qemu:///session")


def test_a_guest_has_no_network_without_tap_devices(tmp_path: Path) -> None:
    assert find_tap_fault(Path(os.devnull)) is None
    assert "modprobe tun" in str(find_tap_fault(tmp_path / "tun"))
