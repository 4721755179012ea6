"""A hog beside a victim: what the hog came to, and what the victim felt of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from harness.drivers.base import Instance
from harness.errors import TrialError
from harness.isolation.follow import Follower, build_host, is_over
from harness.isolation.model import MIB, Hog, Limits, Report
from harness.isolation.victim import ask_while, fill_omitted, find_percentiles
from harness.model import Measurement
from harness.starter import read_clock

METRIC = "isolation.latency"
BEFORE, AFTER = "before", "after"
MARK = "noisy-victim"
STEADY = 2.0
"""A victim is noisy whose p99 with nothing beside it differs by more than this factor from
before the hogs to after them."""
_NANOSECONDS = 1_000_000_000
_LOOK_EVERY = 25
_LOG_MOST = 5

Breach = Callable[[], str | None]
"""Asks what of the host's reserve is in use; None while it is whole."""


def build_hogs(limits: Limits, cpus: int, seconds: float) -> tuple[Hog, ...]:
    """Every hog against one neighbour, the one that may end its instance last."""
    return (
        Hog("cpu", cpus + 1, seconds),
        Hog("processes", 2 * limits.processes, seconds),
        Hog("disk", 2 * limits.disk // MIB, seconds),
        Hog("memory", 2 * limits.memory // MIB, seconds),
    )


@dataclass(slots=True)
class Watch:
    """The victim's round trips by the hog that was at work; between two hogs they do not count."""

    follower: Follower
    trips: dict[str, list[float]] = field(default_factory=dict)

    def take(self, trip: float) -> None:
        if self.follower.current is not None:
            self.trips.setdefault(self.follower.current, []).append(trip)


def watch_hog(
    hog: Instance, victim: Instance, watch: Watch, seconds: float, find_breach: Breach
) -> str | None:
    """Ask the victim until the hog has ended; why the harness ended it itself, or None.

    Raises TrialError where the victim no longer answers, or the hog does not end in time.
    """
    deadline = read_clock() + int(seconds * _NANOSECONDS)
    breach: list[str] = []
    turn = 0

    def go_on() -> bool:
        nonlocal turn
        turn += 1
        hog.channel.take_waiting()
        if turn % _LOOK_EVERY == 0 and (why := find_breach()):
            breach.append(why)
        if read_clock() >= deadline:
            raise TrialError(f"the hogs did not end within {seconds:g} s")
        return not breach and not is_over(hog)

    try:
        ask_while(victim, go_on, watch.take)
    except TrialError as error:
        during = f" during {watch.follower.current}" if watch.follower.current else ""
        raise TrialError(f"the victim{during}: {error.message}", hint=error.hint) from error
    return breach[0] if breach else None


def describe_fate(
    hog: Hog, report: Report | None, host: Mapping[str, float] | None, gone: str | None
) -> str:
    """What became of a hog, in words: its own outcome, neither success nor failure."""
    if report is None:
        return f"its whole instance ended: {_find_cause(host) or gone or 'it is gone'}"
    if hog.kind == "cpu" and host:
        share = host["cpu_seconds"] / max(host["seconds"], 1e-3)
        return f"got {share:.2f} CPUs, throttled {host['throttled']:.0f} times"
    words = {
        "bound": "it reached its own bound: no limit stopped it",
        "killed": "killed for want of memory",
    }
    return words.get(report.end, f"stopped with {report.end}")


def _find_cause(host: Mapping[str, float] | None) -> str | None:
    """Why an instance ended, where the host's counters or its kernel's log tell."""
    if host and host["kills"]:
        return "the kernel killed a process of it for want of memory"
    if host and host["refused_forks"]:
        return "its limit of processes refused it one"
    return None


def build_fates(
    hogs: Sequence[Hog], follower: Follower, gone: str | None, log: Sequence[str]
) -> dict[str, dict[str, object]]:
    """By hog that began: its fate and the raw words behind it, in JSON types."""
    found: dict[str, dict[str, object]] = {}
    last = follower.look()
    for hog in hogs:
        if not (views := follower.views.get(hog.kind)):
            continue
        report = follower.reports.get(hog.kind)
        host = build_host(views, last, log, ended=report is None)
        found[hog.kind] = {
            "word": hog.word,
            "fate": describe_fate(hog, report, host, gone),
            "report": None if report is None else asdict(report),
            "host": host,
            "log": list(log[:_LOG_MOST]) if report is None else [],
        }
    return found


def build_refusal(hog: Hog, reason: str) -> dict[str, object]:
    """The fate of a hog that the host's reserve does not allow."""
    return {"word": hog.word, "fate": f"not started: {reason}", "report": None, "host": None}


def build_rows(trips: Mapping[str, Sequence[float]]) -> list[Measurement]:
    """p50 and p99 of the victim by what was at work, ``before`` for nothing."""
    rows = []
    for name, found in trips.items():
        for word, value in find_percentiles(fill_omitted(found)).items():
            rows.append(Measurement(METRIC, value, f"{name}/{word}"))
    return rows


def is_noisy(trips: Mapping[str, Sequence[float]]) -> bool:
    """Whether the victim was unsteady without a neighbour: its p99 then says little of one."""
    alone = [find_percentiles(fill_omitted(trips.get(name, ()))) for name in (BEFORE, AFTER)]
    values = [found["p99"] for found in alone if found]
    return len(values) == 2 and max(values) > STEADY * min(values)
