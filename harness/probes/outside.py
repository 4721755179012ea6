"""CPU time that processes outside the run used: all that the host spent less the run's own.

The run lives in a PID namespace of its own. What its living processes have used, with what their
dead children left them, is therefore all that the run has used: a parent that waits for a child
takes over its account, and the namespace's first process waits for orphans (wait4(2)). No control
group is needed. Sources: proc_stat(5), proc_pid_stat(5), clock_getcpuclockid(3).

What all CPUs spent is what passed less what they idled: the kernel keeps idle time to the
microsecond, but only samples busy time at its ticks.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from harness.process import read_cpu_clocks

OUTSIDE_SHARE = 0.25
"""A trial is marked where more than this share of the time of all CPUs went to others."""

LEAST_SECONDS = 0.06
"""Less than that is no load but the grain of the counters: clock ticks of some ten milliseconds."""

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds up to one moment. ``idle`` and ``steal`` are sums over all ``cpus``; ``own`` is
    what this run's processes have used. ``clock`` is CLOCK_MONOTONIC in nanoseconds.
    """

    clock: int
    cpus: int
    idle: float
    steal: float
    own: float


def read_spent(clock: int, proc: Path = Path("/proc")) -> Spent:
    """The counters now; for use in the lab, whose /proc has the run's processes alone."""
    cpus, idle, steal = parse_idle((proc / "stat").read_text())
    return Spent(clock, cpus, idle, steal, _read_own(proc))


def parse_idle(stat: str) -> tuple[int, float, float]:
    """Number of CPUs, seconds idle (waiting for a disk too) and stolen, of /proc/stat's text."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    tick = os.sysconf("SC_CLK_TCK")
    total = [int(word) / tick for word in lines[0][1:9]]
    steal = total[7] if len(total) > 7 else 0.0
    return len(lines) - 1, total[3] + total[4], steal


def find_outside(before: Spent, after: Spent) -> tuple[float, float]:
    """CPU seconds that went to others between two readings, and their share of all CPUs' time."""
    passed = (after.clock - before.clock) / _NANOSECONDS * after.cpus
    idle, steal = after.idle - before.idle, after.steal - before.steal
    outside = max(0.0, passed - idle - steal - (after.own - before.own))
    return outside, outside / passed if passed > 0 else 0.0


def find_mark(seconds: float, share: float) -> str | None:
    """The validity mark of a trial beside which others used so much."""
    return "outside-load" if share > OUTSIDE_SHARE and seconds > LEAST_SECONDS else None


def _read_own(proc: Path) -> float:
    """CPU seconds of all processes here and of the children they waited for."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            children = _parse_children((proc / name / "stat").read_bytes())
            total += (read_cpu_clocks([int(name)]) or 0.0) + children / tick
    return total


def _parse_children(stat: bytes) -> int:
    """Clock ticks of the children a process waited for: fields 16 and 17 of its stat."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[13]) + int(fields[14])
