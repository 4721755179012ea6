"""Intervals, tests and corrections, held against scipy and against known distributions."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.statistics import (
    Floats,
    Summaries,
    best_coverage,
    bootstrap_median,
    correct_holm,
    draw_median_positions,
    summarise_groups,
    trimmed_p_values,
)

samples = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


def summarise(values: Floats | list[float], seed: int = 1) -> Summaries:
    array = np.asarray(values, dtype=float)
    return summarise_groups(array, np.zeros(len(array), dtype=np.int64), 1, seed)


@pytest.mark.parametrize("size", [5, 10, 11, 30, 101])
def test_intervals_agree_with_scipys_bootstrap(size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 0.3, size)
    ours = summarise(values)
    theirs = stats.bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7)
    ).bootstrap_distribution
    # a resampled median takes few values, so its quantile may fall on either side of a step
    earliest, latest = np.quantile(theirs, [0.02, 0.97]), np.quantile(theirs, [0.03, 0.98])
    assert ours.median[0] == np.median(values)
    assert earliest[0] <= ours.low[0] <= latest[0]
    assert earliest[1] <= ours.high[0] <= latest[1]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 10])
def test_positions_of_a_resamples_median_are_distributed_as_by_resampling(size: int) -> None:
    chance = np.random.default_rng(3)
    resamples = np.sort(chance.integers(0, size, (20_000, size)), axis=1)
    plain = (resamples[:, (size - 1) // 2] + resamples[:, size // 2]) / 2
    low, high = draw_median_positions(size, 5)
    assert low.min() >= 0
    assert high.max() < size
    assert np.all(low <= high)
    direct = (low + high) / 2
    for level in np.unique(plain):
        assert np.mean(direct <= level) == pytest.approx(np.mean(plain <= level), abs=0.02)


@pytest.mark.parametrize(("size", "least"), [(10, 0.92), (20, 0.92), (41, 0.93)])
def test_intervals_cover_the_median_about_as_often_as_they_say(size: int, least: float) -> None:
    values = np.random.default_rng(11).lognormal(0, 0.5, (4000, size))
    low, high = bootstrap_median(np.sort(values, axis=1), 1)
    assert least < np.mean((low <= 1) & (high >= 1)) < 0.985


@given(samples, st.floats(1e-2, 1e2))
def test_intervals_scale_with_the_values(values: list[float], factor: float) -> None:
    plain, scaled = summarise(values), summarise(np.asarray(values) * factor)
    for one, other in zip(
        (plain.median, plain.low, plain.high),
        (scaled.median, scaled.low, scaled.high),
        strict=True,
    ):
        assert other[0] == pytest.approx(one[0] * factor)


@given(samples.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_the_order_of_blocks_does_not_matter(pair: tuple[list[float], list[float]]) -> None:
    assert summarise(pair[0]) == summarise(pair[1])


@given(samples)
def test_the_median_lies_within_its_interval_and_that_within_the_sample(
    values: list[float],
) -> None:
    found = summarise(values)
    assert min(values) <= found.low[0] <= found.median[0] <= found.high[0] <= max(values)


@given(samples, st.integers(0, 2**31))
def test_the_same_seed_gives_the_same_interval(values: list[float], seed: int) -> None:
    assert summarise(values, seed) == summarise(values, seed)


@settings(max_examples=30)
@given(st.lists(samples, min_size=1, max_size=5))
def test_groups_are_summarised_as_if_alone(groups: list[list[float]]) -> None:
    values = np.concatenate([np.asarray(each) for each in groups])
    codes = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
    together = summarise_groups(values, codes, len(groups), 1)
    for number, each in enumerate(groups):
        alone = summarise(each)
        assert together.low[number] == alone.low[0]
        assert together.high[number] == alone.high[0]


def test_an_empty_group_is_missing_and_not_zero() -> None:
    found = summarise_groups(np.array([1.0]), np.array([1]), 3, 1)
    assert list(found.size) == [0, 1, 0]
    assert np.isnan(found.median[[0, 2]]).all()


def test_summarising_nothing_gives_nothing() -> None:
    found = summarise_groups(np.array([]), np.array([], dtype=np.int64), 0, 1)
    assert len(found.median) == 0


def test_a_million_values_take_seconds() -> None:
    values = np.random.default_rng(1).lognormal(size=1_000_000)
    groups = np.random.default_rng(2).integers(0, 2000, 1_000_000)
    start = time.perf_counter()
    summarise_groups(values, groups, 2000, 1)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(("size", "share"), [(0, 0), (1, 0), (3, 0.75), (5, 0.9375), (6, 0.96875)])
def test_few_blocks_cannot_promise_much(size: int, share: float) -> None:
    assert best_coverage(size) == share


def p_value(values: Floats | list[float]) -> float:
    array = np.asarray(values, dtype=float)
    return float(trimmed_p_values(array, np.zeros(len(array), dtype=np.int64), 1)[0])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_few_values_are_tested_as_students_t_does(size: int) -> None:
    values = np.random.default_rng(size).normal(0.5, 1, size)
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_trimming_is_yuens() -> None:
    """By the definition, with scipy's trimmed mean and winsorised values."""
    values = np.random.default_rng(4).normal(0.4, 1, 20)
    cut = 4
    trimmed = stats.trim_mean(values, 0.2)
    winsorised = np.asarray(stats.mstats.winsorize(values, (0.2, 0.2)))
    kept = 20 - 2 * cut
    error = np.sqrt(np.sum((winsorised - winsorised.mean()) ** 2) / (kept * (kept - 1)))
    expected = 2 * stats.t.sf(abs(trimmed / error), kept - 1)
    assert p_value(values) == pytest.approx(expected)


def test_without_any_difference_small_p_values_are_rare() -> None:
    count, size = 4000, 10
    values = np.random.default_rng(8).standard_t(4, (count, size)).ravel()
    found = trimmed_p_values(values, np.repeat(np.arange(count), size), count)
    assert 0.035 < np.mean(found < 0.05) < 0.065


def test_one_stray_block_does_not_hide_a_clear_difference() -> None:
    values = [0.5, 0.51, 0.49, 0.52, 0.5, 0.48, 0.5, 0.51, 0.49, 9.0]
    assert p_value(values) < 1e-4 < stats.ttest_1samp(values, 0).pvalue


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1.0), (0.3, 0.0), (-0.3, 0.0)])
def test_values_without_spread_are_certain(value: float, expected: float) -> None:
    assert p_value([value] * 5) == expected


def test_one_value_has_no_p() -> None:
    assert np.isnan(p_value([1.0]))


def test_holms_correction_of_a_worked_example() -> None:
    found = correct_holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    assert found[[0, 1, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(found[2])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(values: list[float]) -> None:
    plain = np.asarray(values, dtype=float)
    found = correct_holm(plain)
    assert np.all(found >= plain)
    assert np.all(found <= 1)
    assert np.all(np.diff(found[np.argsort(plain, kind="stable")]) >= 0)
