"""Medians with 95 % intervals over blocks, and Holm's correction: numpy arrays in and out.

The unit of replication is the block. Everything works on many groups at once and is a pure
function of the values and a seed.

What is estimated is the median over the run's blocks: half of what was measured in it lies below,
whether the host drifts or not. Where it does, that is accounted for in the interval (`trends`);
otherwise the order of blocks does not matter.
"""

from dataclasses import dataclass

import numpy as np

from harness.analysis.arrays import MOST_CELLS, iterate_rows
from harness.analysis.arrays import Floats as Floats
from harness.analysis.arrays import Integers as Integers
from harness.analysis.quantiles import CONFIDENCE as CONFIDENCE
from harness.analysis.quantiles import find_coverage, find_quantile_interval
from harness.analysis.trends import TIMES, Trends, find_drifting_interval, find_trends

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Summaries:
    """One entry per group: size, median, the 95 % interval of the median, and the drift.

    ``drift`` is the trend from the first block to the last in the unit of the values, 0 where
    there is none.
    """

    size: Integers
    median: Floats
    low: Floats
    high: Floats
    drift: Floats


def summarise_groups(
    values: Floats, groups: Integers, count: int, blocks: Integers | None = None
) -> Summaries:
    """Summarise ``values`` by ``groups`` (numbers from 0 to ``count`` − 1, one per value).

    Only where ``blocks`` give the order of the values can a trend be found. An empty group has
    size 0 and NaN for the rest.
    """
    size = np.bincount(groups, minlength=count).astype(np.int64)
    median, low, high, drift = (np.full(count, np.nan) for _ in range(4))
    for part, rows in iterate_rows(values, groups, count, lambda each: 4 * each, blocks):
        median[part] = np.median(rows, axis=1)
        low[part], high[part] = find_quantile_interval(np.sort(rows, axis=1), 0.5)
        trends = find_trends(rows if blocks is not None else rows[:, :0])
        drift[part] = trends.slope * (rows.shape[1] - 1)
        drifting = np.flatnonzero(trends.slope)
        if len(drifting):
            low[part[drifting]], high[part[drifting]] = _find_drifting(rows, trends, drifting)
    return Summaries(size, median, low, high, drift)


def _find_drifting(rows: Floats, trends: Trends, places: Integers) -> tuple[Floats, Floats]:
    """Never outside of what was measured, and the median of that always within."""
    low, high = np.empty(len(rows)), np.empty(len(rows))
    width = TIMES * rows.shape[1] * 3
    for part in np.array_split(places, 1 + len(places) * width // MOST_CELLS):
        chosen = Trends(trends.slope[part], trends.error[part])
        low[part], high[part] = find_drifting_interval(rows[part], chosen)
    median = np.median(rows, axis=1)
    low = np.minimum(np.maximum(low, rows.min(axis=1)), median)
    high = np.maximum(np.minimum(high, rows.max(axis=1)), median)
    return low[places], high[places]


def bootstrap_groups(
    values: Floats, groups: Integers, count: int, seed: int
) -> tuple[Floats, Floats]:
    """The percentile bootstrap's interval of the median of each group, over 10 000 resamples.

    It is stored beside the interval that is reported, for comparison with other tools; with few
    blocks it is too narrow (`quantiles`). NaN for an empty group.
    """
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    for part, rows in iterate_rows(values, groups, count, lambda _: RESAMPLES):
        low[part], high[part] = bootstrap_median(np.sort(rows, axis=1), seed)
    return low, high


def bootstrap_median(rows: Floats, seed: int) -> tuple[Floats, Floats]:
    """Percentile bootstrap interval of the median of each row of sorted values (groups × size)."""
    drawn = np.stack(draw_median_positions(rows.shape[1], seed))
    (lower, upper), times = np.unique(drawn, axis=1, return_counts=True)
    medians = (rows[:, lower] + rows[:, upper]) / 2
    order = np.argsort(medians, axis=1)
    medians, reached = np.take_along_axis(medians, order, axis=1), np.cumsum(times[order], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = (_find_repeated_quantile(medians, reached, share) for share in (tail, 1 - tail))
    return low, high


def _find_repeated_quantile(rows: Floats, reached: Integers, share: float) -> Floats:
    """The quantile of each row, as numpy has it, of sorted values that occur several times.

    ``reached`` counts the values up to each place. Ten thousand resamples have a few hundred
    different medians, so this takes a small part of the time.
    """
    place = share * (int(reached[0, -1]) - 1)
    whole = int(place)
    first, second = (
        np.take_along_axis(rows, (reached <= each).sum(axis=1)[:, None], axis=1)[:, 0]
        for each in (whole, whole + 1)
    )
    step, part = second - first, place - whole
    found: Floats = first + step * part if part < 0.5 else second - step * (1 - part)
    return found


def draw_median_positions(size: int, seed: int) -> tuple[Integers, Integers]:
    """Where the median of each resample lies in the sorted sample: two positions, to be averaged.

    Resampling ``size`` blocks draws ``size`` uniform positions; their median is an order
    statistic of uniform variables, which has a Beta distribution (David and Nagaraja, Order
    Statistics, 2003, section 2.3). Drawing that directly costs the same for any ``size``.
    """
    chance = np.random.default_rng((seed, size))
    middle = (size + 1) // 2
    first = chance.beta(middle, size + 1 - middle, RESAMPLES)
    second = first
    if size % 2 == 0:
        second = first + (1 - first) * chance.beta(1, size - middle, RESAMPLES)
    return _to_positions(first, size), _to_positions(second, size)


def _to_positions(uniform: Floats, size: int) -> Integers:
    return np.minimum((uniform * size).astype(np.int64), size - 1)


def best_coverage(size: int) -> float:
    """The most that any interval between values of a sample can promise for the median.

    It is that of the whole range; 95 % needs six blocks, and fewer than six are said to fall short.
    """
    return find_coverage(size)


def correct_holm(p_values: Floats) -> Floats:
    """Holm's step-down correction (1979) over all p-values that are not NaN."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    steps = np.maximum.accumulate(p_values[order] * factors) if len(order) else p_values[order]
    corrected[order] = np.minimum(steps, 1.0)
    return corrected
