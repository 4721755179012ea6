"""Disk: what an image takes, what a trial adds, and what comes back when it is deleted."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.drivers.base import Packed
from harness.fiemap import find_extents
from harness.images.model import Image
from harness.model import Measurement

_BLOCK = 512  # st_blocks counts in these, whatever the file system (stat(2))
_MARK = re.compile(rb"@disk ([a-z][a-z0-9-]{0,31})")
_LINE_MAX = 4096


def read_image(packed: Sequence[Packed], image: Image) -> list[Measurement]:
    """Image rows of a platform: what it runs from (first packing) as headline, each by phase."""
    rows = []
    for each in packed:
        packing = image.packings.get(each.packing)
        rows += _build_image_rows(each.paths, each.packing)
        if packing is not None and packing.virtual is not None:
            rows.append(Measurement("disk.image_virtual", packing.virtual, each.packing))
    return rows + (_build_image_rows(packed[0].paths, "") if packed else [])


def _build_image_rows(paths: Sequence[Path], phase: str) -> list[Measurement]:
    apparent, allocated = read_sizes(paths)
    rows = [
        Measurement("disk.image_apparent", apparent, phase),
        Measurement("disk.image_allocated", allocated, phase),
    ]
    shared = find_shared(paths)
    return rows if shared is None else [*rows, Measurement("disk.image_shared", shared, phase)]


def read_instance(files: Sequence[Path]) -> list[Measurement]:
    """What an instance's own files take now."""
    apparent, allocated = read_sizes(files)
    rows = [
        Measurement("disk.instance_growth", allocated),
        Measurement("disk.instance_apparent", apparent),
    ]
    shared = find_shared(files)
    return rows if shared is None else [*rows, Measurement("disk.instance_shared", shared)]


def read_occupied(image: Sequence[Path], instances: Sequence[Path]) -> int:
    """Bytes that an image, or an engine's whole store, and its running instances take together.

    What instances share with the image, by reflinks, is there once: where the file system names
    shared blocks they are counted with the image alone.
    """
    _, taken = read_sizes([*image, *instances])
    return taken - (find_shared(instances) or 0)


def read_sizes(paths: Sequence[Path]) -> tuple[int, int]:
    """(apparent, allocated) bytes of files and folders; a hard-linked file counts once."""
    apparent = allocated = 0
    for _, status in _walk_once(paths):
        apparent += status.st_size
        allocated += status.st_blocks * _BLOCK
    return apparent, allocated


def find_shared(paths: Sequence[Path]) -> int | None:
    """Bytes in blocks that other files use too; None where a file system does not tell."""
    shared = 0
    for path, status in _walk_once(paths):
        if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
            continue
        try:
            extents = find_extents(path)
        except OSError:  # gone by now, or not for this user to read
            return None
        if extents is None:
            return None
        shared += sum(each.length for each in extents if each.shared)
    return shared


def _walk_once(paths: Sequence[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    seen: set[tuple[int, int]] = set()
    for path in paths:
        for found, status in _walk(path, None):
            key = (status.st_dev, status.st_ino)
            if key not in seen:
                seen.add(key)
                yield found, status


def _walk(path: Path, device: int | None) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in and below ``path`` on the same file system, as far as it stays there."""
    try:
        status = path.lstat()
        if device not in (None, status.st_dev):
            return
        yield path, status
        names = os.listdir(path) if stat.S_ISDIR(status.st_mode) else []
    except FileNotFoundError:
        if device is None:
            raise
        return
    for name in names:
        yield from _walk(path / name, status.st_dev)


@dataclass(slots=True)
class Marks:
    """Readings that a workload asks for: it prints ``@disk NAME``, and its growth is read then.

    ``rows`` are `disk.instance_growth` with NAME as their phase.
    """

    files: Callable[[], Sequence[Path] | None]
    rows: list[Measurement] = field(default_factory=list)
    rest: bytes = b""

    def take(self, output: bytes) -> None:
        """What the workload printed, piece by piece."""
        *lines, self.rest = (self.rest[-_LINE_MAX:] + output).split(b"\n")
        for line in lines:
            found = _MARK.fullmatch(line.strip())
            files = self.files() if found else None
            if found and files is not None:
                _, allocated = read_sizes(files)
                name = found[1].decode()
                self.rows.append(Measurement("disk.instance_growth", allocated, name))


def read_used(folder: Path) -> int:
    """Used bytes of the file system that holds ``folder``."""
    status = os.statvfs(folder)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
