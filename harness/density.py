"""What one more instance costs: start instances one after another and keep them.

The rows are `memory.available` of the host and `disk.occupied` with 0, 1, 2 … instances running;
the analysis fits their slopes, `memory.marginal` and `disk.marginal`. `density.ready` is how long
the last of them took to start beside the others. The steps are real starts of the same workload as
in the trials. A series begins when the host's memory keeps still, or will not, and ends where the
host would get into need: it never makes it swap.
"""

import contextlib
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.drivers.base import Driver, Instance
from harness.errors import TrialError
from harness.ground import limit_instance_writing, made_folder, made_groups
from harness.images.model import Image
from harness.isolation.kernel_log import start_log
from harness.model import Measurement, Outcome, base_platform
from harness.plan import ScheduledTrial
from harness.probes import disk, ksm, memory, noise, steady
from harness.probes.endings import Evidence, explain_end, read_printed
from harness.runner import (
    Bench,
    build_outcome,
    build_spec,
    describe_error,
    find_remedy,
    keep_logs,
)
from harness.starter import read_clock
from harness.units import format_bytes, format_seconds
from harness.variants import Variant, parse_variant

CONTAINER_FACTOR = 8
"""Containers are so much lighter that a slope needs more of them than of virtual machines."""

ENGINES = ("podman", "docker")
"""They keep images and instances in a store of their own: a folder of the run's scratch."""

SERIES = "density"
"""Where an outcome's details say that it is a step of a series, also one that failed, and how many
instances were asked for."""

ENDED = "ended"
"""Where the last step of a series says, in its details, why there is none after it."""

PRESSURE = "pressure"
"""Where every step says which share of the last ten seconds some task waited, by resource."""

_NANOSECONDS = 1_000_000_000


def run_density(
    scheduled: ScheduledTrial, count: int, bench: Bench
) -> Generator[Outcome, None, None]:
    """Start up to ``count`` instances of one platform; yields an outcome after each step.

    ``scheduled`` gives platform, workload and the number of the first trial. The series ends early
    where one more instance would take of the host's reserves, or the bench's time for a series is
    over, which its last outcome says; and with a failed outcome where a start fails.
    """
    driver = bench.drivers[base_platform(scheduled.platform)]
    variant = parse_variant(base_platform(scheduled.platform))
    crowd = _Crowd(bench, driver, build_spec(scheduled, bench).image, variant)
    told = {SERIES: {"asked": count}}
    with contextlib.ExitStack() as running:
        for number in range(count + 1):
            step = replace(scheduled, trial=scheduled.trial + number, order=number)
            outcome = replace(build_outcome(step, bench), instances=number, details=told)
            try:
                outcome = crowd.take_step(step, outcome, running, last=number == count)
                yield outcome
                if ENDED in outcome.details:
                    return
            except Exception as error:
                logs = keep_logs(build_spec(step, bench).folder, bench.logs, step.trial)
                yield replace(
                    outcome,
                    status="failed",
                    error=f"{driver.name} with {count_instances(number)}: {describe_error(error)}",
                    hint=find_remedy(error),
                    details={**told, "logs": logs},
                )
                return


def count_instances(number: int) -> str:
    return f"{number} instance{'' if number == 1 else 's'}"


def build_start(instance: Instance) -> Measurement:
    """How long an instance took from the request to ready."""
    taken = instance.milestones["ready"] - instance.milestones["request"]
    return Measurement("density.ready", taken / _NANOSECONDS)


def read_pressures() -> dict[str, float]:
    """PSI of the host now: shares of the last ten seconds; nothing for a kernel without it."""
    found = {name: noise.read_recent_pressure(name) for name in ("cpu", "memory", "io")}
    return {name: round(share, 4) for name, share in found.items() if share is not None}


def find_end(available: Sequence[int], reserve: int) -> str:
    """Why no further instance can be started, from the host's memory with 0, 1, 2 … of them;
    empty if one can. It may cost twice what they cost on average, as another load may come too."""
    count = len(available) - 1
    each = max(0, available[0] - available[-1]) // count if count else 0
    if available[-1] - 2 * each < reserve:
        return f"one more could leave less than {format_bytes(reserve)} of memory"
    return ""


@dataclass(slots=True)
class _Crowd:
    """The instances that run, and the image that they all have. ``available`` is the host's memory
    with none, one, two … of them."""

    bench: Bench
    driver: Driver
    image: Image
    variant: Variant
    instances: list[Instance] = field(default_factory=list)
    available: list[int] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def take_step(
        self,
        step: ScheduledTrial,
        outcome: Outcome,
        running: contextlib.ExitStack,
        *,
        last: bool,
    ) -> Outcome:
        """Start one instance more, none in step 0, and read the host with all that run then."""
        before = noise.read_noise(read_clock())
        details: dict[str, object] = {}
        if step.order == 0:
            still = steady.wait_steady(sleep=self.bench.sleep)
            self.begun = time.monotonic()
            details["steady"] = asdict(still)
            rows = [Measurement("memory.drift", still.drift)]
        else:
            instance = _start_one(step, self.bench, running)
            self.instances.append(instance)
            outcome = replace(outcome, accelerator=instance.accelerator)
            rows = [build_start(instance)]
        self.bench.sleep(self.bench.settle)
        details |= self.wait_merged() if step.order else {}
        self.available.append(memory.read_available())
        rows.append(Measurement("memory.available", self.available[-1]))
        rows += [*self.read_merged(), *self.read_occupied()]
        after = noise.read_noise(read_clock())
        end = "all were started" if last else self.find_end()
        details |= {PRESSURE: read_pressures(), **({ENDED: end} if end else {})}
        told = self.is_told()
        details["noise"] = noise.build_details(before, after, told=told)
        return replace(
            outcome,
            measurements=tuple(rows),
            marks=(*find_marks(outcome), *noise.find_marks(before, after, told=told)),
            details={**outcome.details, **details},
        )

    def is_told(self) -> bool:
        """Whether all that serves the instances is in the run's own process tree, so that what
        others use can be told from it."""
        if self.driver.daemon is not None:
            return False
        served = [each.processes() for each in self.instances[-1:]]
        return all(
            each.proc == Path("/proc") and not each.elsewhere and bool(each.inside)
            for each in served
        )

    def find_end(self) -> str:
        """Why no further instance is to be started now; empty if one is."""
        limit = self.bench.density_time
        if limit is not None and time.monotonic() - self.begun > limit:
            return f"its {format_seconds(limit)} were over"
        pressure = noise.read_recent_pressure("memory")
        if pressure is not None and pressure > self.bench.density_pressure:
            return f"tasks waited for memory for {pressure:.0%} of the last ten seconds"
        reserve = self.bench.reserve
        if shutil.disk_usage(self.bench.scratch).free < reserve.disk:
            return f"less than {format_bytes(reserve.disk)} of disk are free"
        if noise.count_free_pids() < reserve.processes:
            return f"fewer than {reserve.processes} process ids are free"
        return find_end(self.available, reserve.memory)

    def wait_merged(self) -> dict[str, object]:
        """Give KSM the time to merge what it can, where it does; what that took, for the journal.

        It is asked of machines alone: nothing else offers its memory.
        """
        offered = self.driver.kind == "vm" and self.variant.options.merge
        if not offered or ksm.find_fault(ksm.read_merging()):
            return {}
        found, seconds = ksm.wait_settled()
        return {"ksm": {**(asdict(found) if found else {}), "waited_s": round(seconds, 3)}}

    def read_merged(self) -> list[Measurement]:
        """What KSM saves the host now; no row where it does not run."""
        merging = ksm.read_merging()
        if merging is None or not merging.running:
            return []
        return [Measurement("memory.merged", merging.saved)]

    def read_occupied(self) -> list[Measurement]:
        """What they take on this host's disk now; no row where their files cannot be seen."""
        own: list[Path] = []
        for instance in self.instances:
            files = instance.files()
            if files is None:
                return []
            own += files
        store = self.bench.scratch / self.variant.base
        if store.name in ENGINES and store.is_dir():
            taken = disk.read_occupied([store], own)
        else:
            packed = self.driver.packed(self.image)
            taken = disk.read_occupied(packed[0].paths if packed else (), own)
        return [Measurement("disk.occupied", taken)]


def find_marks(outcome: Outcome) -> tuple[str, ...]:
    """The label of an emulated instance."""
    return ("emulated",) if outcome.accelerator == "tcg" else ()


def _start_one(step: ScheduledTrial, bench: Bench, running: contextlib.ExitStack) -> Instance:
    """Start one instance more, to be stopped with the others."""
    driver = bench.drivers[base_platform(step.platform)]
    spec = build_spec(step, bench)
    running.enter_context(made_folder(spec, driver))
    spec = running.enter_context(made_groups(spec, bench.tree))
    limit_instance_writing(spec, driver, bench.scratch)
    with start_log() as log:
        instance = None
        try:
            instance = running.enter_context(driver.start_instance(spec))
            instance.wait_ready()
        except TrialError as error:
            seen = Evidence(read_printed(instance), log.read_about(spec.name))
            raise explain_end(error, spec, driver.kind, seen).error from error
    limit_instance_writing(spec, driver, bench.scratch)
    return instance
