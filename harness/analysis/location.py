"""Tests of where paired log ratios lie: is there a difference, and is it too small to matter?

Three answers stand side by side, each for many groups at once:

- Student's t-test on log ratios feeds the verdict. At ten blocks its p can become small enough to
  survive Holm's correction over hundreds of comparisons, and that far out it still holds what it
  says. Yuen's trimmed t-test, which a stray block hides less from, does not: over 100 comparisons
  of a platform with itself, at ten blocks, it found a false difference in 9 % of tables of
  log-normal noise and in 8 % of bimodal noise (Student's: 5 and 4 %), at six blocks in 32 %. A
  stray block makes Student's test call too little, never too much.
- The sign-flip permutation test assumes nothing but that a block's two arms can be exchanged. With
  ten blocks its least p is 2/1024, which no correction over more than 25 comparisons leaves below
  5 %: it cannot feed the verdict of a run, so it is shown beside it.
- Two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987) with the same t say
  whether a ratio lies within the practical threshold.

The shift is Hodges and Lehmann's (Ann. Math. Statist. 34, 1963), the median of all Walsh averages,
with the interval that belongs to Wilcoxon's signed-rank test.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.analysis.arrays import Floats, Integers, iterate_rows
from harness.analysis.quantiles import CONFIDENCE

FLIPS = 10_000
"""Random sign flips where there are too many to go through all."""

_EXACT = 15
"""Up to so many blocks every one of the 2^n sign flips is looked at."""


@dataclass(frozen=True, slots=True)
class Means:
    """Mean of each group with its standard error and degrees of freedom.

    NaN for groups of fewer than two values.
    """

    mean: Floats
    error: Floats
    freedom: Floats


def find_means(values: Floats, groups: Integers, count: int) -> Means:
    """Means and standard errors of ``values`` by ``groups`` (0 to ``count`` − 1)."""
    mean, error, freedom = (np.full(count, np.nan) for _ in range(3))
    for part, rows in iterate_rows(values, groups, count, lambda each: 2 * each):
        size = rows.shape[1]
        if size > 1:
            mean[part] = rows.mean(axis=1)
            spread = rows.std(axis=1, ddof=1) / np.sqrt(size)
            # values that are all the same have a spread of rounding errors
            error[part] = np.where(spread > 1e-12 * np.abs(mean[part]), spread, 0.0)
            freedom[part] = size - 1
    return Means(mean, error, freedom)


def find_p_values(found: Means) -> Floats:
    """Two-sided p of «the location is 0» for each group; NaN for fewer than two values."""
    return 2 * _find_tail(np.abs(found.mean), found)


def find_equivalence_p_values(found: Means, bound: float) -> Floats:
    """p of «the location is at least ``bound`` away from 0»: the larger of two one-sided tests."""
    return np.maximum(_find_tail(bound - found.mean, found), _find_tail(bound + found.mean, found))


def _find_tail(distance: Floats, found: Means) -> Floats:
    """One-sided p of a distance; values without any spread are at 0 or infinitely far from it."""
    from scipy import special

    apart = np.sign(distance) * np.where(distance == 0, 0.0, np.inf)
    score = np.divide(distance, found.error, out=apart, where=found.error > 0)
    score[np.isnan(found.mean)] = np.nan
    tail: Floats = special.stdtr(found.freedom, -score)
    return tail


def flip_signs(values: Floats, groups: Integers, count: int, seed: int) -> Floats:
    """Two-sided p of the paired permutation test of each group's mean; NaN where it is empty.

    Exact up to 15 blocks; above, with 10 000 random flips, and the least p is 1/10 001 (Phipson
    and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010: what was seen counts as a flip).
    """
    found = np.full(count, np.nan)
    for part, rows in iterate_rows(values, groups, count, lambda each: _count_flips(each)):
        size = rows.shape[1]
        signs = _build_signs(size, seed)
        seen = np.abs(rows.sum(axis=1))
        slack = 1e-9 * np.abs(rows).sum(axis=1)  # sums that are equal but for rounding
        flipped = np.abs(rows @ signs)
        reached = np.count_nonzero(flipped >= (seen - slack)[:, None], axis=1)
        extra = 0 if size <= _EXACT else 1
        found[part] = (reached + extra) / (signs.shape[1] + extra)
    return found


def find_least_p(size: int) -> float:
    """The smallest p that `flip_signs` can give for ``size`` blocks."""
    return 2.0 ** (1 - size) if size <= _EXACT else 1 / (FLIPS + 1)


def _count_flips(size: int) -> int:
    return 2 ** (size - 1) if size <= _EXACT else FLIPS


@cache
def _build_signs(size: int, seed: int) -> Floats:
    """Signs of the blocks (size × flips); a flip and its opposite have the same absolute sum."""
    if size <= _EXACT:
        bits = np.arange(2 ** (size - 1)) >> np.arange(size)[:, None] & 1
    else:
        bits = np.random.default_rng((seed, size)).integers(0, 2, (size, FLIPS))
    signs: Floats = np.where(bits, -1.0, 1.0)
    return signs


def find_shifts(values: Floats, groups: Integers, count: int) -> tuple[Floats, Floats, Floats]:
    """Hodges–Lehmann estimate of each group, with its 95 % interval; NaN for an empty group.

    The interval's ends are Walsh averages whose rank comes from the exact distribution of the
    signed-rank sum; below six values it is the whole range, and its coverage less than 95 %.
    """
    shift, low, high = (np.full(count, np.nan) for _ in range(3))
    for part, rows in iterate_rows(values, groups, count, lambda each: each * (each + 1)):
        size = rows.shape[1]
        first, second = np.triu_indices(size)
        averages = (rows[:, first] + rows[:, second]) / 2
        rank = find_signed_rank(size)
        ends = [rank - 1, len(first) - rank]
        middle = [(len(first) - 1) // 2, len(first) // 2]
        averages = np.partition(averages, sorted({*ends, *middle}), axis=1)
        shift[part] = averages[:, middle].mean(axis=1)
        low[part], high[part] = averages[:, ends].T
    return shift, low, high


@cache
def find_signed_rank(size: int) -> int:
    """The rank from 1 of the Walsh average that is the lower end of the interval (size values).

    The largest rank r for which P(signed-rank sum < r) is at most 2.5 %, by the exact
    distribution; 1 where no rank is.
    """
    chances = np.ones(1)
    for rank in range(1, size + 1):
        grown = np.zeros(len(chances) + rank)
        grown[: len(chances)] += chances / 2
        grown[rank:] += chances / 2
        chances = grown
    below = np.cumsum(chances)
    return max(int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right")), 1)
