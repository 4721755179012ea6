"""Hogs as the host follows them: what they say, and what the host sees when they say it."""

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Instance
from harness.errors import TrialError
from harness.isolation.groups import count_refused_forks
from harness.isolation.kernel_log import FORK, KILL
from harness.isolation.model import Report
from harness.starter import read_clock

_NANOSECONDS = 1_000_000_000
_SLICE_NS = _NANOSECONDS // 4


@dataclass(frozen=True, slots=True)
class View:
    """What the host sees of an instance at one moment: CPU seconds, how often it was throttled,
    how often a fork was refused, and how many of its processes were killed for want of memory."""

    clock: int
    cpu: float | None
    throttled: int
    forks: int
    kills: int


@dataclass(slots=True)
class Follower:
    """Takes a hog's output line by line, and looks at the host with each line."""

    look: Callable[[], View]
    reports: dict[str, Report] = field(default_factory=dict)
    views: dict[str, list[View]] = field(default_factory=dict)
    current: str | None = None
    ended: bool = False
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        """Output as it arrives."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take_line(line.decode(errors="replace"))

    def _take_line(self, line: str) -> None:
        word, *rest = line.split(" ")
        if word == "begun" and len(rest) == 1:
            self.current = rest[0]
            self.views[rest[0]] = [self.look()]
        elif word == "done" and (report := parse_report(rest)):
            self.reports[rest[0]] = report
            self.views.setdefault(rest[0], []).append(self.look())
            self.current = None
        elif word == "end":
            self.ended = True


def parse_report(words: Sequence[str]) -> Report | None:
    """``KIND MOST END ROUNDS MILLISECONDS``; None for anything else."""
    if len(words) != 5 or not all(word.isdigit() for word in (words[1], *words[3:])):
        return None
    return Report(int(words[1]), words[2], int(words[3]), int(words[4]) / 1000)


def build_look(groups: Sequence[Path]) -> Callable[[], View]:
    """How to look at an instance with these groups."""

    def look() -> View:
        used = cgroup.read_cpu_time(groups)
        return View(
            clock=read_clock(),
            cpu=None if used is None else used.total,
            throttled=count_throttled(groups),
            forks=count_refused_forks(groups),
            kills=cgroup.read_oom_kills(groups),
        )

    return look


def count_throttled(groups: Sequence[Path]) -> int:
    """How often the group, or one below it, was throttled."""
    below = [child for folder in groups for child in folder.glob("*/")]
    return sum(cgroup.read_throttled([folder]) for folder in (*groups, *below))


def is_over(instance: Instance) -> bool:
    """Whether an instance has ended, by itself or by force."""
    channel = instance.channel
    if channel.finished or channel.exit is not None:
        return True
    return channel.wake is not None and bool(select.select([channel.wake], [], [], 0)[0])


def wait_over(instance: Instance, seconds: float) -> None:
    """Wait until the workload or its instance has ended; TrialError if neither does in time."""
    deadline = read_clock() + int(seconds * _NANOSECONDS)
    while not is_over(instance):
        if read_clock() >= deadline:
            raise TrialError(f"the hogs did not end within {seconds:g} s")
        try:
            instance.channel.wait_exit(min(deadline, read_clock() + _SLICE_NS))
        except TrialError:  # not yet, or never: the instance may be gone
            continue


def find_end(instance: Instance, follower: Follower) -> str | None:
    """How an instance ended before its hogs had; None if they ended by themselves."""
    if follower.ended:
        return None
    if instance.channel.exit is not None:
        return f"its workload ended with {instance.channel.exit}"
    return "it ended by itself" if is_over(instance) else "it does not answer"


def build_views(views: Sequence[View], log: Sequence[str] = ()) -> dict[str, float] | None:
    """What happened between two looks: seconds, CPU seconds, throttles, refused forks and kills.

    A counter that is gone with its group says nothing; ``log``, the kernel's own words, does.
    """
    if len(views) < 2:
        return None
    first, last = views[0], views[-1]
    used = 0.0 if first.cpu is None or last.cpu is None else last.cpu - first.cpu
    forks, kills = last.forks - first.forks, last.kills - first.kills
    return {
        "seconds": (last.clock - first.clock) / _NANOSECONDS,
        "cpu_seconds": max(0.0, used),
        "throttled": max(0, last.throttled - first.throttled),
        "refused_forks": max(forks, sum(FORK in line for line in log), 0),
        "kills": max(kills, sum(KILL in line for line in log), 0),
    }


def build_host(
    views: Sequence[View], last: View, log: Sequence[str], *, ended: bool
) -> dict[str, float] | None:
    """The same of one hog; of one that ended its instance, up to ``last`` and with the log."""
    return build_views([*views[:1], last], log) if ended else build_views(views)
