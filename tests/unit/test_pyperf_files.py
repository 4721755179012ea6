"""What pyperf's own commands make of the suites: metadata, warm-up and names."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyperf
import pytest

from harness.model import Outcome
from harness.store import Store, read_manifest, write_manifest, write_pyperf
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, write_run

SMALL = Synthetic(("namespace", "vm-direct"), ("namespace",), ("noop",), blocks=4)


def run_pyperf(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ERROR" not in done.stdout and "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("run") / "r", SMALL)
    manifest = read_manifest(folder)
    host = manifest["host"]
    assert isinstance(host, dict)
    write_manifest(folder, {**manifest, "host": {**host, "cpus": 2, "load": 0.25}})
    write_pyperf(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check",), ""),
        (("show",), "Mean +- std dev"),
        (("stats",), "Number of run with values: 4"),
        (("stats",), "Start date: 2025-03-14 09:2"),
        (("hist",), "#"),
        (("dump",), "warmup 1: "),
        (("dump", "--verbose"), "accelerator: tcg"),
        (("slowest",), "#1: "),
    ],
)
def test_a_command_of_pyperf_reads_a_suite(folder: Path, words: tuple[str, ...], said: str) -> None:
    command, *options = words
    assert said in run_pyperf(command, *options, "pyperf/vm-direct.noop.json", cwd=folder)


def test_metadata_says_where_and_how_it_was_measured(folder: Path) -> None:
    printed = run_pyperf("metadata", "pyperf/vm-direct.noop.json", cwd=folder)
    for line in (
        "accelerator: tcg", "cache: warm", "cpu_count: 2", "cpu_model_name: AMD EPYC 7763",
        "harness_version: 0.1.0", "host: bench-1", "hostname: bench-1", "image: tiny",
        "kernel: 6.18.5", "kind: vm", "load_avg_1min: 0.25", "platform: vm-direct",
        "python_version: 3.11.2", "run_id: 20250314-092653-a1b2", "workload: noop",
        "guest_kernel: 6.1.0-42-cloud-amd64",
    ):  # fmt: skip
        assert f"- {line}" in printed
    assert "guest_kernel" not in run_pyperf("metadata", "pyperf/namespace.noop.json", cwd=folder)


def test_warm_up_trials_are_warm_up_values_and_count_for_nothing(folder: Path) -> None:
    suite = pyperf.BenchmarkSuite.load(str(folder / "pyperf/namespace.noop.json"))
    ready = suite.get_benchmark("startup.ready[namespace,noop,warm]")
    assert (ready.get_nrun(), ready.get_nvalue()) == (4, 4)
    first, *others = ready.get_runs()
    outcome = next(
        each for each in build_outcomes(SMALL) if each.warmup and each.platform == "namespace"
    )
    value = next(row.value for row in outcome.measurements if row.metric == "startup.ready")
    assert first.warmups == ((1, value),)
    assert [run.warmups for run in others] == [(), (), ()]


def test_each_run_has_the_date_and_length_of_its_trial(folder: Path) -> None:
    suite = pyperf.BenchmarkSuite.load(str(folder / "pyperf/namespace.noop.json"))
    runs = suite.get_benchmark("startup.ready[namespace,noop,warm]").get_runs()
    outcomes = [
        each for each in build_outcomes(SMALL) if each.platform == "namespace" and not each.warmup
    ]
    for run, outcome in zip(runs, outcomes, strict=True):
        metadata = run.get_metadata()
        assert metadata["date"] == outcome.started_at.removesuffix("+00:00").replace("T", " ")
        assert metadata["duration"] == pytest.approx(run.values[0])
        assert metadata["trial"] == outcome.trial


def test_compare_to_pairs_two_runs_and_keeps_platforms_apart(folder: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", replace(SMALL, seed=2))
    write_pyperf(other)
    old, new = folder / "pyperf/vm-direct.noop.json", other / "pyperf/vm-direct.noop.json"
    assert "startup.ready[vm-direct,noop,warm]" in run_pyperf(
        "compare_to", "--table", "--verbose", str(old), str(new), cwd=tmp_path
    )
    names = [
        set(pyperf.BenchmarkSuite.load(str(path)).get_benchmark_names())
        for path in sorted((folder / "pyperf").iterdir())
    ]
    assert sum(map(len, names)) == len(set().union(*names))


def test_a_run_without_facts_still_has_its_suites(tmp_path: Path) -> None:
    manifest: dict[str, object] = {"run_id": "r", "host": None, "tools": [], "guest_kernel": None}
    with Store.create(tmp_path / "r", manifest) as store:
        for outcome in build_outcomes(SMALL):
            store.append(_forget(outcome))
    assert len(write_pyperf(tmp_path / "r")) == 3
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "r/pyperf/namespace.noop.json"))
    metadata = suite.get_benchmarks()[0].get_metadata()
    assert "host" not in metadata and "date" not in metadata
    assert metadata["run_id"] == "r"


def _forget(outcome: Outcome) -> Outcome:
    return replace(outcome, started_at="some day", milestones={})


def test_a_benchmark_that_was_only_warmed_up_is_none(tmp_path: Path) -> None:
    with Store.create(tmp_path / "r", build_manifest(SMALL)) as store:
        for outcome in build_outcomes(SMALL):
            if outcome.warmup:
                store.append(outcome)
    assert write_pyperf(tmp_path / "r") == []
