"""Groups of values as matrices: what the statistics of a run have in common, in plain numpy."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_CELLS = 10_000_000
"""Most numbers that one step holds in memory at once."""


def iterate_rows(
    values: Floats,
    groups: Integers,
    count: int,
    width: Callable[[int], int],
    blocks: Integers | None = None,
) -> Iterator[tuple[Integers, Floats]]:
    """Groups of one size at a time: their numbers, and their values as rows (groups × size).

    ``groups`` are numbers from 0 to ``count`` − 1, one per value. Within a row, values stand in the
    order of their ``blocks``, else as they came. ``width`` says how many numbers the caller makes
    of a row of some size, so that a part fits in memory. Empty groups are left out.
    """
    size = np.bincount(groups, minlength=count)
    if blocks is None:
        ordered = values[np.argsort(groups, kind="stable")]
    else:
        ordered = values[np.lexsort((blocks, groups))]
    start = np.cumsum(size) - size
    for each in np.unique(size[size > 0]).tolist():
        members = np.flatnonzero(size == each).astype(np.int64)
        parts = -(-len(members) * max(width(each), each) // MOST_CELLS)
        for part in np.array_split(members, parts):
            yield part, ordered[start[part, None] + np.arange(each)]
