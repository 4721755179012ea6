"""Which bytes of a file lie in blocks that other files use too, asked of the file system.

Source: Documentation/filesystems/fiemap.rst and include/uapi/linux/fiemap.h of the kernel.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLAG_LAST = 0x1
FLAG_UNKNOWN = 0x2
FLAG_SHARED = 0x2000

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQLLLL")  # start, length, flags, extents mapped, room for extents, reserved
_EXTENT = struct.Struct("=QQQ16xL12x")  # logical, physical, length, flags
_BATCH = 256
_WHOLE = (1 << 64) - 1
_NO_ANSWER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file's bytes: where they are in the file and on the device, in bytes."""

    logical: int
    physical: int
    length: int
    flags: int

    @property
    def shared(self) -> bool:
        return bool(self.flags & FLAG_SHARED)


def find_extents(path: Path) -> list[Extent] | None:
    """The extents of a regular file; None where the file system does not tell (tmpfs)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return list(_read_extents(descriptor))
    except OSError as error:
        if error.errno in _NO_ANSWER:
            return None
        raise
    finally:
        os.close(descriptor)


def build_request(start: int) -> bytearray:
    """What the kernel is asked: the extents from ``start`` on, with room for a batch of them."""
    head = _HEAD.pack(start, _WHOLE - start, 0, 0, _BATCH, 0)
    return bytearray(head + bytes(_EXTENT.size * _BATCH))


def parse_answer(answer: bytes) -> list[Extent]:
    """The extents that the kernel wrote into the request."""
    count = _HEAD.unpack_from(answer)[3]
    offsets = (_HEAD.size + number * _EXTENT.size for number in range(count))
    return [Extent(*_EXTENT.unpack_from(answer, offset)) for offset in offsets]


def _read_extents(descriptor: int) -> Iterator[Extent]:
    """Without FIEMAP_FLAG_SYNC: what is not written yet is shared with nobody."""
    start = 0
    while True:
        request = build_request(start)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, request)
        extents = parse_answer(bytes(request))
        yield from extents
        if not extents or extents[-1].flags & FLAG_LAST:
            return
        start = extents[-1].logical + extents[-1].length
