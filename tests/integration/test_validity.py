"""Validity marks provoked for real, A/A arms chosen among what runs, and runs that end in time."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness import cgroup
from harness.images.model import Image
from harness.marks import MARKS
from harness.paths import scratch_root
from harness.plan import build_schedule
from harness.plan_file import read_plan
from harness.runner import run_trial
from harness.session import Order, build_bench, build_toolbox, find_drivers
from harness.workloads import Workload
from tests.integration.laboratory import run_in_lab
from tests.integration.test_run import read_outcomes, run_harness

pytestmark = pytest.mark.timeout(300)

PLAN = 'platforms = {platforms}\nworkloads = ["{workload}"]\nwarmup = 0\nsettle = "20ms"\n'


def write_plan(
    folder: Path, *platforms: str, workload: str = "noop", density: int = 0, more: str = ""
) -> str:
    path = folder / "plan.toml"
    plan = PLAN.format(platforms=json.dumps(platforms), workload=workload)
    path.write_text(f"{plan}density = {density}\n{more}")
    return str(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes that take all the CPU time they get."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in burners:
            each.kill()
            each.wait()


def test_load_from_outside_is_marked_and_measured(tmp_path: Path, tiny_image: Image) -> None:
    plan = write_plan(tmp_path, "namespace", more="blocks = 4\naa = []\n")
    cpus = len(os.sched_getaffinity(0))
    with burning(cpus):
        done = run_harness("run", plan, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(tmp_path / "out")
    assert [each["status"] for each in outcomes] == ["ok"] * 4
    assert all("outside-load" in each["marks"] for each in outcomes)
    assert all(each["details"]["noise"]["outside_share"] > 0.5 for each in outcomes)
    manifest = read_manifest(tmp_path / "out")
    problems = " ".join(each["problem"] for each in manifest["noise"])
    assert re.search(r"CPUs' time goes to other work now: .+ \(\d+\) \d+% of a CPU", problems)
    page = (tmp_path / "out/report.md").read_text()
    assert "4 of 4 trials were disturbed (outside-load 4" in page
    assert MARKS["outside-load"].meaning in page and "pyperf system tune" in page


def require_own(outcome: dict[str, Any]) -> None:
    """What served the instance was taken for the run's own, not for load from outside."""
    used = sum(
        row["value"]
        for row in outcome["measurements"]
        if row["metric"] == "startup.cpu" and not row["phase"]
    )
    assert outcome["details"]["noise"]["own_s"] > 0.95 * used > 0


BURN = ("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done")


@pytest.mark.parametrize(("cpus", "marked"), [(0.2, True), (8.0, False)])
def test_a_limit_that_stops_an_instance_is_marked(
    tmp_path: Path, tiny_image: Image, cpus: float, marked: bool
) -> None:
    """A fifth of a CPU is less than any neighbours leave of one, so the limit is always met."""
    burn = Workload("burn", "tiny", BURN, "output:done", 60.0)
    plan = read_plan(
        None, {"platforms": ("namespace",), "blocks": 1, "warmup": 0}, new_seed=1, own=(burn,)
    )

    def measure(run_id: str) -> Any:
        order = Order(plan, tmp_path / "out", (), run_id)
        scratch = scratch_root() / run_id
        scratch.mkdir(parents=True, exist_ok=True)
        toolbox = build_toolbox(order, scratch, print)
        drivers = find_drivers(plan, toolbox, order.open_roster())
        bench = build_bench(order, drivers, scratch, cgroup.find_tree(run_id))
        bench = replace(bench, cpus=cast(int, cpus))  # plans have whole CPUs only
        return asdict(run_trial(build_schedule(plan)[0], bench))

    outcome = run_in_lab(measure, tmp_path)
    assert outcome["status"] == "ok", outcome["error"]
    assert ("throttled" in outcome["marks"]) == marked
    assert (outcome["details"].get("throttled", 0) > 0) == marked
    require_own(outcome)


def test_a_panic_is_a_mark_of_its_failed_trial(tmp_path: Path, guest_kernel: object) -> None:
    (tmp_path / "panics.toml").write_text(
        'name = "panics"\nimage = "tiny"\nready = "output:never"\n'
        'command = ["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]\n'
    )
    plan = write_plan(
        tmp_path, "vm-microvm", workload="./panics.toml", more="blocks = 1\naa = []\n"
    )
    run_harness("run", plan, "--out", str(tmp_path / "out"))
    (outcome,) = read_outcomes(tmp_path / "out")
    assert outcome["status"] == "failed"
    assert "panic" in outcome["marks"]
    assert "steal_s" in outcome["details"]["noise"], "a failed trial keeps what disturbed it"


# ---- A/A arms ----------------------------------------------------------------------------------


def test_one_container_and_one_machine_are_entered_twice(
    tmp_path: Path, guest_kernel: object
) -> None:
    plan = write_plan(tmp_path, "process", "namespace", "vm-microvm", more="blocks = 1\n")
    dry = run_harness("run", plan, "--dry-run")
    assert "entered twice: namespace, vm-microvm" in dry.stdout
    done = run_harness("run", plan, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(tmp_path / "out")
    platforms = {each["platform"] for each in outcomes}
    for each in outcomes:
        require_own(each)
    assert {"namespace#2", "vm-microvm#2"} < platforms
    assert read_manifest(tmp_path / "out")["aa"] == {
        "platforms": ["namespace", "vm-microvm"],
        "chosen": "the first container and the first virtual machine that run here",
    }


def test_a_platform_that_cannot_run_here_gives_its_place_to_the_next(tmp_path: Path) -> None:
    """Without an engine's socket docker cannot run."""
    plan = write_plan(tmp_path, "docker", "crun", "namespace")
    dry = run_harness("run", plan, "--dry-run", DOCKER_HOST="unix:///nowhere.sock")
    assert "entered twice: crun" in dry.stdout


# ---- where a run ends --------------------------------------------------------------------------


def test_a_budget_ends_a_run_and_the_run_says_so(tmp_path: Path, tiny_image: Image) -> None:
    plan = write_plan(tmp_path, "process", "namespace", density=1, more="blocks = 1000\n")
    done = run_harness("run", plan, "--budget", "4s", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    ending = read_manifest(tmp_path / "out")["ending"]
    assert ending["reason"] == "budget"
    assert 1 <= ending["blocks"] < 1000
    assert ending["undone"] == [
        "the density series of process with noop",
        "the density series of namespace with noop",
    ]
    said = f"The run ended after {ending['blocks']} block"
    assert said in done.stderr and said in (tmp_path / "out/report.md").read_text()
    blocks = {each["block"] for each in read_outcomes(tmp_path / "out")}
    assert blocks == set(range(ending["blocks"])), "whole blocks, none begun in vain"


def test_a_precision_that_is_reached_ends_a_run(tmp_path: Path, tiny_image: Image) -> None:
    plan = write_plan(tmp_path, "process", "namespace")
    out = tmp_path / "out"
    done = run_harness("run", plan, "--precision", "95%", "--budget", "2m", "--out", str(out))
    assert done.returncode == 0, done.stderr
    ending = read_manifest(out)["ending"]
    assert (ending["reason"], ending["planned"]) == ("precision", 320)
    assert ending["blocks"] in (20, 40)
    assert ending["widest"]["half_width"] <= 0.95
    assert "at two looks in a row" in (out / "report.md").read_text()
    assert "going on to" in done.stderr


BROKEN = """
name = "broken"
image = "tiny"
command = ["sh", "-c", "test -e /sys/fs/nowhere"]
ready = "exit"
"""


def test_a_run_whose_every_trial_fails_ends_at_its_first_look(
    tmp_path: Path, tiny_image: Image
) -> None:
    (tmp_path / "broken.toml").write_text(BROKEN)
    plan = write_plan(tmp_path, "process", "namespace", workload="./broken.toml")
    out = tmp_path / "out"
    done = run_harness("run", plan, "--precision", "5%", "--out", str(out))
    assert done.returncode == 3, "every trial failed"
    ending = read_manifest(out)["ending"]
    assert (ending["reason"], ending["blocks"]) == ("nothing", 10)
    assert len(ending["left_out"]) == 3


def test_a_run_that_its_budget_ended_can_be_gone_on_with(tmp_path: Path, tiny_image: Image) -> None:
    plan = write_plan(tmp_path, "process", "namespace", density=1, more="blocks = 24\n")
    out = tmp_path / "out"
    assert run_harness("run", plan, "--budget", "2s", "--out", str(out)).returncode == 0
    first = read_outcomes(out)
    manifest = read_manifest(out)
    assert manifest["ending"]["reason"] == "budget"
    manifest["plan"]["budget"] = None
    (out / "manifest.json").write_text(json.dumps(manifest))
    done = run_harness("run", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(out)
    numbers = [each["trial"] for each in outcomes]
    assert outcomes[: len(first)] == first
    assert len(set(numbers)) == len(numbers), "no number comes twice"
    assert {each["block"] for each in outcomes if each["trial"] < 72} == set(range(24))
    assert min(number for number in numbers if number >= 72) == 72, "the series come after them"
    assert read_manifest(out)["ending"]["reason"] == "blocks"
