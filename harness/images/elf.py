"""What a program or a shared library needs to be loaded: its interpreter and its libraries.

Format: elf(5), 64-bit little-endian. Nothing is run, as ldd would; what a program opens by itself
later (dlopen(3)) cannot be seen here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True, slots=True)
class Needs:
    """``interpreter`` is a path, empty for libraries and static programs; ``libraries`` names."""

    interpreter: str
    libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def parse_needs(data: bytes) -> Needs | None:
    """What an ELF file needs; None for any other file, and for one that is cut off."""
    if not data.startswith(_MAGIC):
        return None
    try:
        segments = tuple(_walk_segments(data))
        interpreter = next((each for each in segments if each.kind == _PT_INTERP), None)
        return Needs(
            _read_text(data, interpreter.offset) if interpreter else "",
            tuple(_walk_libraries(data, segments)),
        )
    except (struct.error, StopIteration, ValueError):
        return None


def _walk_segments(data: bytes) -> Iterator[_Segment]:
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, offset, address, _, length = struct.unpack_from(
            "<IIQQQQ", data, start + number * size
        )
        yield _Segment(kind, offset, address, length)


def _walk_libraries(data: bytes, segments: tuple[_Segment, ...]) -> Iterator[str]:
    entries = [entry for each in segments if each.kind == _PT_DYNAMIC
               for entry in _walk_dynamic(data, each)]  # fmt: skip
    table = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    for tag, value in entries:
        if tag == _DT_NEEDED and table is not None:
            yield _read_text(data, _find_offset(segments, table) + value)


def _walk_dynamic(data: bytes, segment: _Segment) -> Iterator[tuple[int, int]]:
    for place in range(segment.offset, segment.offset + segment.size, 16):
        tag, value = struct.unpack_from("<qQ", data, place)
        if tag == _DT_NULL:
            return
        yield tag, value


def _find_offset(segments: tuple[_Segment, ...], address: int) -> int:
    """Where in the file the memory at ``address`` comes from."""
    for each in segments:
        if each.kind == _PT_LOAD and each.address <= address < each.address + each.size:
            return address - each.address + each.offset
    raise ValueError(f"no segment holds {address:#x}")


def _read_text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode(errors="replace")
