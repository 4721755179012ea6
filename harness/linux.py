"""The few system calls that Python 3.11's standard library has no function for.

Sources: unshare(2), setns(2), mount(2), umount2(2), prctl(2), mincore(2).
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong,
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def is_root_of_host() -> bool:
    """Whether this process is root where no user namespace maps its numbers."""
    try:
        first = Path("/proc/self/uid_map").read_text()
    except OSError:
        return False
    return os.geteuid() == 0 and first.split() == ["0", "0", "4294967295"]


def unshare(flags: int) -> None:
    """Move this process (for CLONE_NEWPID: its children) into new namespaces; raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(file: int, kind: int) -> None:
    """Move this thread into the namespace that ``file`` is open on; raises OSError."""
    _check(_libc.setns(file, kind), "setns")


def mount(source: str, target: Path | str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); raises OSError."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode(),
        ctypes.c_ulong(flags),
        os.fsencode(options),
    )
    _check(result, str(target))


def unmount(target: Path | str) -> None:
    """Detach a mount, now or as soon as it is unused; raises OSError."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), str(target))


@contextlib.contextmanager
def read_only_view(source: Path, target: Path) -> Iterator[None]:
    """``source`` at the new folder ``target``, as long as it lasts; nobody can write there."""
    target.mkdir()
    mount(str(source), target, "", MS_BIND)
    try:
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV)
        yield
    finally:
        unmount(target)


def set_dumpable() -> None:
    """Let the parent write this process's id maps although its credentials have changed."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def read_resident_pages(file: int, size: int, offset: int = 0) -> tuple[int, int]:
    """(resident, all) pages of ``size`` bytes of an open file in the page cache.

    They begin at ``offset``, a multiple of a page.
    """
    pages = -(-size // mmap.PAGESIZE)
    if pages == 0:
        return 0, 0
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file, offset)
    if address is None or address == ctypes.c_void_p(-1).value:
        _check(-1, "mmap")
    try:
        vector = ctypes.create_string_buffer(pages)
        _check(_libc.mincore(address, size, vector), "mincore")
        return pages - vector.raw.count(0), pages  # the kernel sets bit 0 only
    finally:
        _libc.munmap(address, size)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
