"""The search for the smallest memory, with real starts in the lab and through the command line."""

import json
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness import cgroup
from harness.bisection import Bounds
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.images.model import GuestKernel, Image, Programs
from harness.minimum import run_search
from harness.model import Outcome
from harness.paths import scratch_root
from harness.plan import ScheduledTrial
from harness.runner import Bench
from harness.workloads import Workload
from tests.integration.laboratory import run_in_lab
from tests.integration.test_run import (
    PROJECT,
    harness_words,
    read_outcomes,
    run_harness,
    wait_for_trials,
    wait_until_clean,
)

MIB = 1 << 20
NOOP = Workload("noop", "tiny", ("true",), "exit", 30.0)
SMALL = Bounds(least=MIB // 8, most=4 * MIB, grain=MIB // 8)
GUEST = Bounds(least=40 * MIB, most=160 * MIB, grain=40 * MIB)


def search(
    platform: str, bounds: Bounds, toolbox: dict[str, Any], image: Image, run_id: str
) -> Any:
    """The outcome of one search, for use in the lab, in JSON types."""
    scratch = scratch_root() / run_id
    scratch.mkdir(parents=True, exist_ok=True)
    driver = load_driver(platform, Toolbox(**toolbox, scratch=scratch, run_id=run_id))
    bench = Bench(
        run_id=run_id,
        drivers={platform: driver},
        images={"tiny": image},
        workloads={"noop": NOOP},
        fixed={},
        scratch=scratch,
        logs=scratch / "logs",
        tree=cgroup.find_tree(run_id),
    )
    with driver.start_run([]):
        outcome: Outcome = run_search(
            ScheduledTrial(0, 7, 0, platform, "noop", warmup=False), bench, bounds
        )
    left = [path.name for path in scratch.glob("t*")]
    left += [
        str(path) for path in cgroup.MOUNT.glob(f"*/{cgroup.PREFIX}{run_id}/*-7-*/cgroup.procs")
    ]
    return {**asdict(outcome), "left": left}


def check(outcome: dict[str, Any], bounds: Bounds) -> int:
    """What every search has to say; the size that it found."""
    assert (outcome["status"], outcome["error"], outcome["left"]) == ("ok", None, [])
    found = int(outcome["measurements"][0]["value"])
    assert bounds.least <= found <= bounds.most
    steps = outcome["details"]["steps"]
    assert steps[0]["memory"] == bounds.most
    assert all(step["ready"] == (step["reason"] is None) for step in steps)
    assert all(step["seconds"] > 0 for step in steps)
    assert outcome["details"]["ready"] >= 2
    assert "left" not in outcome["details"]
    return found


@pytest.mark.parametrize("platform", ["namespace", "crun", "bubblewrap"])
def test_a_container_needs_less_than_its_image_and_more_than_nothing(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    toolbox = {"starter": programs.starter}
    outcome = run_in_lab(lambda run: search(platform, SMALL, toolbox, tiny_image, run), tmp_path)
    found = check(outcome, SMALL)
    assert MIB // 8 < found < 3 * MIB
    failed = [step for step in outcome["details"]["steps"] if not step["ready"]]
    assert failed, "the kernel ends what does not fit"
    assert all("signal 9" in step["reason"] or "137" in step["reason"]
               or "out of memory" in step["reason"] or "OOM" in step["reason"]
               for step in failed), failed  # fmt: skip


@pytest.mark.timeout(180)
def test_a_guest_needs_room_for_its_kernel(
    tiny_image: Image, programs: Programs, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    toolbox = {"starter": programs.starter, "kernel": guest_kernel, "accelerator": "tcg"}
    outcome = run_in_lab(
        lambda run: search("vm-microvm", GUEST, toolbox, tiny_image, run), tmp_path
    )
    assert check(outcome, GUEST) > 40 * MIB
    assert outcome["accelerator"] == "tcg"
    assert outcome["marks"] == ("emulated",) or outcome["marks"] == ["emulated"]
    failed = [step for step in outcome["details"]["steps"] if not step["ready"]]
    assert {step["memory"] for step in failed} >= {40 * MIB}
    assert all(step["seconds"] < 15 for step in failed), "no step waits for the workload's timeout"


# ---- through the command line ------------------------------------------------------------------

PLAN = 'platforms = ["process", "namespace", "runc"]\nworkloads = ["noop"]\ndensity = 0\n'


def read_searches(folder: Path) -> list[dict[str, Any]]:
    return [each for each in read_outcomes(folder) if "steps" in each["details"]]


def test_a_run_searches_after_its_trials_and_resume_does_not_search_again(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    out = tmp_path / "out"
    words = ("run", str(tmp_path / "plan.toml"), "--minimum", "--blocks", "1", "--out", str(out))
    done = run_harness(*words)
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(out)
    searches = read_searches(out)
    assert outcomes[-2:] == searches
    assert [each["platform"] for each in searches] == ["namespace", "runc"]
    assert [each["status"] for each in searches] == ["ok", "ok"]
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    found = {row["platform"]: row for row in rows
             if row["metric"] == "memory.minimum" and not row["phase"]}  # fmt: skip
    assert set(found) == {"namespace", "runc"}
    assert all(row["unit"] == "B" and row["instances"] == 1 for row in found.values())
    assert 0 < found["namespace"]["value"] < 64 * MIB
    manifest = json.loads((out / "manifest.json").read_text())
    assert any(each.startswith("process in memory.minimum: ") for each in manifest["left_out"])
    assert "smallest that does" in (out / "report.md").read_text()
    assert wait_until_clean(manifest["run_id"]) == []

    journal = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    (out / "journal.jsonl").write_text("".join(journal[:-1]))  # as if the last search was not over
    done = run_harness("run", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    again = read_outcomes(out)
    assert again[:-1] == outcomes[:-1]
    assert (again[-1]["platform"], again[-1]["trial"]) == ("runc", outcomes[-1]["trial"])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_is_broken_off_leaves_nothing(end: signal.Signals, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('platforms = ["vm-microvm"]\nworkloads = ["noop"]\ndensity = 0\nwarmup = 0\n'
                    'aa = []\nblocks = 1\nminimum = true\n')  # fmt: skip
    out = tmp_path / "out"
    with subprocess.Popen(
        harness_words("run", str(plan), "--out", str(out)),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        run_id = wait_for_trials(out, 1, process)  # the first line is no trial
        time.sleep(2)  # in the middle of a step
        process.send_signal(end)
        process.communicate(timeout=30)
    assert wait_until_clean(run_id) == []
    assert read_searches(out) == []
