"""`memory.minimum`: the smallest guest memory or container limit with which a workload gets ready.

Every step is a real start, as in the trials but without measuring: a start that fails is what the
search looks for, so it is a step with a reason, and leaves no logs.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from harness import cgroup
from harness.bisection import Bounds, Search, Step, describe_steps, find_too_little
from harness.drivers.base import Driver, Instance, InstanceSpec
from harness.errors import HostError, TrialError
from harness.model import NO_ACCELERATOR, Kind, Measurement, Outcome, choose_accelerator
from harness.plan import Plan, ScheduledTrial, Workload, find_kind, runs_on
from harness.probes import page_cache
from harness.runner import Bench, build_outcome, build_spec, describe_error, find_remedy, keep_trace
from harness.starter import read_clock
from harness.units import format_bytes
from harness.variants import find_base, parse_variant

METRIC = "memory.minimum"
TOO_LITTLE = "too_little"

WAIT_LEAST = 5.0
WAIT_FACTOR = 4
"""A start is given up after so many times what it took with enough memory: a guest with too
little of it may hang, or reclaim for ever, where another one dies."""

_NANOSECONDS = 1_000_000_000
_RESTORED = "vm-restore"


def build_bounds(kind: str, most: int) -> Bounds:
    """Where to look for a platform of this ``kind`` when ``most`` bytes are the plan's.

    No distribution's kernel boots with 16 MiB, and no container was seen to start with 128 KiB.
    Searches repeated for small containers differ by 16 KiB, so a finer grain would show nothing.
    """
    if kind == "vm":
        return Bounds(16 << 20, most, 1 << 20)
    return Bounds(128 << 10, most, 16 << 10)


def build_rows(steps: Sequence[Step], found: int) -> tuple[Measurement, ...]:
    """The result, and what it lies above."""
    below = find_too_little(steps, found)
    rows = (Measurement(METRIC, found),)
    return rows if below is None else (*rows, Measurement(METRIC, below, TOO_LITTLE))


# ---- one start -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Starts:
    """The starts of one search: ``spec`` is the instance with the plan's memory."""

    spec: InstanceSpec
    driver: Driver
    bench: Bench
    count: int = 0
    accelerator: str = NO_ACCELERATOR
    wait: float | None = None
    left: list[str] = field(default_factory=list)

    def attempt(self, memory: int) -> Step:
        """One fresh start with so much memory, torn down again."""
        self.count += 1
        name = f"{self.spec.name}-{self.count}"
        timeout = self.spec.timeout if self.wait is None else min(self.wait, self.spec.timeout)
        spec = replace(self.spec, name=name, memory=memory, timeout=timeout)
        page_cache.set_cache_state(self.driver.files(spec.image), self.bench.cache)
        spec.folder.mkdir()
        try:
            if self.bench.tree:
                spec = replace(spec, cgroups=self.bench.tree.start(name))
            reason, seconds = self._start(spec)
            reason = reason and reason + _describe_kills(spec)
        finally:
            cgroup.kill_processes(spec.cgroups)
            self.left += cgroup.remove(spec.cgroups)
            shutil.rmtree(spec.folder, ignore_errors=True)
        if reason is None and self.wait is None:
            self.wait = max(WAIT_LEAST, WAIT_FACTOR * seconds)
        return Step(memory, reason is None, reason, round(seconds, 6))

    def _start(self, spec: InstanceSpec) -> tuple[str | None, float]:
        """Why it did not get ready, or None; and the seconds that it took to know."""
        reason, end = None, None
        begin = read_clock()
        try:
            with self.driver.start_instance(spec) as instance:
                begin = instance.milestones["request"]
                reason = _wait_ready(instance)
                end = instance.milestones.get("ready") if reason is None else read_clock()
                self.accelerator = choose_accelerator(self.accelerator, instance.accelerator)
                if reason is None:
                    self._require_limit(instance, spec.memory)
        except TrialError as error:
            if end is not None:  # it is the teardown that failed
                raise
            reason = error.message
        return reason, ((end or read_clock()) - begin) / _NANOSECONDS

    def _require_limit(self, instance: Instance, memory: int) -> None:
        """Raise HostError where a container got ready without the limit that is searched for."""
        if self.driver.kind == "vm":
            return
        limit = cgroup.read_memory_limit(instance.cgroups)
        if limit is None or limit > memory:
            raise HostError(
                f"{self.driver.name} did not set its memory limit of {format_bytes(memory)}",
                hint="leave out `minimum` or this platform",
            )


def _wait_ready(instance: Instance) -> str | None:
    try:
        instance.wait_ready()
    except TrialError as error:
        return error.message
    return None


def _describe_kills(spec: InstanceSpec) -> str:
    count = cgroup.read_oom_kills(spec.cgroups)
    return f" (the kernel killed {count} of its processes: out of memory)" if count else ""


def run_search(scheduled: ScheduledTrial, bench: Bench, bounds: Bounds | None = None) -> Outcome:
    """Search for one platform and workload; the outcome has all steps in its details.

    It failed where even the plan's memory does not do. Only an interrupt of the user gets out.
    """
    driver = bench.drivers[scheduled.platform]
    spec = build_spec(scheduled, bench)
    starts = _Starts(spec, driver, bench)
    search = Search(starts.attempt, bounds or build_bounds(driver.kind, spec.memory))
    outcome = build_outcome(scheduled, bench)
    details: dict[str, object] = {}
    try:
        found = search.find()
        outcome = replace(outcome, measurements=build_rows(search.steps, found))
        details.update(describe_steps(search.steps, found))
    except Exception as error:
        message = f"{METRIC}: {describe_error(error)}"
        outcome = replace(outcome, status="failed", error=message, hint=find_remedy(error))
        if logs := keep_trace(error, bench.logs, scheduled.trial):
            details["logs"] = logs
    details["steps"] = [asdict(step) for step in search.steps]
    return replace(
        outcome,
        accelerator=starts.accelerator,
        marks=_find_marks(starts),
        details={**details, "left": starts.left} if starts.left else details,
    )


def _find_marks(starts: _Starts) -> tuple[str, ...]:
    emulated = ("emulated",) if starts.accelerator == "tcg" else ()
    return (*emulated, *(("left-behind",) if starts.left else ()))


# ---- which searches a run has ----------------------------------------------------------------


def build_searches(
    plan: Plan, drivers: Mapping[str, Driver], number: int, *, grouped: bool
) -> list[ScheduledTrial]:
    """The searches of a run: every platform × workload with a limit.

    They are numbered from ``number`` over all that a plan may have, whether they run here or not.
    """
    return [
        ScheduledTrial(0, number + place, 0, platform, workload.name, warmup=False)
        for place, (platform, workload) in enumerate(_list_searches(plan))
        if (driver := drivers.get(platform)) is not None
        and find_exemption(platform, driver.kind, grouped=grouped) is None
        and not (workload.network and driver.no_network)
    ]


def count_searches(plan: Plan) -> int:
    """How many searches a plan may have on any host."""
    return len(_list_searches(plan))


def _list_searches(plan: Plan) -> list[tuple[str, Workload]]:
    return [
        (platform, workload)
        for platform in (plan.platforms if plan.minimum else ())
        if find_exemption(platform, find_kind(platform), grouped=True) is None
        for workload in plan.workloads
        if runs_on(workload, platform)
    ]


def list_exempt(plan: Plan, drivers: Mapping[str, Driver], *, grouped: bool) -> list[str]:
    """A line for each platform that has no memory to search for, where a search is wanted."""
    reasons = {
        name: find_exemption(name, driver.kind, grouped=grouped)
        for name, driver in drivers.items()
        if plan.minimum
    }
    return [f"{name} in {METRIC}: {reason}" for name, reason in reasons.items() if reason]


def find_exemption(platform: str, kind: Kind, *, grouped: bool) -> str | None:
    """Why a platform has no smallest memory; None if it has. ``grouped``: there are cgroups."""
    options = parse_variant(platform).options
    if kind == "process":
        return "it is the baseline: what it needs is what the workload needs"
    if not options.limits:
        return "it has no memory limit"
    if find_base(platform) == _RESTORED:
        return "its memory is that of its snapshot"
    if options.memory is not None:
        return "its memory limit is part of its name"
    if kind != "vm" and not grouped:
        return "there are no cgroups here that could limit it"
    return None
