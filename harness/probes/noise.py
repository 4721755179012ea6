"""What disturbed a trial: CPU time stolen, pressure, swapping, clock trouble.

Sources: proc_stat(5), Documentation/accounting/psi.rst, proc_vmstat.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

STEAL_SHARE = 0.02
"""A trial is marked where more than this share of one CPU's time was stolen."""

PRESSURE_SHARE = 0.10
"""A trial is marked where tasks waited for memory or I/O longer than this share of it."""

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Noise:
    """Counters of the host at one moment. Times in seconds; None where the kernel has none."""

    clock: int
    steal: float
    pressure_memory: float | None
    pressure_io: float | None
    pressure_cpu: float | None
    swapped: int


def read_noise(clock: int) -> Noise:
    return Noise(
        clock=clock,
        steal=_read_steal(),
        pressure_memory=_read_pressure("memory"),
        pressure_io=_read_pressure("io"),
        pressure_cpu=_read_pressure("cpu"),
        swapped=_read_swapped(),
    )


def _read_steal() -> float:
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(first[8]) / os.sysconf("SC_CLK_TCK") if len(first) > 8 else 0.0


def _read_pressure(resource: str) -> float | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        some = Path(f"/proc/pressure/{resource}").read_text().split("\n", 1)[0]
        return int(some.rsplit("total=", 1)[1]) / 1e6
    return None


def _read_swapped() -> int:
    lines = Path("/proc/vmstat").read_text().splitlines()
    pairs = (line.split() for line in lines if line.startswith(("pswpin ", "pswpout ")))
    return sum(int(value) for _, value in pairs)


def find_marks(before: Noise, after: Noise) -> list[str]:
    """Validity marks for what happened between two readings."""
    seconds = (after.clock - before.clock) / _NANOSECONDS
    marks = []
    if after.steal - before.steal > STEAL_SHARE * seconds:
        marks.append("steal")
    if after.swapped > before.swapped:
        marks.append("swap")
    for name in ("memory", "io"):
        old, new = getattr(before, f"pressure_{name}"), getattr(after, f"pressure_{name}")
        if old is not None and new is not None and new - old > PRESSURE_SHARE * seconds:
            marks.append(f"pressure-{name}")
    return marks


def build_details(before: Noise, after: Noise) -> dict[str, float]:
    """The differences, to be stored with the trial."""
    details = {"steal_s": after.steal - before.steal}
    for name in ("memory", "io", "cpu"):
        old, new = getattr(before, f"pressure_{name}"), getattr(after, f"pressure_{name}")
        if old is not None and new is not None:
            details[f"pressure_{name}_s"] = new - old
    return {key: round(value, 6) for key, value in details.items()}
