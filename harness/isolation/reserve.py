"""What the host keeps: no hog starts, and none goes on, where less would be left."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.isolation.model import MIB, Hog, Reserve
from harness.probes import memory
from harness.units import format_bytes

_KERNEL = Path("/proc/sys/kernel")


def find_refusal(hog: Hog, reserve: Reserve, scratch: Path) -> str | None:
    """Why a hog is not started on this host; None if enough would be left in the worst case."""
    if hog.kind == "memory":
        left = memory.read_available() - hog.bound * MIB
        if left < reserve.memory:
            return _say("memory", format_bytes(max(0, left)), format_bytes(reserve.memory))
    if hog.kind == "processes":
        left = count_free_processes() - hog.bound
        if left < reserve.processes:
            return _say("processes", str(max(0, left)), str(reserve.processes))
    if hog.kind in ("disk", "write"):
        left = shutil.disk_usage(scratch).free - hog.bound * MIB
        if left < reserve.disk:
            return _say("disk", format_bytes(max(0, left)), format_bytes(reserve.disk))
    return None


def _say(thing: str, left: str, kept: str) -> str:
    return f"the host's reserve of {thing} is {kept}, and only {left} would be left"


def select_hogs(
    hogs: Sequence[Hog], reserve: Reserve, scratch: Path
) -> tuple[list[Hog], dict[str, str]]:
    """The hogs that may start, and why each of the others may not."""
    refused = {hog.kind: why for hog in hogs if (why := find_refusal(hog, reserve, scratch))}
    return [hog for hog in hogs if hog.kind not in refused], refused


def find_breach(reserve: Reserve, scratch: Path) -> str | None:
    """What of the reserve is in use while hogs run; None while it is whole."""
    if (left := memory.read_available()) < reserve.memory:
        return _say("memory", format_bytes(left), format_bytes(reserve.memory))
    if (free := shutil.disk_usage(scratch).free) < reserve.disk:
        return _say("disk", format_bytes(free), format_bytes(reserve.disk))
    if (count := count_free_processes()) < reserve.processes:
        return _say("processes", str(count), str(reserve.processes))
    return None


def count_free_processes() -> int:
    """How many more tasks this kernel would take: the lesser of its two limits, less those alive.

    Source: proc(5), /proc/loadavg and /proc/sys/kernel; alive are those of this pid namespace's
    kernel, all of them.
    """
    limits = []
    for name in ("pid_max", "threads-max"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((_KERNEL / name).read_text()))
    alive = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    return min(limits, default=0) - alive
