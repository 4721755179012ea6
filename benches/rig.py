"""What the benchmarks share: trials and yardsticks, interleaved in one lab.

A yardstick is something else that does the same work: a C program, an engine started by hand, QEMU
started by hand. Only figures of one interleaved run are compared with each other.
"""

import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import cgroup, lab
from harness.drivers.base import InstanceSpec
from harness.images.model import Image
from harness.session import build_run_id
from harness.starter import read_clock

Samples = Mapping[str, Sequence[float]]
Measure = Callable[[int], float]


def run_interleaved(
    build: Callable[[str], Mapping[str, Measure]], repeats: int, seed: int = 1
) -> Samples:
    """Seconds by name: every measure once a round, in a random order, in one lab.

    ``build`` gets the run's id inside the lab and returns the measures; each is called with the
    number of its round. The first round warms up and is dropped.
    """
    import datetime

    run_id = build_run_id(datetime.datetime.now(datetime.UTC))
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "samples.json"

        def work() -> int:
            measures = build(run_id)
            shuffle = random.Random(seed)
            found: dict[str, list[float]] = {name: [] for name in measures}
            for number in range(repeats + 1):
                names = sorted(measures)
                if number > 0:  # the warm-up goes in order: one may teach another
                    shuffle.shuffle(names)
                    names.sort(key=lambda name: name.endswith(".total"))  # a by-product
                for name in names:
                    value = measures[name](number)
                    if number > 0:
                        found[name].append(value)
            answer.write_text(json.dumps(found))
            return 0

        code = lab.run_inside(work, run_id)
        if code != 0:
            raise RuntimeError(f"the benchmark's lab ended with {code}")
        result: dict[str, list[float]] = json.loads(answer.read_text())
        return result


def time_command(argv: Sequence[str | Path]) -> float:
    """Seconds from just before the start of a command to its end; raises if it fails."""
    words = [os.fspath(word) for word in argv]
    begin = read_clock()
    pid = os.posix_spawn(words[0], words, os.environ)
    _, status = os.waitpid(pid, 0)
    end = read_clock()
    if status != 0:
        raise RuntimeError(f"{words[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return (end - begin) / 1e9


def wait_idle(seconds: float = 0.05) -> None:
    """Let the kernel finish what a teardown left to it, so that it does not disturb the next."""
    time.sleep(seconds)


def build_spec(
    name: str, scratch: Path, image: Image, tree: cgroup.CgroupTree | None
) -> InstanceSpec:
    """An instance that runs `true`, with a new folder and cgroups of its own."""
    folder = scratch / name
    folder.mkdir()
    return InstanceSpec(
        name=name,
        folder=folder,
        image=image,
        command=("true",),
        environment={},
        ready="exit",
        memory=256 << 20,
        cgroups=tree.start(name) if tree else (),
    )
