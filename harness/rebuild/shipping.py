"""How much of a new image has to travel to a host that has the old one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = 64 << 10
"""Bytes of a block of a disk, at fixed places: the size of a qcow2 cluster."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The blocks of a disk that the old disk has not at the same place."""

    blocks: int
    bytes: int


def find_new(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The blobs (digest and size) of ``after`` that a host with ``before`` has not got."""
    return {digest: size for digest, size in after.items() if digest not in before}


def write_changed(before: Path, after: Path, out: Path) -> Changed:
    """Write the blocks of ``after`` that differ from ``before`` to ``out``, one after the other."""
    blocks = size = 0
    with out.open("wb") as file:
        for block in _walk_changed(before, after):
            file.write(block)
            blocks, size = blocks + 1, size + len(block)
    return Changed(blocks, size)


def _walk_changed(before: Path, after: Path) -> Iterator[bytes]:
    with before.open("rb") as old, after.open("rb") as new:
        while block := new.read(BLOCK):
            known = old.read(BLOCK)
            if block != known and (known or any(block)):
                yield block
