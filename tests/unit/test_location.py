"""Tests on paired log ratios: Student's, sign flips, equivalence and Hodges–Lehmann's shift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.arrays import Floats
from harness.analysis.location import (
    FLIPS,
    find_equivalence_p_values,
    find_least_p,
    find_means,
    find_p_values,
    find_shifts,
    find_signed_rank,
    flip_signs,
)
from tests.unit.test_statistics import number

numbers = st.lists(st.floats(-100, 100).map(lambda x: round(x, 6)), min_size=1, max_size=30)


def p_value(values: Floats | list[float]) -> float:
    found = find_means(*number(np.asarray(values, dtype=float)[None]))
    return float(find_p_values(found)[0])


@pytest.mark.parametrize("size", [2, 3, 10, 57])
def test_differences_are_tested_as_students_t_does(size: int) -> None:
    values = np.random.default_rng(size).normal(0.5, 1, size)
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1.0), (0.3, 0.0), (-0.3, 0.0)])
def test_values_without_spread_are_certain(value: float, expected: float) -> None:
    assert p_value([value] * 5) == expected


def test_one_value_has_no_p() -> None:
    assert np.isnan(p_value([1.0]))


def equivalence(values: Floats | list[float], bound: float) -> float:
    found = find_means(*number(np.asarray(values, dtype=float)[None]))
    return float(find_equivalence_p_values(found, bound)[0])


def test_equivalence_is_two_one_sided_tests() -> None:
    values = np.array([0.02, -0.01, 0.03, 0.005])
    upper = stats.ttest_1samp(values, 0.05, alternative="less").pvalue
    lower = stats.ttest_1samp(values, -0.05, alternative="greater").pvalue
    assert equivalence(values, 0.05) == pytest.approx(max(upper, lower))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (0.04, 0.0), (0.06, 1.0), (-0.06, 1)])
def test_equivalence_without_spread_is_certain(value: float, expected: float) -> None:
    assert equivalence([value] * 5, 0.05) == expected


def test_what_differs_by_the_threshold_is_rarely_called_equivalent() -> None:
    values = np.random.default_rng(9).normal(0.05, 0.05, (10_000, 10))
    found = find_equivalence_p_values(find_means(*number(values)), 0.05)
    assert np.mean(found < 0.05) < 0.058


def flips(values: Floats | list[float], seed: int = 1) -> float:
    return float(flip_signs(*number(np.asarray(values, dtype=float)[None]), seed)[0])


@pytest.mark.parametrize("size", [2, 5, 9, 12, 15])
def test_sign_flips_are_those_of_scipy(size: int) -> None:
    values = np.random.default_rng(size).normal(0.3, 1, size)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert flips(values) == pytest.approx(theirs.pvalue)


def test_random_sign_flips_agree_with_all_of_them() -> None:
    values = np.random.default_rng(1).normal(0.35, 1, 18)
    signs = 1 - 2 * (np.arange(2**18)[:, None] >> np.arange(18) & 1)
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    assert flips(values) == pytest.approx(exact, abs=5 * np.sqrt(exact / FLIPS))


@pytest.mark.parametrize("size", [1, 4, 10, 15, 40, 60])
def test_a_difference_in_every_block_has_the_least_p_that_there_is(size: int) -> None:
    assert flips(1 + np.random.default_rng(size).random(size)) == find_least_p(size)


@pytest.mark.parametrize("size", [6, 10, 20, 60])
def test_sign_flips_reject_no_more_than_they_say(size: int) -> None:
    """Exact whatever the distribution: here with tails so heavy that there is no mean."""
    values = np.random.default_rng(size).standard_cauchy((4000, size))
    assert np.mean(flip_signs(*number(values), 1) <= 0.05) < 0.061


@settings(max_examples=40)
@given(numbers)
def test_shifts_are_the_median_of_walsh_averages(values: list[float]) -> None:
    shift, low, high = find_shifts(*number(np.asarray(values)[None]))
    pairs = [(a + b) / 2 for i, a in enumerate(values) for b in values[i:]]
    assert shift[0] == pytest.approx(np.median(pairs))
    assert min(values) <= low[0] <= shift[0] <= high[0] <= max(values)


@pytest.mark.parametrize("size", [6, 9, 25])
def test_the_interval_of_a_shift_inverts_wilcoxons_test(size: int) -> None:
    """Just outside of the interval, and only there, scipy's exact test rejects at 5 %."""
    values = np.random.default_rng(size).normal(0, 1, size)
    _, low, high = (float(each[0]) for each in find_shifts(*number(values[None])))
    for end, out in ((low, -1e-9), (high, 1e-9)):
        assert stats.wilcoxon(values - end - out, method="exact").pvalue <= 0.05
        assert stats.wilcoxon(values - end + out, method="exact").pvalue > 0.05


@pytest.mark.parametrize(("size", "rank"), [(1, 1), (5, 1), (6, 1), (8, 4), (10, 9), (20, 53)])
def test_ranks_are_those_of_the_tables_of_wilcoxons_test(size: int, rank: int) -> None:
    """One more than the critical value for 5 % two-sided (0, 3, 8 and 52 in the usual tables)."""
    assert find_signed_rank(size) == rank
