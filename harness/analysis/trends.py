"""A host that drifts over a run: found by a rank test, and taken out of an interval.

What drifts is spread over the run, and a spread that is no noise makes an interval too wide: with
20 % over a run and noise of 3 %, the interval of the median held it in every run, not in 95 %.
"""

import numpy as np

from harness.analysis.arrays import Floats

LEVEL = 0.01
"""How often values without a trend are taken to have one: rarely, as taking it out costs width."""

LEAST = 6


def find_slopes(rows: Floats) -> Floats:
    """The trend of each row of values in the order of their blocks (groups × size), per block.

    Theil's slope (the median of all pairs' slopes), where the rank test of Mann (Econometrica 13,
    1945) and Kendall sees a trend at the level of 1 %; else 0.
    """
    from scipy import special

    size = rows.shape[1]
    slopes = np.zeros(len(rows))
    if size < LEAST:
        return slopes
    score = np.zeros(len(rows))
    for lag in range(1, size):
        score += np.sign(rows[:, lag:] - rows[:, :-lag]).sum(axis=1)
    error = np.sqrt(size * (size - 1) * (2 * size + 5) / 18)
    found = np.flatnonzero(np.abs(score) > error * special.ndtri(1 - LEVEL / 2))
    first, second = np.triu_indices(size, 1)
    for part in np.array_split(found, 1 + len(found) * len(first) // 5_000_000):
        rises = rows[np.ix_(part, second)] - rows[np.ix_(part, first)]
        slopes[part] = np.median(rises / (second - first), axis=1)
    return slopes


def level_rows(rows: Floats, slopes: Floats) -> Floats:
    """The same rows without their trends, at the level of the middle of the run."""
    size = rows.shape[1]
    place: Floats = np.arange(size) - (size - 1) / 2
    return rows - slopes[:, None] * place


def find_stretch(size: int, slopes: Floats) -> Floats:
    """What to widen an interval by where a trend was fitted: two parameters, not one."""
    return np.where(slopes != 0, np.sqrt(size / max(size - 2, 1)), 1.0)
