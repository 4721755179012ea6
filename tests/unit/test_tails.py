"""p50, p95 and p99: given where there are blocks enough, and refused where there are not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.analysis.aggregate import load_samples
from harness.analysis.method import build_method
from harness.analysis.results import load_results
from harness.analysis.tails import (
    METRICS,
    build_tails,
    compare_quantiles,
    divide_quantiles,
    summarise_quantiles,
)
from tests.unit.synthetic import Synthetic, build_outcomes, write_run

PLAN = Synthetic(("namespace", "vm-direct"), ("namespace",), ("noop",), blocks=80)


def test_a_run_of_80_blocks_has_p95_and_no_p99(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r", PLAN))
    found = summarise_quantiles(samples, METRICS)
    machine = found[found["platform"] == "vm-direct"].to_dict("records")
    rows = {row["share"]: row for row in machine}
    values = samples[(samples["platform"] == "vm-direct") & (samples["metric"] == "startup.ready")]
    assert rows[0.95]["value"] == np.quantile(values["value"], 0.95)
    assert rows[0.5]["high"] < rows[0.95]["low"] < rows[0.95]["high"]
    assert rows[0.99]["withheld"] == "368 blocks are needed, 80 were measured"
    assert np.isnan(rows[0.99]["value"])


def test_quantiles_of_disturbed_trials_are_withheld(tmp_path: Path) -> None:
    marks = {each.trial: ("steal",) for each in build_outcomes(PLAN) if each.block > 20}
    samples = load_samples(write_run(tmp_path / "r", replace(PLAN, marks=marks)))
    reasons = set(summarise_quantiles(samples, METRICS)["withheld"])
    assert any(reason.startswith("60 of 80 trials were disturbed") for reason in reasons)
    assert "" not in reasons


def test_ratios_of_quantiles_are_paired_and_leave_the_second_arm_out(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r", PLAN))
    found = compare_quantiles(samples, "namespace", 1, METRICS)
    assert set(found["platform"]) == {"vm-direct"}
    row = found.set_index("share").loc[0.95]
    assert row["low"] < row["ratio"] < row["high"]
    assert row["ratio"] == pytest.approx(890, rel=0.1)
    samples.loc[samples["platform"] == "namespace", "value"] = 0.0
    reasons = compare_quantiles(samples, "namespace", 1, METRICS)["withheld"]
    assert set(reasons) == {"a value is not above zero: no ratio"}


def test_the_bootstrap_of_a_ratio_agrees_with_scipys() -> None:
    chance = np.random.default_rng(4)
    one, other = (chance.lognormal(0, 0.3, 120) for _ in range(2))

    def divide(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        ratio: np.ndarray = np.quantile(a, 0.95, axis=axis) / np.quantile(b, 0.95, axis=axis)
        return ratio

    theirs = stats.bootstrap(
        (one, other), divide, paired=True, method="percentile", n_resamples=10_000, rng=3
    ).confidence_interval
    _, low, high = divide_quantiles(one, other, 0.95, 1)
    assert low == pytest.approx(theirs.low, rel=0.02)
    assert high == pytest.approx(theirs.high, rel=0.02)


def test_pairs_that_drift_together_keep_a_narrow_ratio() -> None:
    level = np.linspace(1, 3, 100)
    ratio, low, high = divide_quantiles(2 * level, level, 0.95, 1)
    assert (ratio, low, high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_report_gives_tails_or_says_why_not(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", PLAN))
    table = build_tails(results)
    assert table is not None
    assert table.head[-3:] == ("p50", "p95", "p99")
    machine = next(row for row in table.rows if row.platform == "vm-direct")
    assert "×" in machine.cells[3].note
    assert machine.cells[4].text == "withheld"
    assert "p99 is not given: 368 blocks are needed, 80 were measured." in build_method(results)
    short = load_results(write_run(tmp_path / "s", replace(PLAN, blocks=10)))
    assert build_tails(short) is None
    assert "p95 is not given: 72 blocks are needed, 10 were measured." in build_method(short)
