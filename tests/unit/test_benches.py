"""The benchmarks: from any working folder, with gaps that are told, and for what this host has."""

import json
from pathlib import Path
from typing import Any

import pytest

from benches import ROOT, available, history
from benches.analysis import measure_analysis
from benches.suite.figure import divide
from harness import doctor

COMMIT = "0123456789abcdef"


def test_the_analysis_is_measured_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = measure_analysis(blocks=6, workloads=1, looped=1)
    assert found["seconds"] > 0 and found["comparisons"] > 0


def test_every_process_of_a_benchmark_is_started_in_the_checkout() -> None:
    for path in (ROOT / "benches").glob("*.py"):
        text = path.read_text()
        starts = text.count("[sys.executable, ")
        assert text.count("cwd=ROOT") >= starts, path.name


# ---- gaps ---------------------------------------------------------------------------------------


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """As asv stores them: null for a failure, NaN for what a benchmark cannot measure."""
    (folder / "here").mkdir()
    (folder / "benchmarks.json").write_text(json.dumps({name: {} for name in results}))
    rows = {name: list(each) for name, each in results.items()}
    document = {"result_columns": ["result", "params"], "results": rows}
    (folder / f"here/{COMMIT[:8]}-existing.json").write_text(json.dumps(document))


def test_a_gap_is_a_failure_or_a_thing_that_this_host_has_not(tmp_path: Path) -> None:
    nan = float("nan")
    results: dict[str, Any] = {
        "a.kept": ([1.0], []),
        "a.failed": (None, []),
        "a.skipped": ([nan], []),
        "b.some": ([1.0, nan, None, 2.0], [["'x'", "'y'"], ["1", "2"]]),
        "c.cache": (None, [["'x'", "'y'"]]),
    }
    write_results(tmp_path, results)
    gaps = list(history.read_gaps(tmp_path, COMMIT))
    assert history.format_gaps(gaps) == [
        "failed, and missing in the pages: a.failed; b.some('y', 1); c.cache('x'); c.cache('y')",
        "not on this host: a.skipped; b.some('x', 2)",
    ]
    assert history.format_gaps([]) == []


# ---- the repository -----------------------------------------------------------------------------


def test_asv_is_told_of_the_checkout_as_it_is() -> None:
    config = history.build_config(ROOT, "HEAD")
    assert config["branches"] == ["HEAD"]
    assert config["repo"] == str(ROOT)
    assert Path(config["benchmark_dir"]).is_dir()
    assert all(Path(config[f"{name}_dir"]).is_absolute() for name in ("html", "results", "env"))


@pytest.mark.parametrize("count", [0, 2])
def test_git_reads_a_checkout_of_another_user(count: int) -> None:
    found = history.build_environment(ROOT, {"GIT_CONFIG_COUNT": str(count)} if count else {})
    assert found["GIT_CONFIG_COUNT"] == str(count + 1)
    assert found[f"GIT_CONFIG_KEY_{count}"] == "safe.directory"
    assert found[f"GIT_CONFIG_VALUE_{count}"] == str(ROOT)


def test_a_folder_without_a_history_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(history, "ROOT", tmp_path)
    assert history.main() == 3
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path} has no commit to measure: ")
    assert told.endswith("(the history is kept by commit: clone the repository with git)\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert history.main() == 3
    assert "git cannot be run: " in capsys.readouterr().err


# ---- what this host has -------------------------------------------------------------------------


def test_a_platform_that_does_not_run_here_is_named_and_takes_none_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = doctor.check_platform

    def refuse(name: str, *words: Any, **options: Any) -> Any:
        if name == "crun":
            return doctor.PlatformCheck(name, None, False, "it is not installed")
        return check(name, *words, **options)

    monkeypatch.setattr(doctor, "check_platform", refuse)
    assert available.list_available(["process", "crun", "namespace"]) == ["process", "namespace"]
    assert capsys.readouterr().err == "left out: crun: it is not installed\n"


def test_a_ratio_to_what_was_not_measured_is_no_figure() -> None:
    with pytest.raises(NotImplementedError):
        divide({"a": [1.0]}, "a", "b")
