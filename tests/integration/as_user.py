"""Run a command as an ordinary user who exists in a private mount namespace only.

The user's own passwd, group, subuid and subgid files lie over the host's, and the interpreter and
the checkout are made reachable where a folder above them is closed to others. Nothing of the
machine is changed.

    python -m tests.integration.as_user FOLDER COMMAND [ARGUMENT...]
"""

import os
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import linux

UID = 23_456
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


def open_path(path: Path, spare: Path) -> None:
    """Make ``path`` reachable for others: a folder above it that is closed is covered."""
    closed = next(
        (up for up in reversed(path.parents) if not up.stat().st_mode & stat.S_IXOTH), None
    )
    if closed is None:
        return
    spare.mkdir()
    linux.mount(str(path), spare, "", linux.MS_BIND | linux.MS_REC)
    linux.mount("tmpfs", closed, "tmpfs", 0, "mode=755")
    path.mkdir(parents=True)
    linux.mount(str(spare), path, "", linux.MS_BIND | linux.MS_REC)


def become_user(folder: Path, paths: Sequence[Path]) -> Path:
    """Enter the private view and become the user; returns the user's home, which is empty."""
    home = folder / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    for name, text in build_files(home).items():
        (folder / name).write_text(text)
        linux.mount(str(folder / name), f"/etc/{name}", "", linux.MS_BIND)
    for number, path in enumerate(paths):
        open_path(path, folder / f"spare{number}")
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    return home


def main(folder: Path, command: Sequence[str]) -> None:
    python, project = Path(sys.base_prefix), Path(__file__).parents[2]
    home = become_user(folder, [python, project])
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
    main(Path(sys.argv[1]), sys.argv[2:])
