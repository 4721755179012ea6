"""What a run says while it goes on."""

import pytest

from harness.cli.progress import Bar, Lines, format_failure, start_listener
from harness.model import Outcome


def outcome_of(trial: int, *, block: int = 0, error: str | None = None) -> Outcome:
    return Outcome(
        block=block,
        trial=trial,
        order=0,
        platform="namespace",
        kind="container",
        accelerator="none",
        image="tiny",
        workload="noop",
        cache="warm",
        instances=1,
        warmup=False,
        started_at="2025-01-01T00:00:00+00:00",
        status="failed" if error else "ok",
        error=error,
        hint="look there" if error else None,
    )


def test_a_failed_trial_is_one_line_with_trial_reason_and_remedy() -> None:
    line = format_failure(outcome_of(7, error="it broke"))
    assert line == "trial 7, namespace noop, failed: it broke (look there)"


def test_a_log_gets_a_line_for_each_block_and_each_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    lines.start(4, done=0)
    for trial in range(4):
        lines.advance(outcome_of(trial, block=trial // 2, error="it broke" if trial == 1 else None))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "4 trials to run"
    assert [line.split(",")[0] for line in said[1:]] == [
        "1/4 trials", "trial 1", "3/4 trials", "4/4 trials"
    ]  # fmt: skip
    assert said[-1].endswith("1 failed, about 0 s left")


def test_a_resumed_run_counts_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.start(10, done=8)
    assert capsys.readouterr().err == "2 trials to run, 8 are stored\n"


def test_without_a_terminal_there_is_no_bar() -> None:
    assert isinstance(start_listener(), Lines)


def test_a_bar_draws_no_frame_of_its_own_accord() -> None:
    bar = Bar()
    bar.start(2, done=0)
    try:
        assert bar.progress is not None
        assert not bar.progress.live.auto_refresh
        for trial in range(2):
            bar.advance(outcome_of(trial))
        assert bar.progress.finished
    finally:
        bar.close()
