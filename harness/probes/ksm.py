"""Kernel same-page merging: whether it runs, what it has merged, and when it has seen everything.

It is the whole host's, so it is read here and never switched: a density series has it where the
host already runs it. Of an instance only memory that asks for it is merged (MADV_MERGEABLE), which
QEMU does for a guest's and `no-ksm` forbids; containers' processes do not ask.
Source: Documentation/admin-guide/mm/ksm.rst.
"""

import contextlib
import mmap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/sys/kernel/mm/ksm")

SCANS = 2
"""Full scans after which what can be merged is: a page has to be seen unchanged once before."""

WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Merging:
    """KSM's counters: ``scans`` of everything so far, ``merged`` pages that need no memory of their
    own, and the ``shared`` ones that they stand for."""

    running: bool
    scans: int
    shared: int
    merged: int

    @property
    def saved(self) -> int:
        """Bytes that the host would need more without it, its own tables left out."""
        return self.merged * mmap.PAGESIZE


def read_merging(folder: Path = FOLDER) -> Merging | None:
    """The counters now; None for a kernel without KSM."""
    with contextlib.suppress(OSError, ValueError):
        run, scans, shared, merged = (
            int((folder / name).read_text())
            for name in ("run", "full_scans", "pages_shared", "pages_sharing")
        )
        return Merging(run == 1, scans, shared, merged)
    return None


def find_fault(merging: Merging | None) -> str:
    """Why nothing is merged on this host; empty where KSM runs."""
    if merging is None:
        return "this kernel has no KSM"
    return "" if merging.running else "ksmd does not run"


def wait_settled(
    folder: Path = FOLDER,
    limit: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Merging | None, float]:
    """Wait until everything was scanned `SCANS` times from now; counters, and seconds it took.

    There is no event to wait for. It ends at ``limit`` seconds too, and at once where KSM does not
    run.
    """
    begun = time.monotonic()
    first = found = read_merging(folder)
    while first and found and found.running and found.scans < first.scans + SCANS:
        if time.monotonic() - begun > limit:
            break
        sleep(0.05)
        found = read_merging(folder)
    return found, time.monotonic() - begun
