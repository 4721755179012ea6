"""Intervals, trends and corrections, held against scipy and against known distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.quantiles import (
    count_least_blocks,
    find_coverage,
    find_lower_place,
    find_quantile_interval,
    find_quantile_refusal,
)
from harness.analysis.statistics import (
    CONFIDENCE,
    Floats,
    Integers,
    Summaries,
    best_coverage,
    bootstrap_groups,
    bootstrap_median,
    correct_holm,
    draw_median_positions,
    summarise_groups,
)
from harness.analysis.trends import find_trends

samples = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


def number(values: Floats) -> tuple[Floats, Integers, int]:
    """Rows of values as one group each."""
    count, size = values.shape
    return values.ravel(), np.repeat(np.arange(count), size), count


def summarise(values: Floats | list[float], blocks: Integers | None = None) -> Summaries:
    return summarise_groups(*number(np.asarray(values, dtype=float)[None]), blocks)


@pytest.mark.parametrize("size", [5, 10, 11, 30, 101])
def test_the_bootstrap_agrees_with_scipys(size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 0.3, size)
    low, high = bootstrap_groups(*number(values[None]), 1)
    theirs = stats.bootstrap(
        (values,), np.median, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7)
    ).bootstrap_distribution
    # a resampled median takes few values, so its quantile may fall on either side of a step
    earliest, latest = np.quantile(theirs, [0.02, 0.97]), np.quantile(theirs, [0.03, 0.98])
    assert earliest[0] <= low[0] <= latest[0]
    assert earliest[1] <= high[0] <= latest[1]


@pytest.mark.parametrize("size", [1, 2, 5, 10, 101, 1000])
def test_the_bootstrap_gives_to_the_bit_what_all_of_its_medians_written_out_give(size: int) -> None:
    chance = np.random.default_rng(size)
    rows = np.sort(np.vstack([chance.lognormal(0, 0.3, (9, size)), chance.integers(0, 4, size)]))
    lower, upper = draw_median_positions(size, 5)
    written_out = (rows[:, lower] + rows[:, upper]) / 2
    tail = (1 - CONFIDENCE) / 2
    expected = np.quantile(written_out, (tail, 1 - tail), axis=1)
    assert np.array_equal(bootstrap_median(rows, 5), expected)


def test_the_bootstrap_of_an_empty_group_is_missing() -> None:
    low, high = bootstrap_groups(np.ones(3), np.array([1, 1, 1]), 3, 1)
    assert np.isnan([low[0], high[2]]).all()
    assert low[1] == high[1] == 1


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


@pytest.mark.parametrize("size", [6, 7, 10, 25, 100])
def test_the_ends_for_a_median_are_those_of_hettmansperger_and_sheather(size: int) -> None:
    """By their formula: coverage of neighbouring intervals, and the weight between them."""

    def cover(rank: int) -> float:
        return float(1 - 2 * stats.binom.cdf(rank - 1, size, 0.5))

    rank = max(each for each in range(1, size // 2 + 1) if cover(each) >= 0.95)
    between = (cover(rank) - 0.95) / (cover(rank) - cover(rank + 1))
    weight = (size - rank) * between / (rank + (size - 2 * rank) * between)
    assert find_lower_place(size, 0.5) == pytest.approx(rank - 1 + weight)


@pytest.mark.parametrize(("share", "least"), [(0.5, 6), (0.95, 72), (0.99, 368), (0.05, 72)])
def test_a_quantile_is_refused_below_the_blocks_that_it_needs(share: float, least: int) -> None:
    assert count_least_blocks(share) == least
    assert find_quantile_refusal(least, share) == ""
    assert find_coverage(least, share) >= 0.95
    reason = f"{least} blocks are needed, {least - 1} were measured"
    assert find_quantile_refusal(least - 1, share) == reason


@pytest.mark.parametrize(("size", "share"), [(72, 0.95), (100, 0.95), (300, 0.95), (400, 0.99)])
def test_intervals_of_quantiles_cover_as_they_say(size: int, share: float) -> None:
    values = np.sort(np.random.default_rng(5).lognormal(0, 0.5, (10_000, size)), axis=1)
    low, high = find_quantile_interval(values, share)
    truth = stats.lognorm.ppf(share, 0.5)
    assert 0.94 < np.mean((low <= truth) & (truth <= high)) < 0.965


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
def test_without_their_blocks_the_order_of_values_does_not_matter(
    pair: tuple[list[float], list[float]],
) -> None:
    assert summarise(pair[0]) == summarise(pair[1])


@given(samples)
def test_the_median_lies_within_its_interval_and_that_within_the_sample(
    values: list[float],
) -> None:
    for found in (summarise(values), summarise(sorted(values), np.arange(len(values)))):
        assert min(values) <= found.low[0] <= found.median[0] <= found.high[0] <= max(values)


@settings(max_examples=30)
@given(st.lists(samples, min_size=1, max_size=5))
def test_groups_are_summarised_as_if_alone(groups: list[list[float]]) -> None:
    values = np.concatenate([np.asarray(each) for each in groups])
    codes = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
    blocks = np.concatenate([np.arange(len(each)) for each in groups])
    together = summarise_groups(values, codes, len(groups), blocks)
    for place, each in enumerate(groups):
        alone = summarise(each, np.arange(len(each)))
        assert together.low[place] == alone.low[0]
        assert together.high[place] == alone.high[0]
        assert together.drift[place] == alone.drift[0]


def test_an_empty_group_is_missing_and_not_zero() -> None:
    found = summarise_groups(np.array([1.0]), np.array([1]), 3)
    assert list(found.size) == [0, 1, 0]
    assert np.isnan(found.median[[0, 2]]).all()


def test_summarising_nothing_gives_nothing() -> None:
    found = summarise_groups(np.array([]), np.array([], dtype=np.int64), 0)
    assert len(found.median) == 0


def test_a_clear_trend_is_found_and_taken_out_of_the_interval() -> None:
    rise = np.linspace(1, 1.2, 20)
    values = rise * np.random.default_rng(1).lognormal(0, 0.01, 20)
    shuffled = np.random.default_rng(2).permutation(20)
    found, flat = summarise(values[shuffled], shuffled), summarise(values)
    assert found.drift[0] == pytest.approx(0.2, abs=0.02)
    assert found.high[0] - found.low[0] < (flat.high[0] - flat.low[0]) / 3
    assert flat.drift[0] == 0


def test_values_without_a_trend_rarely_have_one() -> None:
    for size in (6, 10, 50):
        values = np.random.default_rng(size).lognormal(0, 0.3, (10_000, size))
        assert np.mean(find_trends(values).slope != 0) < 0.013


def test_a_slope_is_theils_and_its_interval_sens() -> None:
    values = np.arange(12) * 0.3 + np.random.default_rng(3).normal(0, 0.3, 12)
    found, theirs = find_trends(values[None]), stats.theilslopes(values)
    assert found.slope[0] == pytest.approx(theirs.slope)
    assert 2 * found.error[0] == pytest.approx(theirs.high_slope - theirs.low_slope, rel=0.1)


@pytest.mark.parametrize(("size", "share"), [(0, 0), (1, 0), (3, 0.75), (5, 0.9375), (6, 0.96875)])
def test_few_blocks_cannot_promise_much(size: int, share: float) -> None:
    assert best_coverage(size) == share


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
