"""Every file that a command opens or executes in a root, as the kernel tells (fanotify(7)).

A tracer would change what it looks at: QEMU may not open what a traced process shares with it, and
gVisor has to trace its own. fanotify sees the opened files themselves, whatever namespace they are
opened in, and what containers have on file systems of their own does not come up.
"""

import ctypes
import os
import select
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_NOTIFY, _UNLIMITED, _CLOSE_ON_EXEC, _NONBLOCK = 0x0, 0x10, 0x1, 0x2
_ADD, _WHOLE_FILE_SYSTEM = 0x1, 0x100
_OPEN, _EXECUTE, _OVERFLOW = 0x20, 0x1000, 0x4000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")
_BUFFER = 1 << 18
_DRAIN_S = 0.2

_LIBC = ctypes.CDLL(None, use_errno=True)


def record(root: Path, argv: Sequence[str]) -> tuple[int, str]:
    """Run ``argv``, which enters ``root`` by itself; its exit code and what it opened there.

    A line a file, ``exec PATH`` or ``open PATH``, the path as the root has it. Needs root of the
    host and a mount whose own root is ``root``, or the kernel tells other paths. Raises OSError
    where the kernel has no fanotify for us.
    """
    found: dict[str, None] = {}
    with _listen(root) as listener, subprocess.Popen(argv, stdin=subprocess.DEVNULL) as child:
        while True:
            ended = child.poll() is not None
            for line in _read(listener, root):
                found[line] = None
            if ended:
                return child.returncode, "".join(f"{line}\n" for line in sorted(found))


@contextmanager
def _listen(root: Path) -> Iterator[int]:
    flags = _NOTIFY | _UNLIMITED | _CLOSE_ON_EXEC | _NONBLOCK
    listener = _check(_LIBC.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC))
    try:
        mask = ctypes.c_uint64(_OPEN | _EXECUTE)
        how = _ADD | _WHOLE_FILE_SYSTEM
        _check(_LIBC.fanotify_mark(listener, how, mask, _AT_FDCWD, os.fsencode(root)))
        yield listener
    finally:
        os.close(listener)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"fanotify: {os.strerror(code)}")
    return result


def _read(listener: int, root: Path) -> Iterator[str]:
    """The lines of all that has come; waits a moment where nothing has."""
    select.select([listener], [], [], _DRAIN_S)
    while True:
        try:
            data = os.read(listener, _BUFFER)
        except BlockingIOError:
            return
        for offset in range(0, len(data), _EVENT.size):
            _, _, _, _, mask, descriptor, _ = _EVENT.unpack_from(data, offset)
            if mask & _OVERFLOW:
                raise OSError("fanotify lost events")
            try:
                path = _find_path(descriptor, root)
            finally:
                os.close(descriptor)
            if path:
                yield f"{'exec' if mask & _EXECUTE else 'open'} {path}"


def _find_path(descriptor: int, root: Path) -> str | None:
    """The file's path if it is one of the root: others use the same file system too."""
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    path = path.removeprefix(str(root).rstrip("/"))
    opened = os.fstat(descriptor)
    try:
        here = os.stat(root / path.lstrip("/"), follow_symlinks=False)
    except OSError:  # removed since, or another's
        return None
    return path if (opened.st_dev, opened.st_ino) == (here.st_dev, here.st_ino) else None
