"""Folders of the cache that are built aside, under a lock, and appear whole or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HostError
from harness.images.rooted import run_rooted
from harness.process import says_full
from harness.units import format_bytes

Progress = Callable[[str], None]

MAKE_ROOM = "free some space, or point HARNESS_CACHE at a larger disk"
"""What helps where the disk of the cache is full."""

PREFIX = ".build-"
"""How folders begin that are being built, or removed: whoever finds one unlocked removes it."""


@contextmanager
def start_work(parent: Path, progress: Progress) -> Iterator[Path]:
    """A new empty folder in ``parent``, for one builder at a time; what is left of it is removed.

    The lock goes with the process that holds it, so a folder found here belongs to a dead build.
    A full disk, or a cache that may not be written, is a HostError.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / ".lock").open("w") as lock:
            _take_lock(lock.fileno(), parent, progress)
            for leftover in parent.glob(f"{PREFIX}*"):
                remove_tree(leftover)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            folder.chmod(0o755)
            try:
                yield folder
            finally:
                remove_tree(folder)
    except HostError as error:
        if error.hint is None and says_full(error.message):
            raise _no_space(parent) from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(parent) from error
        raise HostError(
            f"{parent.name} cannot be built in {parent}: {error.strerror or error}",
            hint="HARNESS_CACHE names another folder for the cache",
        ) from error


def _no_space(parent: Path) -> HostError:
    return HostError(
        f"{parent.name} cannot be built in {parent}: no space left on the disk", hint=MAKE_ROOM
    )


def require_space(folder: Path, needed: int) -> None:
    """Raise HostError if ``folder`` has less than ``needed`` bytes free.

    Asked before a build, because apt waits for ever when the disk gets full under it.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"{folder.parent} has {format_bytes(free)} free, and building needs "
            f"{format_bytes(needed)}",
            hint="free some space, or name another folder with HARNESS_CACHE",
        )


def move_into_place(built: Path, final: Path) -> None:
    """Rename a finished folder to its name, on disk before it can be found."""
    if final.exists():
        remove_tree(final)
    os.rename(built, final)
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small file under a new name, flush it, then rename it into place."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_text`; the new name is this process's own, as two may write at once."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def point_to(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to ``target`` in one step, whatever it was before."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, link)


def remove_tree(path: Path) -> None:
    """Remove a folder with files of any owner of ours; never crosses into another file system."""
    if path.exists():
        run_rooted(["rm", "-rf", "--one-file-system", "--", path], timeout=300)


def _take_lock(descriptor: int, parent: Path, progress: Progress) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress(f"{parent.name}: waiting for another build of it to end")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
