"""How many more instances the host has room for, so that its reserve stays whole.

Each counts with all that it may take: its memory limit, or a guest's memory and its emulator's;
its processes, and what it may write where that has a limit. Read before anything is started, never
while something is timed.
"""

import shutil
from pathlib import Path

from harness.drivers.base import InstanceSpec
from harness.errors import HarnessError
from harness.isolation.model import Reserve
from harness.model import Kind
from harness.probes import memory, noise
from harness.units import format_bytes

MEMORY_RESERVE = 1 << 30
DISK_RESERVE = 1 << 30
PIDS_RESERVE = 2000
"""What is left free unless a plan says otherwise; of a small host an eighth, where that is less."""

_PART = 8
_MACHINE_EXTRA = 128 << 20  # what QEMU takes beside its guest's memory, generously
_PIDS_EACH = 32


def build_reserve(
    scratch: Path, kept_memory: int | None, kept_pids: int | None, kept_disk: int | None
) -> Reserve:
    """What this host keeps: as stated (bytes, process ids), or by its size."""
    total = shutil.disk_usage(scratch).total
    return Reserve(
        _choose(kept_memory, MEMORY_RESERVE, memory.read_total()),
        _choose(kept_pids, PIDS_RESERVE, noise.count_most_pids()),
        _choose(kept_disk, DISK_RESERVE, total),
    )


def _choose(stated: int | None, usual: int, whole: int) -> int:
    return min(usual, whole // _PART) if stated is None else stated


def find_room(
    spec: InstanceSpec, kind: Kind, reserve: Reserve, scratch: Path, *, elsewhere: bool = False
) -> tuple[int, str]:
    """How many instances like ``spec`` fit beside what runs now, and what limits them.

    Of machines that run ``elsewhere``, on another host, nothing is known here but their processes.
    """
    rooms: dict[str, int] = {}
    if not (elsewhere and kind == "vm"):
        each = spec.memory + (_MACHINE_EXTRA if kind == "vm" else 0)
        available = memory.read_available()
        kept = format_bytes(reserve.memory)
        free = f"{format_bytes(available)} are free, of which {kept} are reserved"
        rooms[f"each may take {format_bytes(each)} of memory; {free}"] = (
            available - reserve.memory
        ) // each
    pids = noise.count_free_pids()
    each = max(_PIDS_EACH, spec.pids or 0)
    rooms[
        f"each may start {each} processes; {pids} process ids are free, of which "
        f"{reserve.processes} are reserved"
    ] = (pids - reserve.processes) // each
    disk = shutil.disk_usage(scratch).free
    told = (
        f"{format_bytes(disk)} of disk are free, of which {format_bytes(reserve.disk)} are reserved"
    )
    if spec.disk is not None:
        rooms[f"each may write {format_bytes(spec.disk)}; {told}"] = (
            disk - reserve.disk
        ) // spec.disk
    elif disk < reserve.disk:
        rooms[told] = 0
    limit = min(rooms, key=lambda name: rooms[name])
    return max(0, rooms[limit]), limit


def require_room(
    spec: InstanceSpec, kind: Kind, reserve: Reserve, scratch: Path, *, elsewhere: bool = False
) -> None:
    """Raises HarnessError where one more instance could take of the host's reserve."""
    count, limit = find_room(spec, kind, reserve, scratch, elsewhere=elsewhere)
    if count < 1:
        raise HarnessError(
            f"this host has no room for it: {limit}",
            hint="free some, lower `memory` or `disk`, or state a smaller `reserve`, "
            "`reserve_pids` or `reserve_disk`; HARNESS_CACHE may point at a larger disk",
        )
