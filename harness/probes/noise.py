"""What disturbed a trial: CPU time stolen or used by others, pressure, swapping, heat, clocks.

Two readings of counters, before the clock of a trial starts and after it has stopped; nothing is
read in between. Sources: proc_stat(5), Documentation/accounting/psi.rst, proc_vmstat,
clock_gettime(2), Documentation/ABI/testing/sysfs-devices-system-cpu (thermal_throttle).

PSI for the CPU is stored but makes no mark: it counts the run's own tasks that wait for each
other, such as a guest's processor and its emulator's threads. `outside-load` tells what it cannot.
"""

import contextlib
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.probes import outside

STEAL_SHARE = 0.02
"""A trial is marked where more than this share of one CPU's time was stolen."""

STEAL_LEAST_S = 0.025
"""Less than this is one tick or two of the kernel's account, which counts in hundredths."""

PRESSURE_SHARE = 0.10
"""A trial is marked where tasks waited for memory or I/O longer than this share of it."""

CLOCK_STEP_NS = 10_000_000
"""Clocks that part by more than this were set or stopped: readings differ by microseconds."""

_NANOSECONDS = 1_000_000_000
_CLOCK_TRIES = 3
_CPU = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Clocks:
    """How far two other clocks are ahead of CLOCK_MONOTONIC, in nanoseconds.

    ``wall`` (CLOCK_REALTIME) moves only when somebody sets it: what slews it slews both.
    ``asleep`` (CLOCK_BOOTTIME) moves only while the host sleeps.
    """

    wall: int
    asleep: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Counters of the host at one moment. Times in seconds; None where the kernel has none.

    ``overheated`` counts how often processors slowed down because of heat.
    """

    clock: int
    steal: float
    pressure_memory: float | None
    pressure_io: float | None
    pressure_cpu: float | None
    swapped: int
    overheated: int = 0
    clocks: Clocks | None = None
    spent: outside.Spent | None = None


def read_noise(clock: int) -> Noise:
    """The counters now; ``clock`` is CLOCK_MONOTONIC in nanoseconds."""
    spent = outside.read_spent(clock)
    return Noise(
        clock=clock,
        steal=spent.steal,
        pressure_memory=_read_pressure("memory"),
        pressure_io=_read_pressure("io"),
        pressure_cpu=_read_pressure("cpu"),
        swapped=_read_swapped(),
        overheated=read_overheated(_CPU),
        clocks=read_clocks(),
        spent=spent,
    )


def _read_pressure(resource: str) -> float | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        some = Path(f"/proc/pressure/{resource}").read_text().split("\n", 1)[0]
        return int(some.rsplit("total=", 1)[1]) / 1e6
    return None


def read_recent_pressure(resource: str) -> float | None:
    """Share of the last ten seconds for which some task waited; None without PSI in the kernel."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        some = Path(f"/proc/pressure/{resource}").read_text().split("\n", 1)[0]
        return float(some.partition("avg10=")[2].split()[0]) / 100
    return None


def count_free_pids() -> int:
    """How many more processes and threads the kernel allows (proc_sys_kernel(5))."""
    tasks = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return count_most_pids() - tasks


def count_most_pids() -> int:
    """How many processes and threads the kernel allows in all."""
    names = ("pid_max", "threads-max")
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in names)


def _read_swapped() -> int:
    lines = Path("/proc/vmstat").read_text().splitlines()
    pairs = (line.split() for line in lines if line.startswith(("pswpin ", "pswpout ")))
    return sum(int(value) for _, value in pairs)


def read_clocks() -> Clocks:
    """How far the clocks are apart: of some tries the one that was interrupted least."""
    tries = []
    for _ in range(_CLOCK_TRIES):
        first = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        awake = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        last = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        tries.append((last - first, Clocks(wall - first, awake - first)))
    return min(tries, key=lambda each: each[0])[1]


def read_overheated(cpu: Path) -> int:
    """How often processors slowed down because of heat; 0 on hosts that do not count it."""
    total = 0
    for path in find_heat_counters(cpu):
        with contextlib.suppress(OSError, ValueError):
            total += int(path.read_text())
    return total


@cache
def find_heat_counters(cpu: Path) -> tuple[Path, ...]:
    """The counters of every core, and of every package once for each of its processors."""
    return tuple(sorted(cpu.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")))


def find_marks(before: Noise, after: Noise, *, told: bool = True) -> list[str]:
    """Validity marks for what happened between two readings.

    ``told`` is false where something of the run works outside of it, in an engine's daemon or on
    another host: what others used cannot be told from it then.
    """
    seconds = (after.clock - before.clock) / _NANOSECONDS
    marks = []
    if after.steal - before.steal > max(STEAL_SHARE * seconds, STEAL_LEAST_S):
        marks.append("steal")
    if after.swapped > before.swapped:
        marks.append("swap")
    for name in ("memory", "io"):
        old, new = getattr(before, f"pressure_{name}"), getattr(after, f"pressure_{name}")
        if old is not None and new is not None and new - old > PRESSURE_SHARE * seconds:
            marks.append(f"pressure-{name}")
    if told and before.spent and after.spent:
        load = outside.find_mark(*outside.find_outside(before.spent, after.spent))
        marks += [load] if load else []
    if after.overheated > before.overheated:
        marks.append("overheated")
    return marks + find_clock_marks(before.clocks, after.clocks)


def find_clock_marks(before: Clocks | None, after: Clocks | None) -> list[str]:
    """Marks for clocks that parted between two readings."""
    if before is None or after is None:
        return []
    slept = after.asleep - before.asleep
    marks = ["clock-step"] if abs(after.wall - before.wall - slept) > CLOCK_STEP_NS else []
    return marks + (["suspended"] if slept > CLOCK_STEP_NS else [])


def build_details(before: Noise, after: Noise, *, told: bool = True) -> dict[str, float]:
    """The differences, to be stored with the trial."""
    details = {"steal_s": after.steal - before.steal}
    for name in ("memory", "io", "cpu"):
        old, new = getattr(before, f"pressure_{name}"), getattr(after, f"pressure_{name}")
        if old is not None and new is not None:
            details[f"pressure_{name}_s"] = new - old
    if told and before.spent and after.spent:
        used, share = outside.find_outside(before.spent, after.spent)
        own = after.spent.own - before.spent.own
        details |= {"outside_s": used, "outside_share": share, "own_s": own}
    if before.clocks and after.clocks:
        slept = after.clocks.asleep - before.clocks.asleep
        details["slept_s"] = slept / _NANOSECONDS
        details["clock_step_s"] = (after.clocks.wall - before.clocks.wall - slept) / _NANOSECONDS
    return {key: round(value, 6) for key, value in details.items()}
