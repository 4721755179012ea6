"""What an instance's own control group says of its limits, as raw evidence (`limits` sets them)."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from harness import cgroup

_LIMIT_FILES = (
    "memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max",
    "blkio.throttle.write_bps_device", "io.max",
)  # fmt: skip
_COUNTERS = (
    "pids.current", "pids.peak", "pids.events", "memory.max_usage_in_bytes", "memory.peak",
    "cpu.stat",
)  # fmt: skip


def read_files(folders: Sequence[Path]) -> list[str]:
    """Limits and counters of the groups as the kernel shows them: ``NAME/FILE: TEXT``.

    Those without a limit are left out.
    """
    found = []
    for folder in dict.fromkeys(folders):
        for name in (*_LIMIT_FILES, *_COUNTERS):
            with contextlib.suppress(OSError):
                text = " ".join((folder / name).read_text().split())
                if text and not is_unlimited(name, text):
                    found.append(f"{cgroup.build_path([folder])}/{name}: {text}")
    return found


def is_unlimited(name: str, text: str) -> bool:
    """Whether a limit's file says that there is none."""
    if name not in _LIMIT_FILES:
        return False
    first = text.split()[0]
    return first in ("max", "-1") or (first.isdigit() and int(first) >= 1 << 62)


def count_refused_forks(folders: Sequence[Path]) -> int:
    """How often a fork failed because of the groups' limit of processes, those below included."""
    count = 0
    for folder in folders:
        for path in folder.rglob("pids.events"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                count += int(path.read_text().split()[1])
    return count
