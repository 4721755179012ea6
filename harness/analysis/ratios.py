"""Every platform against the reference, and the verdicts.

A verdict of a difference asks for three things: the whole interval beyond the practical threshold
and beyond the noise floor, and Student's p below 5 % after Holm's correction over all comparisons
of the run (`location` says why that test). «Equivalent» asks for the whole interval within the
threshold, and for the larger p of two one-sided tests below 5 % after Holm's correction over all
of these. So of runs that compare like with like, at most one in twenty has a false difference.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.noise_floor import Floors, find_floors
from harness.analysis.noise_floor import compare_arms as compare_arms
from harness.analysis.pairs import (
    COMPARED,
    SIGNIFICANT,
    build_ratios,
    pair_blocks,
    select_headlines,
)
from harness.analysis.pairs import THRESHOLD as THRESHOLD
from harness.analysis.statistics import correct_holm
from harness.metrics import METRICS, is_image_size
from harness.model import AA_SUFFIX

Refused = Collection[tuple[str, str, bool]]
"""Platform and workload, and whether it is the size of an image that has no ratio."""


def compare_platforms(
    samples: pd.DataFrame,
    reference: str,
    seed: int,
    threshold: float = THRESHOLD,
    metrics: Collection[str] = COMPARED,
    refused: Refused = frozenset(),
) -> pd.DataFrame:
    """Every platform against ``reference``, headline metrics only; A/A arms are left to the floor.
    What is ``refused`` is no comparison: it has no row, and no part in any correction.

    Columns: those of `pairs.build_ratios`, with ``p`` and ``p_equivalence`` Holm-corrected (each
    over all comparisons), ``floor`` (share; NaN where no A/A arm saw this metric) and ``verdict``.
    """
    frame = select_headlines(samples, metrics)
    others = frame[~frame["platform"].astype(str).str.endswith(AA_SUFFIX)]
    others = drop_refused(others, refused)
    pairs = pair_blocks(others, lambda name: "" if name == reference else reference)
    ratios = build_ratios(pairs, seed, threshold)
    floors = find_floors(compare_arms(samples, seed, metrics))
    ratios["floor"] = [_find_floor(floors, row, (row["kind"],)) for row in _list_rows(ratios)]
    return _add_verdicts(ratios, threshold)


def compare_sides(
    samples: pd.DataFrame,
    sides: tuple[Collection[str], Collection[str]],
    seed: int,
    metric: str,
    refused: Collection[tuple[str, str]] = (),
    threshold: float = THRESHOLD,
) -> pd.DataFrame:
    """Every platform of the second side against every one of the first, by one metric.

    These are a family of their own: the p-values are corrected over all of them together. Pairs
    (one of the first side, one of the second) that are ``refused`` have no part in it. A pair's
    floor is the larger of its two kinds'. Columns as those of `compare_platforms`.
    """
    frame = select_headlines(samples, (metric,))
    names = frame["platform"].astype(str)
    kinds = dict(zip(names, frame["kind"].astype(str), strict=True))
    tables = []
    for first in sides[0]:
        others = [name for name in sides[1] if (first, name) not in refused]
        pairs = pair_blocks(frame[names.isin([first, *others])], _refer_to(first))
        tables.append(build_ratios(pairs, seed, threshold))
    ratios = pd.concat([each for each in tables if len(each)] or tables[:1], ignore_index=True)
    floors = find_floors(compare_arms(samples, seed, (metric,)))
    ratios["floor"] = [
        _find_floor(floors, row, (row["kind"], kinds[row["reference"]]))
        for row in _list_rows(ratios)
    ]
    return _add_verdicts(ratios, threshold)


def _refer_to(first: str) -> Callable[[str], str]:
    return lambda name: "" if name == first else first


def _list_rows(ratios: pd.DataFrame) -> list[Mapping[Hashable, Any]]:
    return ratios.to_dict("records")  # type: ignore[return-value]


def _find_floor(floors: Floors, row: Mapping[Hashable, Any], kinds: Collection[str]) -> float:
    case = (row["workload"], row["cache"], row["metric"])
    found = (floors.find(case, kind) for kind in kinds)
    return max((each for each in found if each is not None), default=np.nan)


def _add_verdicts(ratios: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The same table with p-values corrected over all of its rows, and verdicts."""
    ratios["floor"] = ratios["floor"].astype(float)
    for name in ("p", "p_equivalence"):
        ratios[name] = correct_holm(ratios[name].to_numpy(dtype=float))
    ratios["verdict"] = [
        "inconclusive" if row["withheld"] else _judge(row, threshold) for row in _list_rows(ratios)
    ]
    return ratios


def drop_refused(blocks: pd.DataFrame, refused: Refused) -> pd.DataFrame:
    """Without the rows of refused comparisons."""
    if not refused:
        return blocks
    names = (blocks[name].astype(str) for name in ("platform", "workload", "metric"))
    kept = [
        (platform, workload, is_image_size(metric)) not in refused
        for platform, workload, metric in zip(*names, strict=True)
    ]
    return blocks[np.array(kept, dtype=bool)]


def _judge(row: Mapping[Hashable, Any], threshold: float) -> str:
    names = ("metric", "low", "high", "p", "p_equivalence", "floor")
    metric, low, high, p, p_equivalence, floor = (row[name] for name in names)
    return find_verdict(metric, low, high, p, p_equivalence, floor, threshold, row["n"])


LEAST_PAIRS = 6
"""With fewer blocks no interval of a median holds with 95 %, so none says that two differ."""


def find_verdict(
    metric: str,
    low: float,
    high: float,
    p: float,
    p_equivalence: float,
    floor: float,
    threshold: float = THRESHOLD,
    pairs: int = LEAST_PAIRS,
) -> str:
    """The word for a ratio of so many ``pairs``, with the interval ``low`` to ``high``.

    A difference must lie as a whole beyond the threshold and beyond the noise floor, and survive
    the correction; equivalence needs the whole interval within the threshold, a corrected p of its
    own, and a noise floor that could have shown more. Anything else is inconclusive.
    """
    practical = np.log1p(threshold)
    noise = np.log1p(floor) if np.isfinite(floor) else 0.0
    bound = max(practical, noise)
    below, above = find_words(metric)
    enough = pairs >= LEAST_PAIRS or is_image_size(metric)  # which is no matter of chance
    certain = enough and p < SIGNIFICANT  # NaN is not
    if certain and np.log(high) < -bound:
        return below
    if certain and np.log(low) > bound:
        return above
    within = -practical <= np.log(low) and np.log(high) <= practical
    alike = enough and within and p_equivalence < SIGNIFICANT and noise <= practical
    return "equivalent" if alike else "inconclusive"


def find_words(metric: str) -> tuple[str, str]:
    """The verdicts for a ratio below 1 and above 1; a metric of another release has a size."""
    known = METRICS.get(metric)
    return ("faster", "slower") if known and known.unit == "s" else ("smaller", "larger")
