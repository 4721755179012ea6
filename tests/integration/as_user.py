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


def open_paths(paths: Sequence[Path], spare: Path) -> None:
    """Make ``paths`` reachable for others: a folder above one that is closed is covered."""
    found = {path: _find_closed(path) for path in paths}
    kept: dict[Path, Path] = {}
    for number, (path, closed) in enumerate(found.items()):
        if closed is not None:
            kept[path] = spare / f"spare{number}"
            kept[path].mkdir()
            linux.mount(str(path), kept[path], "", linux.MS_BIND | linux.MS_REC)
    for closed in {each for each in found.values() if each is not None}:
        linux.mount("tmpfs", closed, "tmpfs", 0, "mode=755")
    for path, place in kept.items():
        path.mkdir(parents=True)
        linux.mount(str(place), path, "", linux.MS_BIND | linux.MS_REC)


def _find_closed(path: Path) -> Path | None:
    """The outermost folder above ``path`` that others may not go through."""
    return next((up for up in reversed(path.parents) if not up.stat().st_mode & stat.S_IXOTH), None)


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
    open_paths(paths, folder)
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
