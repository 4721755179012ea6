"""Run a command as an ordinary user who exists in a private mount namespace only.

The user's own passwd, group, subuid and subgid files lie over the host's, and the interpreter and
the checkout are made reachable where a folder above them is closed to others. Nothing of the
machine is changed.

    python -m tests.integration.as_user [--kvm=member|stranger] FOLDER COMMAND [ARGUMENT...]

With ``--kvm`` the host is as systemd makes it: ``/dev/kvm`` is a group's, of which the user is a
member or not, and a hugetlbfs is mounted that only root may write to.
"""

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import linux

UID = 23_456
KVM_GROUP = 23_457
FIRST_SUBORDINATE = 3_000_000
NAME = "harnesstest"


def build_files(home: Path) -> dict[str, str]:
    """What the user's name, home and subordinate ids are, by file of /etc."""
    span = f"{NAME}:{FIRST_SUBORDINATE}:65536\n"
    return {
        "passwd": Path("/etc/passwd").read_text() + f"{NAME}:x:{UID}:{UID}::{home}:/bin/sh\n",
        "group": Path("/etc/group").read_text() + f"{NAME}:x:{UID}:\n",
        "subuid": span,
        "subgid": span,
    }


def open_paths(paths: Sequence[Path], folder: Path) -> None:
    """Make ``paths`` reachable for others: folders above them that are closed are covered."""
    shut = {path: closed for path in paths if (closed := find_closed(path))}
    spares = {path: folder / f"spare{number}" for number, path in enumerate(shut)}
    for path, spare in spares.items():
        spare.mkdir()
        linux.mount(str(path), spare, "", linux.MS_BIND | linux.MS_REC)
    for closed in dict.fromkeys(shut.values()):
        linux.mount("tmpfs", closed, "tmpfs", 0, "mode=755")
    for path, spare in spares.items():
        path.mkdir(parents=True)
        linux.mount(str(spare), path, "", linux.MS_BIND | linux.MS_REC)


def find_closed(path: Path) -> Path | None:
    """The first folder on the way to ``path`` that others may not enter."""
    return next((up for up in reversed(path.parents) if not up.stat().st_mode & stat.S_IXOTH), None)


def share_devices(folder: Path) -> None:
    """KVM's device as a group's, and huge pages as root's."""
    devices, pages = folder / "devices", folder / "pages"
    for each in (devices, pages):
        each.mkdir()
    linux.mount("tmpfs", devices, "tmpfs", 0, "mode=755")
    own = devices / "kvm"
    os.mknod(own, stat.S_IFCHR | 0o660, Path("/dev/kvm").stat().st_rdev)
    os.chown(own, 0, KVM_GROUP)
    own.chmod(0o660)
    linux.mount(str(own), "/dev/kvm", "", linux.MS_BIND)
    linux.mount("hugetlbfs", pages, "hugetlbfs", 0, "mode=755")


def become_user(folder: Path, paths: Sequence[Path], kvm: str | None = None) -> Path:
    """Enter the private view and become the user; returns the user's home, which is empty."""
    home = folder / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    for name, text in build_files(home).items():
        (folder / name).write_text(text)
        linux.mount(str(folder / name), f"/etc/{name}", "", linux.MS_BIND)
    open_paths(paths, folder)
    if kvm:
        share_devices(folder)
    os.setgroups([KVM_GROUP] if kvm == "member" else [])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    return home


def main(folder: Path, command: Sequence[str], kvm: str | None = None) -> None:
    python, project = Path(sys.base_prefix), Path(__file__).parents[2]
    home = become_user(folder, [python, project], kvm)
    os.chdir(project)
    environment = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "USER": NAME,
        "HARNESS_CACHE": str(home / "cache"),
        "HARNESS_DEBUG": "1",
    }
    program = shutil.which(command[0]) or command[0]
    os.execve(program, [program, *command[1:]], environment)


if __name__ == "__main__":
    wanted = [each.partition("=")[2] for each in sys.argv[1:2] if each.startswith("--kvm=")]
    first, *rest = sys.argv[1 + len(wanted) :]
    main(Path(first), rest, *wanted)
