"""The numbers of `compare`, held against scipy, against brute force and against simulation."""

import numpy as np
import pytest
from scipy import stats

from harness.analysis.two_samples import compare_samples, find_p_values, find_shifts

CHANCE = np.random.default_rng(7)


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 9), (10, 10), (12, 25), (60, 7)])
def test_p_is_that_of_welch(first: int, second: int) -> None:
    base, new = CHANCE.normal(0, 0.1, (50, first)), CHANCE.normal(0.05, 0.2, (50, second))
    found, _ = find_p_values(np.sort(base, axis=1), np.sort(new, axis=1))
    expected = stats.ttest_ind(base, new, axis=1, equal_var=False).pvalue
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_shift_is_the_median_of_all_differences() -> None:
    base, new = CHANCE.lognormal(0, 1, 11), CHANCE.lognormal(0.3, 1, 8)
    brute = np.median([two - one for one in base for two in new])
    found = compare_samples([(base, new)], 1)
    assert found.shift[0] == pytest.approx(brute)


def test_the_shift_of_large_samples_is_near_the_exact_one() -> None:
    base, new = CHANCE.normal(0, 1, 3000), CHANCE.normal(0.5, 1, 2000)
    exact = np.median(new[None, :] - base[:, None])
    found = find_shifts(np.sort(base)[None, :], np.sort(new)[None, :])
    assert found[0] == pytest.approx(exact, abs=0.005)


def test_the_published_shift_of_a_worked_example_comes_out() -> None:
    """Hollander and Wolfe, Nonparametric Statistical Methods, 1973, p. 69: permeability constants
    of the human chorioamnion at term and at 12 to 26 weeks; R's `wilcox.test` prints 0.305.
    """
    term = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    weeks = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    assert compare_samples([(weeks, term)], 1).shift[0] == pytest.approx(0.305)


@pytest.mark.parametrize("size", [6, 10, 20])
@pytest.mark.parametrize("shape", ["log-normal", "bimodal"])
def test_the_interval_of_the_ratio_holds_the_truth_as_often_as_it_says(
    size: int, shape: str
) -> None:
    """At least 93 %; a difference of two medians makes the bootstrap wide rather than narrow."""
    chance = np.random.default_rng(size)
    pairs = 1500
    base, new = (_draw(chance, shape, (pairs, size)) for _ in range(2))
    found = compare_samples(list(zip(base, new * 1.3, strict=True)), 3)
    covered = np.mean((found.low <= 1.3) & (found.high >= 1.3))
    assert 0.93 <= covered <= 0.995
    narrow = np.abs(np.log(found.ratio / 1.3)) <= 0.6 * np.log(found.high / found.low) / 2
    assert narrow.mean() < 0.93  # an interval of 0.6 of its width would be caught


def _draw(chance: np.random.Generator, shape: str, size: tuple[int, int]) -> np.ndarray:
    logs = chance.normal(0, 0.15, size)
    if shape == "bimodal":
        logs = chance.normal(0, 0.05, size) + np.where(chance.random(size) < 0.3, 0.4, 0.0)
    return np.exp(logs)


def test_swapping_the_samples_gives_the_reciprocal_and_order_does_not_matter() -> None:
    base, new = CHANCE.lognormal(0, 0.2, 9), CHANCE.lognormal(0.1, 0.2, 9)
    one, other = compare_samples([(base, new)], 5), compare_samples([(new, base)], 5)
    assert one.ratio[0] * other.ratio[0] == pytest.approx(1)
    assert one.p[0] == pytest.approx(other.p[0])
    assert one.shift[0] == pytest.approx(-other.shift[0])
    again = compare_samples([(base[::-1], CHANCE.permutation(new))], 5)
    assert (again.low[0], again.high[0]) == (one.low[0], one.high[0])


def test_many_comparisons_give_what_each_gives_alone() -> None:
    pairs = [(CHANCE.lognormal(0, 0.1, n), CHANCE.lognormal(0, 0.1, m))
             for n, m in [(5, 5), (10, 7), (5, 5), (2, 1), (30, 30)]]  # fmt: skip
    together = compare_samples(pairs, 2)
    for number, pair in enumerate(pairs):
        alone = compare_samples([pair], 2)
        for name in ("ratio", "low", "high", "shift", "p", "blur"):
            assert getattr(together, name)[number] == pytest.approx(
                getattr(alone, name)[0], nan_ok=True
            ), name


def test_constant_samples_are_either_the_same_or_certainly_different() -> None:
    same, more = np.full(5, 7.0), np.full(5, 8.0)
    found = compare_samples([(same, same), (same, more)], 1)
    assert found.p.tolist() == [1.0, 0.0]
    assert found.low[1] == found.high[1] == pytest.approx(8 / 7)


def test_values_without_a_ratio_have_none_but_a_shift() -> None:
    found = compare_samples([(np.array([0.0, 1, 2]), np.array([1.0, 2, 3]))], 1)
    assert np.isnan([found.ratio[0], found.low[0], found.p[0]]).all()
    assert found.shift[0] == 1


def test_one_value_has_no_p() -> None:
    found = compare_samples([(np.array([1.0]), np.array([2.0]))], 1)
    assert np.isnan(found.p[0])
    assert found.ratio[0] == 2


def test_no_comparison_is_no_error() -> None:
    assert len(compare_samples([], 1).ratio) == 0
