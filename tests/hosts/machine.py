"""Whole hosts as virtual machines: Debian with systemd, D-Bus, control groups v2 and a working KVM.

QEMU's emulation offers AMD's SVM with nested paging, so the guest's own KVM boots guests. All of it
is some 20 to 30 times slower than real: it shows what works, and its times mean nothing.

A machine's disk is made once: a root with the project's set-up done in it, its images built, and
two users. A job is a script that the machine runs when it is up, on the checkout that the job
brings; the machine has no network. What it writes to /job is here when it is off.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.images.workshop import move_into_place, start_work
from harness.process import run_command
from tests.hosts.roots import Release, build_key, copy_root, hosts_dir, require_root, run_in

PACKAGES = (
    *("make", "ca-certificates", "systemd-sysv", "libpam-systemd", "udev", "dbus"),
    *("dbus-user-session", "linux-image-amd64", "iproute2", "kmod", "procps", "apparmor"),
)
"""What a server has that somebody installed: an init system, a kernel, and no more."""

SERVICES = ("libvirt-daemon-system", "lxc", "bubblewrap", "polkitd")
"""What such a server may have besides: `make run` installs none of it."""

PROJECT = "/opt/project"
USERS = {"plain": (), "virtual": ("kvm",)}
"""Ordinary users and the groups they are in besides their own."""

_ROOT = Path(__file__).resolve().parents[2]
_RECIPE = ("harness/images", "harness/system_packages.toml", "constraints.txt", "pyproject.toml")
"""What decides what is in a machine's disk; all other code comes with each job."""

_LEFT_OUT = (".git", ".venv", ".make", ".asv", "results", "*_cache", "__pycache__")
_DISK = "disk.img"
_SIZE = "16G"
_MEMORY_MIB = 8192
_SET_UP_S = 1800.0
_IMAGES = ("tiny",)

_JOB = """\
#!/bin/sh
modprobe -a 9p 9pnet_virtio virtio_pci
udevadm settle
mkdir -p /job
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 job /job
cp -a /job/project/. PROJECT/
cd /job
sh /job/script >/job/output 2>&1
echo $? >/job/code
sync
systemctl poweroff --force
"""

_UNITS = {
    "etc/systemd/system/job.service": """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=HOME=/root
ExecStart=/usr/local/sbin/run-job
TimeoutStartSec=infinity
StandardOutput=journal+console
""",
    "etc/systemd/system/job.target": """\
[Unit]
Requires=multi-user.target
Wants=job.service
After=multi-user.target
AllowIsolate=yes
""",
}

_PREPARE = """
set -e
cd PROJECT
make setup
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends SERVICES
.venv/bin/python -m harness images build IMAGES
.venv/bin/python -c '
from harness.images.bootable import require_forms
from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
require_guest_kernel(print)
require_forms(require_image("tiny", print), print)
'
systemctl set-default job.target
"""
_ADD_USER = """
set -e
useradd --create-home --shell /bin/sh NAME
for group in GROUPS; do
    getent group $group || groupadd --system $group
    usermod -aG $group NAME
done
mkdir -p /var/lib/systemd/linger
touch /var/lib/systemd/linger/NAME
cd PROJECT
runuser -u NAME -- .venv/bin/python -m harness images build IMAGES
runuser -u NAME -- .venv/bin/python -c \
    'from harness.images.kernel import require_guest_kernel as r; r(print)'
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be switched on: the folder of its disk, kernel and initramfs."""

    release: Release
    folder: Path


@dataclass(frozen=True, slots=True)
class Done:
    """What a job left: its exit code (None: it did not end in time), what it printed, and
    ``folder``, which it saw as /job."""

    code: int | None
    output: str
    folder: Path
    seconds: float


def require_machine(release: Release) -> Machine:
    """The machine of a release, made if it is not there; that takes some minutes."""
    parts = [hashlib.sha256(_read_recipe()).hexdigest(), _PREPARE, _ADD_USER, _UNITS, _JOB]
    key = build_key(release.suite, PACKAGES, SERVICES, *parts, sorted(USERS), _IMAGES)
    final = hosts_dir() / f"{release.suite}-machine-{key}"
    if not final.is_dir():
        base = require_root(release, PACKAGES)
        with start_work(hosts_dir(), print) as work:
            _make(base, work)
            move_into_place(work / "machine", final)
    return Machine(release, final)


def _read_recipe() -> bytes:
    names = [_ROOT / name for name in _RECIPE]
    files = [path for each in names for path in ([each] if each.is_file() else each.rglob("*"))]
    chosen = sorted(path for path in files if path.suffix in (".py", ".toml", ".txt", ".c"))
    return b"".join(path.read_bytes() for path in chosen)


def _make(base: Path, work: Path) -> None:
    """The disk, the kernel and the initramfs in the folder ``machine`` of ``work``."""
    root, out = copy_root(base, work / "root"), work / "machine"
    out.mkdir()
    copy_project(root / PROJECT[1:])
    for name, text in {**_UNITS, "usr/local/sbin/run-job": _fill(_JOB)}.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755 if "bin/" in name else 0o644)
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/hostname").write_text("testhost\n")
    _run(root, _fill(_PREPARE))
    for name, groups in USERS.items():
        _run(root, _fill(_ADD_USER).replace("NAME", name).replace("GROUPS", " ".join(groups)))
    for kind in ("vmlinuz", "initrd.img"):
        (found,) = (root / "boot").glob(f"{kind}-*")
        shutil.copyfile(found, out / kind)
    (root / "var/log").joinpath("setup.log").unlink(missing_ok=True)
    command = ["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(out / _DISK), _SIZE]
    run_command(command, timeout=600)


def _run(root: Path, script: str) -> None:
    code, output = run_in(root, ["sh", "-c", script], timeout=_SET_UP_S)
    if code != 0:
        raise HostError(f"the machine's set-up ended with {code}: {output[-2000:]}")


def _fill(text: str) -> str:
    words = {"PROJECT": PROJECT, "IMAGES": " ".join(_IMAGES), "SERVICES": " ".join(SERVICES)}
    for word, meant in words.items():
        text = text.replace(word, meant)
    return text


def copy_project(folder: Path, source: Path = _ROOT) -> None:
    """The checkout as it is now, without what is made in it."""
    shutil.copytree(
        source, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT), dirs_exist_ok=True, symlinks=True
    )


# ---- a job -----------------------------------------------------------------------------------


def build_qemu(machine: Machine, job: Path) -> list[str]:
    """The command line that switches the machine on; its changes to the disk are in ``job``."""
    folder = machine.folder
    # Without AVX: after guests of its own, the emulated processor mixes up its wide registers, and
    # what computes with them crashes.
    return [
        "qemu-system-x86_64",
        *("-machine", "q35", "-cpu", "EPYC,+svm,+npt,-sse4a,-avx,-avx2,-fma,-f16c", "-smp", "2"),
        *("-m", str(_MEMORY_MIB), "-accel", "tcg,thread=multi,tb-size=1024"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")),
        *("-append", "root=/dev/vda rw console=ttyS0 quiet"),
        *("-drive", f"file={job}.qcow2,format=qcow2,if=virtio,cache=unsafe"),
        *("-nic", "none", "-display", "none", "-no-reboot"),
        *("-virtfs", f"local,path={job},mount_tag=job,security_model=none"),
        *("-serial", f"file:{job}.serial"),
    ]


def run_job(
    machine: Machine, script: str, folder: Path, *, timeout: float, source: Path = _ROOT
) -> Done:
    """Switch the machine on, run ``script`` as root in it, and wait until it is off.

    ``folder`` is new; what the script leaves in /job is there afterwards, and beside it the
    machine's console (``.serial``) and QEMU's words (``.qemu``).
    """
    folder.mkdir(parents=True)
    copy_project(folder / "project", source)
    (folder / "script").write_text(script)
    disk = Path(f"{folder}.qcow2")
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b")
    run_command([*create, machine.folder / _DISK, disk], timeout=60)
    begun = time.monotonic()
    running = _started(build_qemu(machine, folder), Path(f"{folder}.qemu"))
    try:
        with running as process, contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
    finally:
        disk.unlink()
    return _read(folder, time.monotonic() - begun)


def _read(folder: Path, seconds: float) -> Done:
    code, output = folder / "code", folder / "output"
    return Done(
        code=int(code.read_text()) if code.exists() else None,
        output=output.read_text(errors="replace") if output.exists() else "",
        folder=folder,
        seconds=seconds,
    )


@contextlib.contextmanager
def _started(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
