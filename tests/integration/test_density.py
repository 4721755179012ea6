"""Density for real: two hundred containers and twenty machines, one after another, all running."""

import json
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.analysis.crowd import list_series
from harness.analysis.results import Results, load_results
from tests.integration.test_run import (
    PROJECT,
    harness_words,
    read_outcomes,
    run_harness,
    wait_for_trials,
)

pytestmark = pytest.mark.timeout(300)

PLAN = """\
workloads = ["noop"]
blocks = 1
warmup = 0
settle = "50ms"
aa = []
"""


def run_plan(folder: Path, more: str) -> Results:
    plan = folder / "plan.toml"
    plan.write_text(PLAN + more)
    done = run_harness("run", str(plan), "--out", str(folder / "r"))
    assert done.returncode == 0, done.stderr
    return load_results(folder / "r")


def test_two_hundred_containers_and_twenty_machines_run_beside_each_other(tmp_path: Path) -> None:
    results = run_plan(tmp_path, 'platforms = ["namespace", "vm-restore"]\ndensity = 25\n')
    reached = {each.platform: (each.counts[-1], each.end) for each in list_series(results)}
    assert reached == {
        "namespace": (200, "all were started"),
        "vm-restore": (25, "all were started"),
    }
    one_more = results.find("vm-restore", "noop", "memory.marginal")
    assert one_more is not None and 20e6 < one_more.low < one_more.median < one_more.high < 500e6
    assert results.find("namespace", "noop", "memory.marginal") is not None
    assert "Starting beside others" in (tmp_path / "r/report.md").read_text()


def test_a_series_ends_before_it_takes_of_the_reserve(tmp_path: Path) -> None:
    available = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    left = (available - (600 << 20)) >> 20
    more = f'platforms = ["vm-restore"]\ndensity = 25\nreserve = "{left}MiB"\n'
    results = run_plan(tmp_path, more)
    machines = next(each for each in list_series(results) if each.platform == "vm-restore")
    assert machines.counts[-1] < 25
    assert machines.end.startswith("one more could leave less than")
    journal = (tmp_path / "r/journal.jsonl").read_text().splitlines()[1:]
    assert {json.loads(line)["status"] for line in journal} == {"ok"}, "an end is no failure"


def test_a_series_that_was_interrupted_begins_anew(tmp_path: Path) -> None:
    """Steps of one series only: what was measured before would pass for a smaller one."""
    plan, out = tmp_path / "plan.toml", tmp_path / "r"
    plan.write_text(PLAN.replace("50ms", "200ms") + 'platforms = ["namespace"]\ndensity = 2\n')
    with subprocess.Popen(
        harness_words("run", str(plan), "--out", str(out)),
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_trials(out, 6, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    stored = len(read_outcomes(out))
    assert 6 <= stored < 18
    done = run_harness("run", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    assert "begins anew, as it was interrupted: noop" in done.stderr + done.stdout
    assert [each["trial"] for each in read_outcomes(out)] == list(range(18))
    assert [each.counts[-1] for each in list_series(load_results(out))] == [16]


def test_loaded_instances_are_a_series_of_their_own(tmp_path: Path) -> None:
    """With limits of writing, and the pressure at every step."""
    more = (
        'platforms = ["namespace"]\ndensity = 1\ndensity_load = ["idle", "loaded"]\n'
        'io = "64MiB"\ndisk = "32MiB"\n'
    )
    results = run_plan(tmp_path, more)
    found = {each.workload: (each.counts[-1], each.end) for each in list_series(results)}
    assert found == {"noop": (8, "all were started"), "steady": (8, "all were started")}
    idle, loaded = (
        [each for each in results.outcomes if "pressure" in each.details and each.workload == name]
        for name in ("noop", "steady")
    )
    assert [each.error for each in (*idle, *loaded)] == [None] * 18
    for each in (*idle, *loaded):
        shares = each.details["pressure"]
        assert isinstance(shares, Mapping) and {"cpu", "memory", "io"} == set(shares)
    assert "`steady`" in (tmp_path / "r/report.md").read_text()
