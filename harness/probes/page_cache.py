"""Warm and cold: put files into the page cache or evict them, and check what came of it.

Eviction is POSIX_FADV_DONTNEED; pages that are mapped by a running program stay, which is why the
state is read back (mincore) and stored with the trial.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import linux
from harness.model import CacheState

WARM_AT_LEAST = 0.99
COLD_AT_MOST = 0.05
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Residency:
    """Pages of a set of files that are in the page cache, and all their pages."""

    resident: int
    total: int

    @property
    def share(self) -> float:
        return self.resident / self.total if self.total else 1.0


def set_cache_state(files: Sequence[Path], state: CacheState) -> Residency:
    """Bring ``files`` into the asked state and return what was reached."""
    residency = read_residency(files)
    if state == "cold":
        for file in files:
            _evict(file)
        return read_residency(files)
    if residency.share < 1.0:
        for file in files:
            _read_through(file)
        return read_residency(files)
    return residency


def find_mark(residency: Residency, state: CacheState) -> str | None:
    """The validity mark of a trial whose files are not in the asked state."""
    if state == "warm" and residency.share < WARM_AT_LEAST:
        return "cache-not-warm"
    if state == "cold" and residency.share > COLD_AT_MOST:
        return "cache-not-cold"
    return None


def read_residency(files: Sequence[Path]) -> Residency:
    """Resident and all pages over ``files``; a file that is gone or unreadable does not count."""
    resident = total = 0
    for path in files:
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            found, pages = linux.read_resident_pages(file.fileno(), os.fstat(file.fileno()).st_size)
            resident += found
            total += pages
    return Residency(resident, total)


def _evict(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        os.fdatasync(file.fileno())  # dirty pages would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_through(path: Path) -> None:
    """Read a file's data (not its holes: those are never read from a disk)."""
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = bytearray(_CHUNK)
        while size > 0 and (count := file.readinto(buffer)):
            size -= count
