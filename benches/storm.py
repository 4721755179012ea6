"""`python -m benches.storm [ROUNDS]`: a burst by the harness beside one of plain spawns.

Both start the same containers on the same host at once: the harness from a thread for each, as in
any storm; the yardstick spawns a C program that makes the container by itself, one after another
without a pause, and waits for all. What the first takes longer is the generator's own cost: it
would pass for a cost of the platform.
"""

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benches.containers import build_reference, make_folders
from benches.rig import Measure, Samples, run_interleaved, wait_idle
from harness import cgroup
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.images.catalog import require_image
from harness.images.model import Image
from harness.images.programs import build_programs
from harness.model import Outcome
from harness.paths import scratch_root
from harness.plan import ScheduledTrial
from harness.runner import Bench
from harness.starter import read_clock
from harness.storm import Storm, run_storm
from harness.units import format_seconds
from harness.workloads import Workload

SIZES = (4, 16, 64)
_NOOP = Workload("noop", "tiny", ("true",), "exit", 60.0)


@dataclass
class Burst:
    """Bursts of one size by the harness; what else each told is kept until it is asked for."""

    bench: Bench
    size: int
    first: int
    told: dict[str, float] = field(default_factory=dict)

    def measure(self, number: int) -> float:
        """Seconds from the begin until the last was ready."""
        trial = self.first + number * self.size
        step = ScheduledTrial(number, trial, 0, "namespace", "noop", warmup=False)
        found = list(run_storm(Storm(step, (0.0,) * self.size), self.bench))
        if any(each.status == "failed" for each in found):
            raise RuntimeError(str(next(each.error for each in found if each.error)))
        details = found[0].details["storm"]
        assert isinstance(details, Mapping)
        self.told = {
            "late": statistics.median(_list_values(found, "storm.late")),
            "cpu": details["harness_cpu_s"] / self.size,
        }
        wait_idle()
        return max(_list_values(found, "storm.ready"))

    def recall(self, name: str) -> Callable[[int], float]:
        return lambda _number: self.told[name]


def _list_values(outcomes: list[Outcome], metric: str) -> list[float]:
    return [row.value for each in outcomes for row in each.measurements if row.metric == metric]


def measure_storms(rounds: int) -> Samples:
    """Seconds by ``SIZE.harness`` and ``SIZE.spawned``; of each start, how late it was requested by
    ``SIZE.harness.late.total``, and the harness's CPU time by ``SIZE.harness.cpu.total``."""
    image = require_image("tiny", print)
    starter = build_programs().starter
    with TemporaryDirectory() as folder:
        reference = build_reference(Path(folder))
        return run_interleaved(
            lambda run_id: _build_measures(run_id, image, starter, reference, rounds), rounds
        )


def _build_measures(
    run_id: str, image: Image, starter: Path, reference: Path, rounds: int
) -> Mapping[str, Measure]:
    scratch = scratch_root() / run_id
    scratch.mkdir(parents=True)
    driver = load_driver("namespace", Toolbox(starter=starter))
    bench = Bench(
        run_id=run_id,
        drivers={"namespace": driver},
        images={"tiny": image},
        workloads={"noop": _NOOP},
        fixed={},
        scratch=scratch,
        logs=scratch / "logs",
        tree=cgroup.find_tree(run_id),
    )
    measures: dict[str, Measure] = {}
    for place, size in enumerate(SIZES):
        burst = Burst(bench, size, place * (rounds + 1) * max(SIZES))
        measures[f"{size}.harness"] = burst.measure
        measures[f"{size}.harness.late.total"] = burst.recall("late")
        measures[f"{size}.harness.cpu.total"] = burst.recall("cpu")
        measures[f"{size}.spawned"] = _build_spawning(scratch, image, reference, size)
    return measures


def _build_spawning(scratch: Path, image: Image, reference: Path, size: int) -> Measure:
    def spawn_all(number: int) -> float:
        commands = [
            [os.fspath(each) for each in (reference, image.tree, *parts, "/bin/true")]
            for parts in (make_folders(scratch / f"c{size}-{number}-{one}") for one in range(size))
        ]
        begin = read_clock()
        pids = [os.posix_spawn(words[0], words, os.environ) for words in commands]
        codes = [os.waitpid(pid, 0)[1] for pid in pids]
        end = read_clock()
        if any(codes):
            raise RuntimeError("a container of the yardstick failed")
        wait_idle()
        return (end - begin) / 1e9

    return spawn_all


def main(rounds: int) -> None:
    samples = measure_storms(rounds)
    for size in SIZES:
        one, other = samples[f"{size}.harness"], samples[f"{size}.spawned"]
        ratio = statistics.median(a / b for a, b in zip(one, other, strict=True))
        late, cpu = (
            statistics.median(samples[f"{size}.harness.{name}.total"]) for name in ("late", "cpu")
        )
        print(
            f"burst of {size}: {format_seconds(statistics.median(one))} until all are ready, "
            f"{ratio:.2f} × spawning them ({rounds} pairs); requests {format_seconds(late)} late, "
            f"{format_seconds(cpu)} of the harness's CPU time each"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
