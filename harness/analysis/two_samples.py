"""Two independent samples of blocks against each other, many comparisons at once: plain numpy.

Between two runs nothing is paired: a block of one has no partner in the other. The unit of
replication is the block, never the sample.

- The interval is that of the ratio of medians: both samples are resampled on their own (percentile
  bootstrap, 10 000 resamples).
- The p-value is Welch's (Biometrika 34, 1947) on the logarithms, so that the two runs may be of
  different noise. Trimmed means (Yuen's test) would shrug off a stray block, but far out, where the
  correction over many comparisons looks, they find differences that are none where values have two
  modes. A permutation test needs equal noise on both sides, and has a least p: 0.002 for 6 + 6
  blocks, which the correction over 25 comparisons takes away, and 0.1 for 3 + 3.
- The shift is Hodges and Lehmann's (Ann. Math. Statist. 34, 1963): the median of all differences.

The order of blocks does not matter, and swapping the samples gives exactly the reciprocal ratio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.analysis.statistics import Floats, Integers, draw_median_positions

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 10_000
_Z_POWER, _Z_CONFIDENCE = 0.8416, 1.9600
"""Normal quantiles at 80 % and 97.5 %."""

POINT_SHARE = _Z_POWER / (_Z_POWER + _Z_CONFIDENCE)
"""The part of `Differences.blur` by which a ratio alone must lie beyond a bound for 80 % power."""

_CELLS = 10_000_000
"""Most resampled medians, or differences, that are held in memory at once."""

_MOST_PAIRED = 1000
"""A larger sample goes into the shift as that many of its quantiles."""

Samples = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Differences:
    """One entry per comparison.

    ``base`` and ``new`` are medians, ``ratio`` that of new over base, with ``low`` and ``high``;
    ``shift`` is in the values' unit; ``p`` is not corrected; ``blur`` is how far, on the logarithm,
    a change must lie beyond a bound to be found with 80 % power. NaN where it cannot be known:
    ``p`` and ``blur`` of fewer than two values, all but medians and shift of values that have no
    ratio.
    """

    base: Floats
    new: Floats
    ratio: Floats
    low: Floats
    high: Floats
    shift: Floats
    p: Floats
    blur: Floats


def compare_samples(pairs: Sequence[Samples], seed: int) -> Differences:
    """Compare each pair of one-dimensional samples, base first; both need at least one value."""
    columns = np.full((8, len(pairs)), np.nan)
    for members, base, new in _iterate_sizes(pairs):
        columns[0, members], columns[1, members] = np.median(base, axis=1), np.median(new, axis=1)
        columns[5, members] = find_shifts(base, new)
        positive = (base[:, 0] > 0) & (new[:, 0] > 0)
        kept, base, new = members[positive], base[positive], new[positive]
        if len(kept) == 0:
            continue
        columns[2, kept] = columns[1, kept] / columns[0, kept]
        columns[3, kept], columns[4, kept] = bootstrap_ratios(base, new, seed)
        columns[6, kept], blur = find_p_values(np.log(base), np.log(new))
        # The interval of the medians has to clear the bound, and may be the wider of the two.
        half = np.log(columns[4, kept] / columns[3, kept]) / 2
        columns[7, kept] = np.maximum(blur, half * (1 + _Z_POWER / _Z_CONFIDENCE))
    return Differences(*columns)


def _iterate_sizes(pairs: Sequence[Samples]) -> Iterator[tuple[Integers, Floats, Floats]]:
    """Pairs of the same two sizes together, their values sorted (pairs × size)."""
    sizes = np.array([(len(base), len(new)) for base, new in pairs], dtype=np.int64).reshape(-1, 2)
    for size in np.unique(sizes, axis=0):
        members = np.flatnonzero((sizes == size).all(axis=1))
        width = max(RESAMPLES, int(size.sum()), int(np.minimum(size, _MOST_PAIRED).prod()))
        for part in np.array_split(members, -(-len(members) * width // _CELLS)):
            base = np.sort(np.stack([pairs[each][0] for each in part]).astype(float), axis=1)
            new = np.sort(np.stack([pairs[each][1] for each in part]).astype(float), axis=1)
            yield part, base, new


def bootstrap_ratios(base: Floats, new: Floats, seed: int) -> tuple[Floats, Floats]:
    """Interval of median(new) / median(base) for rows of sorted positive values (pairs × size)."""
    logs = np.log(_resample_medians(new, 2 * seed + 1) / _resample_medians(base, 2 * seed))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(logs, (tail, 1 - tail), axis=1)
    return np.exp(low), np.exp(high)


def _resample_medians(rows: Floats, seed: int) -> Floats:
    lower, upper = _draw_positions(rows.shape[1], seed)
    return np.asarray((rows[:, lower] + rows[:, upper]) / 2, dtype=np.float64)


@lru_cache(maxsize=32)
def _draw_positions(size: int, seed: int) -> tuple[Integers, Integers]:
    return draw_median_positions(size, seed)


def find_p_values(base: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Two-sided p of «both lie at the same place», and `Differences.blur`; rows are sorted."""
    from scipy import special

    mean_base, variance_base, kept_base = _find_mean(base)
    mean_new, variance_new, kept_new = _find_mean(new)
    distance = np.abs(mean_new - mean_base)
    variance = variance_base + variance_new
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = variance_base**2 / (kept_base - 1) + variance_new**2 / (kept_new - 1)
        freedom = np.where(variance > 0, variance**2 / parts, kept_base + kept_new - 2.0)
    error = np.sqrt(variance)
    # Values without any spread are either at the same place or infinitely far apart.
    score = np.where(distance > 0, np.inf, 0.0)
    np.divide(distance, error, out=score, where=error > 1e-12 * np.maximum(distance, 1e-300))
    score[np.isnan(variance)] = np.nan
    quantiles = special.stdtrit(freedom, (1 + CONFIDENCE) / 2) + special.stdtrit(freedom, POWER)
    blur = np.where(error > 0, error * quantiles, error)
    return 2 * special.stdtr(freedom, -score), blur


def _find_mean(rows: Floats) -> tuple[Floats, Floats, int]:
    """Means, their squared standard errors, and how many values each row has."""
    size = rows.shape[1]
    if size < 2:
        return rows.mean(axis=1), np.full(len(rows), np.nan), size
    flat = rows[:, 0] == rows[:, -1]  # rounding would give it a spread
    return rows.mean(axis=1), np.where(flat, 0.0, rows.var(axis=1, ddof=1)) / size, size


def find_shifts(base: Floats, new: Floats) -> Floats:
    """Median of all differences new − base for rows of sorted values (pairs × size).

    A sample of more than a thousand values is thinned to a thousand quantiles first.
    """
    base, new = _thin(base), _thin(new)
    differences = new[:, None, :] - base[:, :, None]
    return np.asarray(np.median(differences.reshape(len(base), -1), axis=1), dtype=np.float64)


def _thin(rows: Floats) -> Floats:
    size = rows.shape[1]
    if size <= _MOST_PAIRED:
        return rows
    places = ((np.arange(_MOST_PAIRED) + 0.5) / _MOST_PAIRED * size).astype(np.int64)
    return rows[:, places]
