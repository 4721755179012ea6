"""What one more instance costs: start instances one after another and keep them.

The rows are `memory.available` of the host and `disk.occupied` with 0, 1, 2 … instances running;
the analysis fits their slopes, `memory.marginal` and `disk.marginal`. The steps are real starts of
the same workload as in the trials.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Instance
from harness.errors import HarnessError
from harness.images.model import Image
from harness.model import Measurement, Outcome, base_platform
from harness.plan import ScheduledTrial
from harness.probes import disk, memory
from harness.runner import Bench, build_outcome, build_spec, describe_error, find_remedy
from harness.variants import parse_variant

CONTAINER_FACTOR = 8
"""Containers are so much lighter that a slope needs more of them than of virtual machines."""

ENGINES = ("podman", "docker")
"""They keep images and instances in a store of their own: a folder of the run's scratch."""

RESERVE = 1 << 30
"""Bytes of host memory that a series never takes: it stops before."""


def run_density(scheduled: ScheduledTrial, count: int, bench: Bench) -> Iterator[Outcome]:
    """Start up to ``count`` instances of one platform; yields an outcome after each step.

    ``scheduled`` gives platform, workload and the number of the first trial. The series ends early,
    with a failed outcome, where a start fails or the host's reserve of memory is reached.
    """
    driver = bench.drivers[base_platform(scheduled.platform)]
    crowd = _Crowd(bench, build_spec(scheduled, bench).image, scheduled.platform)
    with contextlib.ExitStack() as running:
        for number in range(count + 1):
            step = replace(scheduled, trial=scheduled.trial + number, order=number)
            outcome = replace(build_outcome(step, bench), instances=number)
            try:
                if number > 0:
                    instance = _start_one(step, bench, running)
                    crowd.instances.append(instance)
                    outcome = replace(outcome, accelerator=instance.accelerator)
                bench.sleep(bench.settle)
                available = memory.read_available()
                rows = [Measurement("memory.available", available), *crowd.read_occupied()]
                yield replace(outcome, measurements=tuple(rows), marks=_find_marks(outcome))
                if available < RESERVE:
                    raise HarnessError(f"less than {RESERVE >> 20} MiB of memory are left")
            except (HarnessError, OSError) as error:
                yield replace(
                    outcome,
                    status="failed",
                    error=f"{driver.name} with {number} instances: {describe_error(error)}",
                    hint=find_remedy(error),
                )
                return


@dataclass(slots=True)
class _Crowd:
    """The instances that run, and the image that they all have."""

    bench: Bench
    image: Image
    platform: str
    instances: list[Instance] = field(default_factory=list)

    def read_occupied(self) -> list[Measurement]:
        """What they take on this host's disk now; no row where their files cannot be seen."""
        own: list[Path] = []
        for instance in self.instances:
            files = instance.files()
            if files is None:
                return []
            own += files
        store = self.bench.scratch / parse_variant(base_platform(self.platform)).base
        if store.name in ENGINES and store.is_dir():
            taken = disk.read_occupied([store], own)
        else:
            packed = self.bench.drivers[base_platform(self.platform)].packed(self.image)
            taken = disk.read_occupied(packed[0].paths if packed else (), own)
        return [Measurement("disk.occupied", taken)]


def _find_marks(outcome: Outcome) -> tuple[str, ...]:
    return ("emulated",) if outcome.accelerator == "tcg" else ()


def _start_one(step: ScheduledTrial, bench: Bench, running: contextlib.ExitStack) -> Instance:
    """Start one instance more, to be stopped with the others."""
    spec = build_spec(step, bench)
    spec.folder.mkdir()
    if bench.tree:
        spec = replace(spec, cgroups=bench.tree.start(spec.name))
        running.callback(cgroup.remove, spec.cgroups)
        running.callback(cgroup.kill_processes, spec.cgroups)
    driver = bench.drivers[base_platform(step.platform)]
    instance = running.enter_context(driver.start_instance(spec))
    instance.wait_ready()
    return instance
