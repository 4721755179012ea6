"""The ELF kernel inside a bzImage, for direct and microvm boot through its PVH entry.

Formats: Documentation/arch/x86/boot.rst of the Linux kernel for the setup header; elf(5); the note
that names the PVH entry is XEN_ELFNOTE_PHYS32_ENTRY of Xen's elfnote.h.
"""

import bz2
import lzma
import struct
import zlib
from pathlib import Path

from harness.errors import HostError
from harness.process import run_command

_SECTOR = 512
_SETUP_SECTS = 0x1F1
_HEADER_MAGIC = 0x202
_PAYLOAD = 0x248
_PT_NOTE = 4
_PHYS32_ENTRY = 18
_TIMEOUT = 120.0
_TOOL_MAGIC = {b"\x02\x21\x4c\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}


def extract_elf(bzimage: Path, out: Path) -> None:
    """Write the ELF kernel of ``bzimage`` to ``out``; raises HostError if it has no PVH entry."""
    payload = find_payload(bzimage.read_bytes(), bzimage)
    tool = next((tool for magic, tool in _TOOL_MAGIC.items() if payload.startswith(magic)), None)
    if tool is None:
        out.write_bytes(decompress_payload(payload, bzimage))
    else:
        packed = out.with_name(out.name + ".packed")
        # The build appends the plain size as four bytes, which these tools would take for a frame.
        packed.write_bytes(payload[:-4])
        target = ["-o", out] if tool == "zstd" else [out]
        run_command([tool, "-d", "-q", "-f", packed, *target], timeout=_TIMEOUT)
        packed.unlink()
    if not has_pvh_entry(out.read_bytes()):
        raise HostError(f"the kernel in {bzimage.name} has no PVH entry and cannot boot directly")


def find_payload(image: bytes, name: Path) -> bytes:
    """The compressed kernel inside a bzImage, with its magic first."""
    if image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        raise HostError(f"{name} is not a Linux kernel for x86")
    # A count of 0 stands for 4, says the boot protocol.
    sectors = image[_SETUP_SECTS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (sectors + 1) * _SECTOR + offset
    return image[start : start + length]


def decompress_payload(payload: bytes, name: Path) -> bytes:
    """The plain bytes of a payload that Python can decompress; what follows it is ignored."""
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(payload)
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    if payload.startswith(b"\x5d\x00\x00"):
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    raise HostError(f"{name} is compressed in an unknown way ({payload[:4].hex()})")


def has_pvh_entry(elf: bytes) -> bool:
    """Whether a 64-bit ELF kernel has the note that names its PVH entry point."""
    if elf[:5] != b"\x7fELF\x02":
        return False
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", elf, offset + index * size)
        if kind == _PT_NOTE and _has_note(elf[start : start + length]):
            return True
    return False


def _has_note(notes: bytes) -> bool:
    position = 0
    while position + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, position)
        name = notes[position + 12 : position + 12 + name_size]
        if name == b"Xen\0" and kind == _PHYS32_ENTRY:
            return True
        position += 12 + _align(name_size) + _align(data_size)
    return False


def _align(size: int) -> int:
    return -(-size // 4) * 4
