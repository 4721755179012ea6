"""When something in the cache was last used, and whether a run uses it now: its file ``.used``.

The file's time is that of the last use. A live run holds a shared lock on it, and who removes
needs the lock alone: flock(2) goes with the processes that hold it, so a dead run holds nothing.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.errors import HostError
from harness.paths import cache_dir

MARK = ".used"
DEPTHS = {
    "images": 2,
    "disks": 2,
    "snapshots": 2,
    "kernels": 1,
    "systems": 1,
    "rebuild": 1,
    "programs": 1,
}
"""How many folders lie between the cache and its entries, by the first of them."""

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def find_entry(path: Path) -> Path | None:
    """The folder that is kept or removed as a whole, for a file in the cache; None outside it."""
    root = cache_dir().resolve()
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        return None
    parts = resolved.relative_to(root).parts
    depth = DEPTHS.get(parts[0], 0) if parts else 0
    return root.joinpath(*parts[: depth + 1]) if 0 < depth < len(parts) else None


@contextlib.contextmanager
def start_use(paths: Iterable[Path]) -> Iterator[None]:
    """Note that these files are used now, and keep them from being pruned for as long.

    Raises HostError for what was removed since it was found.
    """
    entries = {entry for path in paths if (entry := find_entry(path)) is not None}
    with contextlib.ExitStack() as stack:
        for entry in sorted(entries):
            stack.enter_context(_hold(entry))
        yield


@contextlib.contextmanager
def _hold(entry: Path) -> Iterator[None]:
    try:
        descriptor = os.open(entry / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        raise _build_error(entry) from None
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        yield  # whoever cannot write here cannot keep anybody from removing either
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink == 0:
            raise _build_error(entry)
        with contextlib.suppress(OSError):
            os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


def _build_error(entry: Path) -> HostError:
    name = entry.relative_to(cache_dir().resolve())
    return HostError(f"{name} vanished from the cache", hint="run again: it is made anew")


@contextlib.contextmanager
def try_lock(file: Path) -> Iterator[bool]:
    """Whether nobody else has the lock of ``file``; it is held meanwhile."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        yield True  # a full disk has to be freed all the same
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def is_used(entry: Path) -> bool:
    """Whether a run uses it now; makes nothing."""
    if not (entry / MARK).exists():
        return False
    with contextlib.suppress(OSError), try_lock(entry / MARK) as free:
        return not free
    return False


def read_last_use(entry: Path, built: float) -> float:
    """When it was last used, in seconds of the Unix clock; that it was built is a use too."""
    with contextlib.suppress(OSError):
        return max(built, (entry / MARK).stat().st_mtime)
    return built
