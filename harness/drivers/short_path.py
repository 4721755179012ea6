"""A folder's other name, short and of plain characters, whatever its own is.

A socket's path has at most 107 bytes (unix(7)), and not every language that a path gets into has a
way to quote it. ``/proc/PID/fd/N`` leads to the folder that descriptor N of this process is open
on, for whoever runs as the same user in the lab (proc_pid_fd(5)).
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

_SOCKET_MOST = 107


def shorten(folder: Path) -> str:
    """A short name of ``folder`` for as long as this process lives; raises OSError."""
    return _shorten(folder, os.getpid())


@functools.cache
def _shorten(folder: Path, pid: int) -> str:
    return f"/proc/{pid}/fd/{os.open(folder, os.O_PATH | os.O_CLOEXEC)}"


@contextlib.contextmanager
def shortened(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """``folder``, by a short name if sockets of those ``names`` would not fit in it otherwise."""
    if max(len(os.fsencode(folder / name)) for name in names) <= _SOCKET_MOST:
        yield folder
        return
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
