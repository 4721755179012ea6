"""What many starts at once do to each: a closed burst, and arrivals at a stated rate.

Every instance has a thread of its own, which prepares it and then waits at a gate; they prepare one
after the other. When all wait there, the storm begins: each instance's starter is told of its
*intended* start and waits for it, so that none waits for Python (a machine or a Docker container is
started by its thread, which sleeps until then). Times to ready count from that start, so what comes
late because its generator or the starts before it were slow is not left out (coordinated
omission; cf. Tene, How not to measure latency, 2013). How late each request was is a row as well.

Arrivals at a rate are those of a Poisson process, fixed by the plan's seed before anything starts,
and the same for every platform. Instances run on until the last of their storm is ready.
"""

import contextlib
import os
import random
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import cgroup
from harness.density import find_marks
from harness.drivers.base import Driver, Instance, InstanceSpec
from harness.errors import TrialError
from harness.ground import (
    check_kept,
    limit_instance_writing,
    made_folder,
    made_groups,
    note_refused,
    set_cache,
)
from harness.isolation.kernel_log import start_log
from harness.model import Measurement, Outcome, base_platform
from harness.plan import Plan, ScheduledTrial, runs_on
from harness.probes import noise
from harness.probes.endings import Evidence, explain_end, read_printed
from harness.room import find_room
from harness.runner import (
    Bench,
    build_outcome,
    build_spec,
    describe_error,
    find_remedy,
    keep_logs,
    keep_trace,
)
from harness.starter import read_clock
from harness.units import format_rate

BURST = "burst"
"""The phase of a storm whose starts are all due at once; others are named by their rate, `2/s`."""

LEAST = 2
"""Fewer starts are no storm."""

STORM = "storm"
"""Where an outcome's details say that it is one start of a storm, or why there was none."""

LATE_SHARE = 0.10
LATE_MARK = "generator-late"
"""A storm's starts are marked where the median request came later than it was due by more than this
share of the median time to ready: the generator may then be what was measured."""

_SPARED = 8  # of those that just fit, one in so many is left out
_HEAD_NS = 50_000_000  # from the last preparation to the first start: all are asked for by then
_HEAD_EACH_NS = 1_000_000
_AHEAD_NS = 100_000_000  # so long before a start it can still be called off
_STOP_S = 10.0
_NANOSECONDS = 1_000_000_000
_OWN_DOING = ("pressure-memory", "pressure-io")


Size = tuple[int, str]
"""How many starts of a storm there is room for, and what limits them if those are not all."""


@dataclass(frozen=True, slots=True)
class Storm:
    """A storm to come. ``first`` is the trial of its first start, ``arrivals`` when each is due, in
    seconds from its begin; ``rate`` is per second, None for a burst.
    """

    first: ScheduledTrial
    arrivals: tuple[float, ...]
    rate: float | None = None

    @property
    def phase(self) -> str:
        return format_phase(self.rate)


def format_phase(rate: float | None) -> str:
    """How the rows of a storm are told apart: `burst`, or the rate, `2/s` or `30/min`."""
    return BURST if rate is None else format_rate(rate)


def build_arrivals(count: int, rate: float | None, seed: str) -> tuple[float, ...]:
    """When each of ``count`` starts is due: at once, or after exponential waits of a mean of
    1 / ``rate`` seconds. The first is due at once."""
    if rate is None:
        return (0.0,) * count
    chance = random.Random(seed)
    due = [0.0]
    while len(due) < count:
        due.append(due[-1] + chance.expovariate(rate))
    return tuple(due[:count])


def build_storms(plan: Plan, drivers: Mapping[str, Driver], number: int) -> list[Storm]:
    """Every storm of a run: each platform's burst and rates once in every repeat, in an order
    shuffled by the seed; for the plan's first workload that a platform runs.

    They are numbered from ``number``, and shuffled, over all platforms of the plan, whether they
    run here or not.
    """
    workloads = _find_workloads(plan, drivers)
    kinds = [
        (platform, rate)
        for platform in plan.platforms
        if any(runs_on(workload, platform) for workload in plan.workloads)
        for rate in (None, *plan.storm_rates)
    ]
    storms: list[Storm] = []
    for repeat in range(plan.storm_repeats if plan.storm else 0):
        shuffled = list(kinds)
        random.Random(f"{plan.seed}:storm:{repeat}").shuffle(shuffled)
        for platform, rate in shuffled:
            if workload := workloads.get(platform):
                arrivals = build_arrivals(plan.storm, rate, f"{plan.seed}:storm:{repeat}:{rate}")
                first = ScheduledTrial(repeat, number, 0, platform, workload, warmup=False)
                storms.append(Storm(first, arrivals, rate))
            number += plan.storm
    return storms


def _find_workloads(plan: Plan, drivers: Mapping[str, Driver]) -> dict[str, str]:
    found = {}
    for platform, driver in drivers.items():
        for workload in plan.workloads:
            if runs_on(workload, platform) and not (workload.network and driver.no_network):
                found[platform] = workload.name
                break
    return found


def count_starts(outcome: Outcome) -> int:
    """How many outcomes the storm of one of its starts has; one for a storm that was refused."""
    told = outcome.details.get(STORM)
    return 1 if not isinstance(told, Mapping) or "refused" in told else outcome.instances


# ---- one storm -------------------------------------------------------------------------------


def run_storm(storm: Storm, bench: Bench, size: Size | None = None) -> Iterator[Outcome]:
    """Run one storm to its end, then yield an outcome for each of its starts.

    A storm for which the host has no room is cut to what fits (``size``, else as it is found now),
    or is one outcome without rows that says why. Only an interrupt of the user gets out, with every
    instance stopped.
    """
    count, limit = size or find_size(storm, bench)
    asked = len(storm.arrivals)
    if count < min(asked, LEAST):
        refused = {"kind": storm.phase, "asked": asked, "refused": limit}
        yield replace(build_outcome(storm.first, bench), instances=asked, details={STORM: refused})
        return
    told: dict[str, object] = {"kind": storm.phase, "asked": asked}
    told |= {"cut": limit} if count < asked else {}
    driver = bench.drivers[base_platform(storm.first.platform)]
    image = build_spec(storm.first, bench).image
    residency, marks = set_cache(driver, image, bench.cache)
    told |= {"resident_share": round(residency.share, 6)}
    crowd = _Crowd(driver, bench, [_build_start(storm, bench, each) for each in range(count)])
    outcome = build_outcome(storm.first, bench)
    before = noise.read_noise(read_clock())
    crowd.run()
    after = noise.read_noise(read_clock())
    marks += noise.find_marks(before, after, told=driver.daemon is None)
    if bench.cache == "warm":  # what a storm evicts is its own doing, as its pressure is
        residency, _ = check_kept(driver, image)
        told |= {"resident_share_after": round(residency.share, 6)}
    yield from _build_outcomes(crowd, storm, outcome, told, list(dict.fromkeys(marks)))


def find_size(storm: Storm, bench: Bench) -> Size:
    """How many starts of a storm the host has room for, and what limits them where it is cut.

    A cut one stays well below that limit, so that there is room for as many when it is repeated.
    """
    asked = len(storm.arrivals)
    kind = bench.drivers[base_platform(storm.first.platform)].kind
    spec = build_spec(storm.first, bench)
    count, limit = find_room(spec, kind, bench.reserve, bench.scratch, elsewhere=bench.remote)
    return (asked, "") if count >= asked else (count - count // _SPARED, limit)


@dataclass(slots=True, eq=False)
class _Start:
    """One start of a storm: its spec, when it is due, and what became of it."""

    step: ScheduledTrial
    spec: InstanceSpec
    due: float
    waiting: threading.Event = field(default_factory=threading.Event)
    settled: threading.Event = field(default_factory=threading.Event)
    milestones: dict[str, int] = field(default_factory=dict)
    accelerator: str = "none"
    error: Exception | None = None
    instance: Instance | None = None
    details: dict[str, object] = field(default_factory=dict)
    broken: BaseException | None = None
    """What no start may end with: a defect, which ends the run."""
    logs: list[str] = field(default_factory=list)


def _build_start(storm: Storm, bench: Bench, number: int) -> _Start:
    trial = storm.first.trial + number
    step = replace(storm.first, trial=trial, order=number)
    return _Start(step, build_spec(step, bench), storm.arrivals[number])


@dataclass(slots=True)
class _Crowd:
    """The starts of a storm, and the moments that all of them wait for."""

    driver: Driver
    bench: Bench
    starts: Sequence[_Start]
    opened: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    begin: int = 0
    called_off: bool = False
    cpu: float = 0.0
    """CPU seconds of this process from the begin until the last start was settled."""

    def run(self) -> None:
        """Prepare all, start all, wait for all, stop all."""
        threads = []
        try:
            for start in self.starts:
                thread = threading.Thread(target=self._live, args=(start,), daemon=True)
                thread.start()
                threads.append(thread)
                start.waiting.wait()
            used = time.process_time()
            self.begin = read_clock() + _HEAD_NS + _HEAD_EACH_NS * len(self.starts)
            self.opened.set()
            for start in self.starts:
                start.settled.wait()
            self.cpu = time.process_time() - used
            for start in self.starts:
                if start.broken is not None:
                    raise start.broken
        except BaseException:
            self.called_off = True
            raise
        finally:
            self.opened.set()
            self.over.set()
            self._end(threads)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for every thread; what is still starting when a storm is called off is killed."""
        for start in self.starts:
            if self.called_off and not start.settled.is_set():
                cgroup.kill_processes(start.spec.cgroups)
                _kill_instance(start.instance)
        deadline = time.monotonic() + _STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()) if self.called_off else None)

    def _live(self, start: _Start) -> None:
        """The whole life of an instance, in its thread."""
        try:
            with made_folder(start.spec, self.driver) as refused:
                note_refused(start.details, "disk", refused)
                try:
                    self._live_in_folder(start)
                except Exception:  # what it left may go with its file system
                    start.logs = keep_logs(start.spec.folder, self.bench.logs, start.step.trial)
                    raise
        except Exception as error:
            start.error = error
            start.logs += keep_trace(error, self.bench.logs, start.step.trial)
        except BaseException as error:  # raised again where all threads are waited for
            start.broken = error
        finally:
            start.waiting.set()
            start.settled.set()
            shutil.rmtree(start.spec.folder, ignore_errors=True)

    def _live_in_folder(self, start: _Start) -> None:
        """A machine's QEMU gets no group: to be started in one, this whole process has to enter it,
        and that can be in one place only. Its memory and CPUs are limited by what they are.
        """
        tree = None if self.driver.kind == "vm" else self.bench.tree
        with start_log() as log, made_groups(start.spec, tree) as start.spec:
            limit_instance_writing(start.spec, self.driver, self.bench.scratch)
            spec = replace(start.spec, gate=lambda: self._wait_turn(start))
            try:
                self._keep_running(start, spec)
            except TrialError as error:  # its groups still tell what ended it
                seen = Evidence(read_printed(start.instance), log.read_about(spec.name))
                raise explain_end(error, spec, self.driver.kind, seen).error from error

    def _keep_running(self, start: _Start, spec: InstanceSpec) -> None:
        with self.driver.start_instance(spec) as instance:
            start.instance = instance
            start.accelerator = instance.accelerator
            instance.wait_ready()
            start.milestones = dict(instance.milestones)
            reason = limit_instance_writing(spec, self.driver, self.bench.scratch)
            note_refused(start.details, "io", reason)
            start.settled.set()
            self.over.wait()
            if not self.called_off:  # a sandbox tells now, when no start is disturbed by it
                start.accelerator = instance.accelerator

    def _wait_turn(self, start: _Start) -> int:
        """The gate: wait until all are prepared and the start is near; the start on the clock."""
        start.waiting.set()
        self.opened.wait()
        due = self.begin + round(start.due * _NANOSECONDS)
        left = (due - _AHEAD_NS - read_clock()) / _NANOSECONDS
        if self.over.wait(max(0.0, left)) or self.called_off:
            raise TrialError("the storm was called off")
        return due


def _kill_instance(instance: Instance | None) -> None:
    """What has no groups to be killed by: a machine of this host."""
    if instance is None:
        return
    processes = instance.processes()
    if processes.proc == Path("/proc") and not processes.elsewhere:
        for pid in processes.inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# ---- what it showed --------------------------------------------------------------------------


def _build_outcomes(
    crowd: _Crowd, storm: Storm, outcome: Outcome, told: Mapping[str, object], marks: Sequence[str]
) -> Iterator[Outcome]:
    """An outcome for each start; the first that was ready also has what is the storm's alone."""
    timings = {
        start.step.order: _time(crowd, start) for start in crowd.starts if start.error is None
    }
    shared = [each for each in marks if each not in _OWN_DOING]
    shared += [LATE_MARK] if timings and is_late(list(timings.values())) else []
    common = _describe(crowd, timings, told)
    whole = build_whole(timings, len(crowd.starts), storm.phase)
    for start in crowd.starts:
        details = {STORM: {**common, "due_s": round(start.due, 6)}, **start.details}
        each = replace(
            outcome,
            trial=start.step.trial,
            order=start.step.order,
            instances=len(crowd.starts),
            accelerator=start.accelerator,
        )
        each = replace(each, marks=(*find_marks(each), *shared), milestones=start.milestones)
        if start.error is not None:
            yield _build_failure(each, start, crowd.driver, details)
            continue
        ready, late = timings[start.step.order]
        rows = [
            Measurement("storm.ready", ready, storm.phase),
            Measurement("storm.late", late, storm.phase),
            *whole,
        ]
        whole = []
        yield replace(each, measurements=tuple(rows), details=details)


def _build_failure(
    outcome: Outcome, start: _Start, driver: Driver, details: Mapping[str, object]
) -> Outcome:
    """A start that failed, in the words of what ended it."""
    error = start.error
    assert error is not None
    return replace(
        outcome,
        status="failed",
        milestones={},
        error=f"{driver.name} in a storm of {outcome.instances}: {describe_error(error)}",
        hint=find_remedy(error),
        details={**details, "logs": start.logs},
    )


def _time(crowd: _Crowd, start: _Start) -> tuple[float, float]:
    """From the intended start to ready, and to the request; in seconds."""
    due = crowd.begin + round(start.due * _NANOSECONDS)
    stamps = start.milestones
    return (stamps["ready"] - due) / _NANOSECONDS, (stamps["request"] - due) / _NANOSECONDS


def is_late(timings: Sequence[tuple[float, float]]) -> bool:
    """Whether the generator may be what was measured; pairs of seconds to ready and of lateness."""
    late = statistics.median(late for _, late in timings)
    return late > LATE_SHARE * statistics.median(ready for ready, _ in timings)


def build_whole(
    timings: Mapping[int, tuple[float, float]], count: int, phase: str
) -> list[Measurement]:
    """Starts per second and core of a burst; none where a start failed, or where the rate of
    arrivals decides it."""
    if phase != BURST or len(timings) < count:
        return []
    span = max(ready for ready, _ in timings.values())
    return [Measurement("storm.rate", count / span / len(os.sched_getaffinity(0)), phase)]


def _describe(
    crowd: _Crowd, timings: Mapping[int, tuple[float, float]], told: Mapping[str, object]
) -> dict[str, object]:
    """What is the same for all starts of a storm, for the journal."""
    late = [late for _, late in timings.values()]
    return {
        **told,
        "started": len(crowd.starts),
        "failed": len(crowd.starts) - len(timings),
        "cores": len(os.sched_getaffinity(0)),
        "late_most_s": round(max(late, default=0.0), 6),
        "harness_cpu_s": round(crowd.cpu, 6),
    }
