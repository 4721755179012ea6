"""Boot storms for real: bursts, arrivals at a rate, one without room, failures, sudden ends."""

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup
from tests.integration.test_run import (
    PROJECT,
    harness_words,
    read_outcomes,
    run_harness,
    wait_for_trials,
    wait_until_clean,
)

pytestmark = pytest.mark.timeout(120)

PLAN = """\
blocks = 1
warmup = 0
density = 0
seed = 3
aa = []
"""

# The first trial is that of the block; an instance is called by the number of its trial.
FRAIL = "case $(hostname) in *-3|*-7) exit 3;; esac"
GREEDY = "case $(hostname) in *-0) exit 0;; esac; tail /dev/zero"
ENDLESS = "case $(hostname) in *-0) exit 0;; esac; sleep 300"


def write_plan(folder: Path, more: str, script: str = "") -> Path:
    plan = folder / "plan.toml"
    name = "noop"
    if script:
        name = "./own.toml"
        (folder / "own.toml").write_text(
            'name = "own"\nimage = "tiny"\nready = "exit"\ntimeout = "300s"\n'
            f"command = ['sh', '-c', '''{script}''']\n"
        )
    plan.write_text(f'{PLAN}workloads = ["{name}"]\n{more}')
    return plan


def run_storms(folder: Path, more: str, script: str = "") -> list[dict[str, Any]]:
    """Every outcome that belongs to a storm."""
    done = run_harness("run", str(write_plan(folder, more, script)), "--out", str(folder / "r"))
    assert done.returncode == 0, done.stderr
    return [each for each in read_outcomes(folder / "r") if "storm" in each["details"]]


def read_rows(outcome: dict[str, Any]) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in outcome["measurements"]}


def test_containers_in_bursts_and_at_a_rate(tmp_path: Path) -> None:
    more = 'platforms = ["namespace"]\nstorm = 10\nstorm_rates = ["50/s"]\nstorm_repeats = 2\n'
    starts = run_storms(tmp_path, more)
    assert [each["error"] for each in starts] == [None] * 40
    assert {each["instances"] for each in starts} == {10}
    kinds = [each["details"]["storm"]["kind"] for each in starts]
    assert sorted(kinds) == ["50/s"] * 20 + ["burst"] * 20
    for each in starts:
        rows, due = read_rows(each), each["details"]["storm"]["due_s"]
        stamps = each["milestones"]
        own = (stamps["ready"] - stamps["request"]) / 1e9
        assert rows["storm.ready"] == pytest.approx(own + rows["storm.late"], abs=1e-6)
        assert rows["storm.late"] >= 0, "nothing starts before it is due"
        assert (due == 0) == (each["details"]["storm"]["kind"] == "burst" or each["order"] == 0)
    burst = [each for each in starts if each["details"]["storm"]["kind"] == "burst"][:10]
    requested = [each["milestones"]["request"] for each in burst]
    ready = [each["milestones"]["ready"] for each in burst]
    assert max(requested) < max(ready), "they started beside each other"
    assert sum("storm.rate" in read_rows(each) for each in burst) == 1
    report = (tmp_path / "r/report.md").read_text()
    assert "## Boot storms" in report and "plots/storm-ecdf.svg" in report


def test_machines_in_a_burst(tmp_path: Path) -> None:
    starts = run_storms(tmp_path, 'platforms = ["vm-microvm"]\nstorm = 3\nstorm_repeats = 1\n')
    assert [each["error"] for each in starts] == [None] * 3
    requested = [each["milestones"]["request"] for each in starts]
    kernels = [each["milestones"]["kernel"] for each in starts]
    assert max(requested) < min(kernels), "all were asked for before the first kernel spoke"
    for each in starts:
        assert ("emulated" in each["marks"]) == (each["accelerator"] == "tcg")


def read_available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) >> 10


@pytest.mark.parametrize(("room", "started"), [(4, range(2, 5)), (1, range(1))])
def test_a_storm_takes_nothing_of_the_reserve(room: int, started: range, tmp_path: Path) -> None:
    """Of eight starts that may take 1 GiB each, so many fit; others may use the host meanwhile."""
    reserve = read_available_mib() - room * 1024 - 256
    more = f'platforms = ["namespace"]\nmemory = "1GiB"\nreserve = "{reserve}MiB"\n'
    starts = run_storms(tmp_path, f"{more}storm = 8\nstorm_repeats = 1\n")
    told = starts[0]["details"]["storm"]
    why = told["refused"] if room == 1 else told["cut"]
    assert why.startswith("each may take 1 GiB of memory; ")
    assert sum(bool(each["milestones"]) for each in starts) in started
    assert why.split(";")[0] in (tmp_path / "r/report.md").read_text()


def test_a_start_that_fails_is_an_outcome_and_the_others_go_on(tmp_path: Path) -> None:
    more = 'platforms = ["namespace"]\nstorm = 8\nstorm_repeats = 1\n'
    starts = run_storms(tmp_path, more, FRAIL)
    failed = [each for each in starts if each["status"] == "failed"]
    assert [each["trial"] for each in failed] == [3, 7]
    assert {each["error"] for each in failed} == {
        "namespace in a storm of 8: the workload ended with 3 before it was ready"
    }
    assert all(each["measurements"] == [] for each in failed)
    assert sum("storm.rate" in read_rows(each) for each in starts) == 0


def test_a_start_that_its_memory_limit_ends_says_so(tmp_path: Path) -> None:
    """A sandbox takes its groups, and their counts, with it; the kernel's log still has them."""
    more = 'platforms = ["gvisor"]\nmemory = "128MiB"\nstorm = 2\nstorm_repeats = 1\n'
    starts = run_storms(tmp_path, more, GREEDY)
    said = "gvisor in a storm of 2: the workload was killed by its memory limit of 128MiB: "
    assert [str(each["error"]).partition("runsc")[0] for each in starts] == [said] * 2
    assert {each["hint"] for each in starts} == {"raise the plan's `memory`"}


WRITER = (
    "dd if=/dev/zero of=/var/tmp/big bs=1M count=40 2>/dev/null && exit 7; "
    "dd if=/dev/zero of=/var/tmp/one bs=1M count=1 conv=fsync 2>/dev/null; exit 0"
)


def test_limits_of_writing_hold_in_a_storm_and_its_report_has_its_quantiles(
    tmp_path: Path,
) -> None:
    """Forty MiB do not fit into 32, whoever starts them; six bursts have a median of their own."""
    more = 'platforms = ["namespace"]\ndisk = "32MiB"\nio = "64MiB"\nstorm = 2\nstorm_repeats = 6\n'
    starts = run_storms(tmp_path, more, WRITER)
    assert [each["error"] for each in starts] == [None] * 12
    assert all("limits_refused" not in each["details"] for each in starts)
    page = (tmp_path / "r/report.md").read_text()
    row = next(line for line in page.splitlines() if line[:1] == "|" and "burst of 2" in line)
    assert re.search(r"\d m?s; \d|of 6 storms were disturbed", row), row
    assert "20 starts are needed in a storm, 2 were made" in row


@pytest.mark.parametrize(
    ("platform", "number"),
    [
        ("namespace", signal.SIGKILL),
        ("namespace", signal.SIGINT),
        ("vm-microvm", signal.SIGINT),
    ],
)
def test_the_end_of_a_run_in_mid_storm_leaves_nothing(
    platform: str, number: int, tmp_path: Path
) -> None:
    """Machines have no groups by which they could be killed."""
    size = 8 if platform == "namespace" else 3
    plan = write_plan(tmp_path, f'platforms = ["{platform}"]\nstorm = {size}\n', ENDLESS)
    out = tmp_path / "out"
    with subprocess.Popen(
        harness_words("run", str(plan), "--out", str(out)),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        run_id = wait_for_trials(out, 1, process)
        wait_for_crowd(run_id, size)
        process.send_signal(number)
        _, talk = process.communicate(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "Traceback" not in talk
    assert wait_until_clean(run_id) == []
    assert [json.loads(line)["trial"] for line in read_trials(out)] == [0]


def read_trials(out: Path) -> list[str]:
    return [line for line in (out / "journal.jsonl").read_text().splitlines() if '"trial"' in line]


def wait_for_crowd(run_id: str, count: int) -> None:
    """Wait until so many groups of the run have processes at once, or so many machines run."""
    for _ in range(400):
        groups = cgroup.MOUNT.glob(f"**/{cgroup.PREFIX}{run_id}/**/cgroup.procs")
        living = {path.parent.name for path in groups if path.read_text().strip()}
        if len(living) >= count or count_machines(run_id) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("there was no storm")


def count_machines(run_id: str) -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            found += b"qemu" in words[:40] and f"guest=harness-{run_id}".encode() in words
    return found
