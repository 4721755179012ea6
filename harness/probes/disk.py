"""Disk: what an image takes, what a trial adds, and what comes back when it is deleted."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.drivers.base import Packed
from harness.images.model import Image
from harness.model import Measurement

_BLOCK = 512  # st_blocks counts in these, whatever the file system (stat(2))


def read_image(packed: Sequence[Packed], image: Image) -> list[Measurement]:
    """Image rows of a platform: what it runs from (first packing) as headline, each by phase."""
    rows = []
    for each in packed:
        packing = image.packings.get(each.packing)
        apparent, allocated = read_sizes(each.paths)
        rows.append(Measurement("disk.image_apparent", apparent, each.packing))
        rows.append(Measurement("disk.image_allocated", allocated, each.packing))
        if packing is not None and packing.virtual is not None:
            rows.append(Measurement("disk.image_virtual", packing.virtual, each.packing))
    if packed:
        apparent, allocated = read_sizes(packed[0].paths)
        rows.append(Measurement("disk.image_apparent", apparent))
        rows.append(Measurement("disk.image_allocated", allocated))
    return rows


def read_sizes(paths: Sequence[Path]) -> tuple[int, int]:
    """(apparent, allocated) bytes of files and folders; a hard-linked file counts once."""
    seen: set[tuple[int, int]] = set()
    apparent = allocated = 0
    for path in paths:
        for status in _walk(path):
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                apparent += status.st_size
                allocated += status.st_blocks * _BLOCK
    return apparent, allocated


def _walk(path: Path) -> Iterator[os.stat_result]:
    yield path.lstat()
    if path.is_dir() and not path.is_symlink():
        with os.scandir(path) as entries:
            for entry in entries:
                yield from _walk(Path(entry.path))


def read_used(folder: Path) -> int:
    """Used bytes of the file system that holds ``folder``."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
