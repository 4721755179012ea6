"""Values of two platforms paired within blocks, and what can be said of their ratio.

A ratio is a platform's value over the reference's in the same block; its median and interval are
taken over blocks on the logarithm, so that swapping the two gives exactly the reciprocal. Drift of
the host cancels out within a block.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.aggregate import APART, CASE, SERIES, find_refusals, reduce_to_blocks
from harness.analysis.arrays import Floats, Integers
from harness.analysis.location import (
    Means,
    find_equivalence_p_values,
    find_means,
    find_p_values,
    find_shifts,
    flip_signs,
)
from harness.analysis.statistics import bootstrap_groups, summarise_groups
from harness.metrics import METRICS

THRESHOLD = 0.05
"""Differences below this share do not matter in practice, however certain they are."""

COMPARED = [name for name, metric in METRICS.items() if metric.headline and name not in APART]

POWER = 0.8
SIGNIFICANT = 0.05

_PAIR = [*CASE, "metric", "phase", "block"]
_WORDS = ["platform", "kind", "accelerator", "workload", "image", "cache", "metric"]
_KEYS = ["platform", "kind", "accelerator", *CASE, "metric"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Comparisons and their pairs.

    ``table`` has one row a comparison: the columns of _KEYS, ``reference``, ``n`` (pairs) and
    ``withheld``. ``logs``, ``groups`` (rows of the table) and ``blocks`` have one entry a pair; a
    comparison that has no ratio is in the table alone.
    """

    table: pd.DataFrame
    logs: Floats
    groups: Integers
    blocks: Integers


def select_headlines(samples: pd.DataFrame, metrics: Collection[str] = COMPARED) -> pd.DataFrame:
    """Headline rows of one instance, one per block."""
    wanted = samples["metric"].isin(list(metrics)) & (samples["phase"] == "")
    return reduce_to_blocks(samples[wanted & (samples["instances"] == 1)])


def pair_blocks(blocks: pd.DataFrame, find_reference: Callable[[str], str]) -> Pairs:
    """Pair each platform's values with those of the platform that ``find_reference`` names.

    A ratio needs values above zero; where one of a comparison is not, the whole comparison is
    withheld: leaving out that block alone would leave out what speaks against the others.
    """
    pairs = merge_references(blocks, find_reference)
    keys = pairs.groupby(_KEYS, observed=True, sort=True)
    groups = np.asarray(keys.ngroup(), dtype=np.int64)
    table = keys.size().rename("n").reset_index().astype(dict.fromkeys(_WORDS, object))
    table.insert(1, "reference", [find_reference(name) for name in table["platform"]])
    value, other = (pairs[name].to_numpy(dtype=float) for name in ("value", "value_reference"))
    wrong = np.bincount(groups, weights=(value <= 0) | (other <= 0), minlength=len(table))
    table["withheld"] = _find_reasons(pairs, groups, wrong.astype(int).tolist())
    kept = (wrong == 0)[groups]
    logs = np.log(value[kept] / other[kept])
    return Pairs(table, logs, groups[kept], pairs["block"].to_numpy(dtype=np.int64)[kept])


def merge_references(blocks: pd.DataFrame, find_reference: Callable[[str], str]) -> pd.DataFrame:
    """Each row with ``value``, ``marks`` and ``disturbed`` of its reference in the same block.

    The keys are merged as one number: words in seven columns take seconds and gigabytes.
    """
    frame = blocks[[*SERIES, "block", "value", "marks", "disturbed"]]
    platforms = frame["platform"].astype("category")
    known = [str(name) for name in platforms.cat.categories]
    place = {name: number for number, name in enumerate(known)}
    wanted = np.array([place.get(find_reference(name), -1) for name in known], dtype=np.int64)
    codes = platforms.cat.codes.to_numpy(dtype=np.int64)
    case = np.asarray(frame.groupby(_PAIR, observed=True, sort=False).ngroup(), dtype=np.int64)
    sought = np.where(wanted[codes] < 0, -1, case * len(known) + wanted[codes])
    right = frame[["value", "marks", "disturbed"]].assign(key=case * len(known) + codes)
    return frame.assign(key=sought).merge(right, on="key", suffixes=("", "_reference"))


def _find_reasons(pairs: pd.DataFrame, groups: Integers, wrong: list[int]) -> list[str]:
    """Why each comparison is withheld, or an empty string."""
    one, other = (pairs[name].astype(object) for name in ("marks", "marks_reference"))
    disturbed = (pairs["disturbed"] | pairs["disturbed_reference"]).to_numpy()
    refusals = find_refusals((one + " " + other).to_numpy(), disturbed, groups, len(wrong))
    size = np.bincount(groups, minlength=len(wrong)).tolist()
    return [
        f"{bad} of {pairs} pairs hold a value that is not above zero: no ratio" if bad else refusal
        for refusal, bad, pairs in zip(refusals, wrong, size, strict=True)
    ]


def build_ratios(pairs: Pairs, seed: int, threshold: float = THRESHOLD) -> pd.DataFrame:
    """The table of ``pairs`` with what was found of each ratio, NaN where there is none.

    ``ratio``, ``low``, ``high`` (median, 95 % interval), ``bootstrap_low``, ``bootstrap_high``
    (the plain percentile bootstrap), ``shift``, ``shift_low``, ``shift_high`` (Hodges–Lehmann),
    ``p`` (Student's test), ``p_permutation``, ``p_equivalence``, none of them corrected, and
    ``effect`` (minimum detectable, as a share).
    """
    count = len(pairs.table)
    data = (pairs.logs, pairs.groups, count)
    found, means = summarise_groups(*data, pairs.blocks), find_means(*data)
    shift, shift_low, shift_high = find_shifts(*data)
    bootstrap_low, bootstrap_high = bootstrap_groups(*data, seed)
    ratios = {
        "ratio": found.median, "low": found.low, "high": found.high,
        "bootstrap_low": bootstrap_low, "bootstrap_high": bootstrap_high,
        "shift": shift, "shift_low": shift_low, "shift_high": shift_high,
    }  # fmt: skip
    return pairs.table.assign(
        **{name: np.exp(logs) for name, logs in ratios.items()},
        p=find_p_values(means),
        p_permutation=flip_signs(*data, seed),
        p_equivalence=find_equivalence_p_values(means, float(np.log1p(threshold))),
        effect=find_effect(means),
    )


def find_effect(found: Means) -> Floats:
    """The minimum detectable effect, as a share: what one comparison sees in 80 % of runs.

    It is the standard error of the mean log ratio, which has the spread and the number of blocks
    in it, times the noncentrality with which Student's test at 5 %, two-sided, has a power of 80 %
    (Cohen, Statistical Power Analysis, 1988, chapter 2; the noncentral t in place of the tables).
    Holm's correction and the threshold ask for more.
    """
    from scipy import special

    factor = special.nctdtrinc(
        found.freedom, 1 - POWER, special.stdtrit(found.freedom, 1 - SIGNIFICANT / 2)
    )
    effect: Floats = np.expm1(factor * found.error)
    return effect
