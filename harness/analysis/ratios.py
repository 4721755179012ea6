"""Ratios paired within blocks, the noise floor of the A/A arm, and verdicts.

A ratio is a platform's value over the reference's in the same block; its median and interval are
taken over blocks on the logarithm, so that swapping the two gives exactly the reciprocal.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from harness.analysis.aggregate import APART, CASE, SERIES, find_refusal, reduce_to_blocks
from harness.analysis.statistics import correct_holm, summarise_groups, trimmed_p_values
from harness.metrics import METRICS
from harness.model import AA_SUFFIX, base_platform

THRESHOLD = 0.05
"""Differences below this share do not matter in practice, however certain they are."""

SIGNIFICANT = 0.05

COMPARED = [name for name, metric in METRICS.items() if metric.headline and name not in APART]

_PAIR = [*CASE, "metric", "phase", "block"]
_RATIO = ["platform", "reference", "kind", "accelerator", *CASE, "metric"]


def compare_platforms(
    samples: pd.DataFrame, reference: str, seed: int, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Every platform against ``reference``, headline metrics only; A/A arms are left to the floor.

    Columns: those of _RATIO, ``n`` (pairs), ``ratio``, ``low``, ``high``, ``p`` (Holm-corrected),
    ``floor`` (share; NaN where no A/A arm saw this metric), ``verdict`` and ``withheld``.
    """
    frame = _require_headlines(samples)
    others = frame[~frame["platform"].astype(str).str.endswith(AA_SUFFIX)]
    ratios = _pair(others, lambda _: reference, seed)
    ratios = ratios[ratios["platform"] != reference].reset_index(drop=True)
    floors = find_floors(samples, seed)
    keys = zip(ratios["workload"], ratios["cache"], ratios["metric"], strict=True)
    ratios["floor"] = [floors.get(key, np.nan) for key in keys]
    ratios["p"] = correct_holm(ratios["p"].to_numpy(dtype=float))
    ratios["verdict"] = [
        "inconclusive"
        if row["withheld"]
        else find_verdict(row["metric"], row["low"], row["high"], row["p"], row["floor"], threshold)
        for row in ratios.to_dict("records")
    ]
    return ratios


def compare_arms(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every A/A arm against the same platform's first arm; columns of `compare_platforms`."""
    frame = _require_headlines(samples)
    ratios = _pair(frame, base_platform, seed)
    return ratios[ratios["platform"].str.endswith(AA_SUFFIX)].reset_index(drop=True)


def find_floors(samples: pd.DataFrame, seed: int) -> Mapping[tuple[str, str, str], float]:
    """The noise floor by workload, cache state and metric, as a share.

    It is the furthest that the interval of an A/A ratio reaches from 1, either way: a difference of
    two platforms smaller than that could not have been told from none.
    """
    floors: dict[tuple[str, str, str], float] = {}
    for row in compare_arms(samples, seed).to_dict("records"):
        reach = max(1 / row["low"], row["high"], 1.0) - 1
        key = (row["workload"], row["cache"], row["metric"])
        floors[key] = max(reach, floors.get(key, 0.0))
    return floors


def find_verdict(
    metric: str,
    low: float,
    high: float,
    p: float,
    floor: float,
    threshold: float = THRESHOLD,
) -> str:
    """The word for a ratio with the interval ``low`` to ``high``.

    A difference must lie as a whole beyond the threshold and beyond the noise floor, and survive
    the correction; equivalence needs the whole interval within the threshold, and a noise floor
    that could have shown more. Anything else is inconclusive.
    """
    practical = np.log1p(threshold)
    noise = np.log1p(floor) if np.isfinite(floor) else 0.0
    bound = max(practical, noise)
    below, above = find_words(metric)
    certain = np.isfinite(p) and p < SIGNIFICANT
    if certain and np.log(high) < -bound:
        return below
    if certain and np.log(low) > bound:
        return above
    within = np.log(low) >= -practical and np.log(high) <= practical
    return "equivalent" if within and noise <= practical else "inconclusive"


def find_words(metric: str) -> tuple[str, str]:
    """The verdicts for a ratio below 1 and above 1."""
    return ("faster", "slower") if METRICS[metric].unit == "s" else ("smaller", "larger")


def _require_headlines(samples: pd.DataFrame) -> pd.DataFrame:
    """Headline rows of one instance, one per block; only positive values have a ratio."""
    wanted = samples["metric"].isin(COMPARED) & (samples["phase"] == "")
    blocks = reduce_to_blocks(samples[wanted & (samples["instances"] == 1)])
    return blocks[blocks["value"] > 0]


def _pair(blocks: pd.DataFrame, find_reference: Callable[[str], str], seed: int) -> pd.DataFrame:
    """Ratios of each platform to its reference; p-values are not corrected yet."""
    left = blocks.astype(dict.fromkeys((*SERIES, "marks"), object)).astype({"instances": int})
    left["reference"] = left["platform"].map(find_reference)
    right = left[["platform", *_PAIR, "value", "marks"]]
    pairs = left.merge(
        right.rename(columns={"platform": "reference"}),
        on=["reference", *_PAIR],
        suffixes=("", "_reference"),
    )
    keys = pairs.groupby(_RATIO, sort=True)
    groups = np.asarray(keys.ngroup(), dtype=np.int64)
    table = keys.size().rename("n").reset_index()
    logs = np.log((pairs["value"] / pairs["value_reference"]).to_numpy(dtype=float))
    found = summarise_groups(logs, groups, len(table), seed)
    table["ratio"], table["low"] = np.exp(found.median), np.exp(found.low)
    table["high"] = np.exp(found.high)
    table["p"] = trimmed_p_values(logs, groups, len(table))
    marks = (pairs["marks"] + " " + pairs["marks_reference"]).to_numpy()
    table["withheld"] = [find_refusal(list(marks[groups == each])) for each in range(len(table))]
    return table
