"""Run a function inside the real lab, bring its result back to the test, and start instances."""

import json
import os
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.errors import TrialError
from harness.images.model import Image, Programs
from harness.paths import scratch_root
from harness.starter import read_clock

MEMORY = 128 << 20
_PRINT_NS = 10_000_000_000


def run_in_lab(function: Callable[[str], Any], folder: Path, *, network: bool = True) -> Any:
    """The JSON result of ``function(run_id)`` as the lab's worker; fails with its traceback."""
    answer = folder / f"answer-{uuid.uuid4().hex}.json"
    run_id = f"test{uuid.uuid4().hex[:10]}"

    def work() -> int:
        os.chdir(folder)  # as a run does: engines may leave files where they are called
        try:
            answer.write_text(json.dumps({"value": function(run_id)}))
        except BaseException:
            answer.write_text(json.dumps({"error": traceback.format_exc()}))
        return 0

    code = lab.run_inside(work, run_id, network=network)
    assert code == 0, f"the lab ended with {code}"
    result = json.loads(answer.read_text())
    assert "error" not in result, result["error"]
    return result["value"]


def build_spec(image: Image, run_id: str, name: str, **changes: Any) -> InstanceSpec:
    """The spec of an instance that runs `true`, with a folder and cgroups of its own."""
    tree = cgroup.find_tree(run_id)
    assert tree is not None
    folder = scratch_root() / run_id / name
    folder.mkdir(parents=True)
    spec = InstanceSpec(
        name=f"{cgroup.PREFIX}{run_id}-{name}",
        folder=folder,
        image=image,
        command=("true",),
        environment={},
        ready="exit",
        memory=MEMORY,
        timeout=90,
        cgroups=tree.start(name),
    )
    return replace(spec, **changes)


@contextmanager
def instance_of(
    platform: str,
    image: Image,
    programs: Programs,
    run_id: str,
    loaded: Image | None = None,
    **changes: Any,
) -> Iterator[Any]:
    """A started instance, ready; for use in the lab. ``loaded`` is what the engine has instead."""
    scratch = scratch_root() / run_id
    toolbox = Toolbox(starter=programs.starter, scratch=scratch, run_id=run_id)
    driver = load_driver(platform, toolbox)
    spec = build_spec(image, run_id, "one", **changes)
    first = replace(spec, image=loaded or image)
    with driver.start_run([first]), driver.start_instance(spec) as instance:
        instance.wait_ready()
        yield instance


def look_inside(
    platform: str, image: Image, programs: Programs, folder: Path, script: str, **changes: Any
) -> list[str]:
    """What a shell script prints in an instance of the platform."""

    def look(run_id: str) -> str:
        command = ("sh", "-c", script)
        with instance_of(platform, image, programs, run_id, command=command, **changes) as instance:
            instance.channel.wait_exit(read_clock() + _PRINT_NS)  # it follows the last output
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    text: str = run_in_lab(look, folder)
    return text.splitlines()


def leave_out_agent(image: Image, folder: Path) -> Image:
    """The image with a tree that has folders alone, made in ``folder``."""
    tree = folder / "image" / "tree"
    for name in (".harness/run", "dev", "proc", "sys", "usr", "etc"):
        (tree / name).mkdir(parents=True)
    packing = replace(image.packings["tree"], path=tree)
    return replace(image, folder=tree.parent, packings={**image.packings, "tree": packing})


def attempt(platform: str, image: Image, programs: Programs, folder: Path, **changes: Any) -> str:
    """What a start fails with; empty if it does not fail."""

    def start(run_id: str) -> str:
        try:
            with instance_of(platform, image, programs, run_id, **changes):
                return ""
        except TrialError as error:
            return error.message

    message: str = run_in_lab(start, folder)
    return message
