"""What noise alone does in a run: the A/A arms, which are one platform entered twice.

They give the noise floor (how far from 1 a ratio may lie by noise), the minimum detectable effect,
and how often the procedure that gives the verdicts calls a platform different from itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness.analysis.arrays import Floats, Integers
from harness.analysis.location import find_means, find_p_values
from harness.analysis.pairs import (
    COMPARED,
    SIGNIFICANT,
    THRESHOLD,
    Pairs,
    build_ratios,
    pair_blocks,
    select_headlines,
)
from harness.analysis.statistics import correct_holm, summarise_groups
from harness.model import AA_SUFFIX, base_platform

RELABELLINGS = 1000
"""How often the labels of the arms are swapped at random to see what the verdicts make of it."""

Case = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Floors:
    """Noise floors as shares: by kind of platform for each workload, cache state and metric."""

    shares: Mapping[Case, Mapping[str, float]] = field(default_factory=dict)

    def find(self, case: Case, kind: str) -> float | None:
        """The floor of an arm of the same kind, else as `choose_floor` says; None without any."""
        return choose_floor(self.shares.get(case, {}), kind)


def choose_floor(shares: Mapping[str, float], kind: str) -> float | None:
    """The floor that serves a platform of ``kind``, of those ``shares`` that the arms have.

    It is that of an arm of the same kind. What has none takes the largest of the others, but a
    machine's arm serves machines only: its start is noisy in ways that no process has.
    """
    if kind in shares:
        return shares[kind]
    serving = [share for arm, share in shares.items() if arm != "vm" or kind == "vm"]
    return max(serving, default=None)


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """How often a platform was called different from itself.

    ``called`` of ``compared`` A/A comparisons were, as they were measured. The labels of the two
    arms were then swapped in random blocks: ``tables`` of ``relabelled`` such tables held at least
    one false difference, and ``single`` of ``singles`` comparisons in them.
    """

    compared: int
    called: int
    relabelled: int
    tables: int

    @property
    def share(self) -> float:
        """The false-positive rate of the run: share of tables with any false difference."""
        return self.tables / self.relabelled if self.relabelled else float("nan")


def compare_arms(
    samples: pd.DataFrame, seed: int, metrics: Collection[str] = COMPARED
) -> pd.DataFrame:
    """Every A/A arm against the same platform's first arm; columns of `pairs.build_ratios`."""
    return build_ratios(pair_arms(samples, metrics), seed)


def pair_arms(samples: pd.DataFrame, metrics: Collection[str] = COMPARED) -> Pairs:
    """The pairs of every A/A arm with the first arm of the same platform."""
    arms = samples["platform"].astype(str)
    second = arms.str.endswith(AA_SUFFIX)
    wanted = set(arms[second]) | set(arms[second].map(base_platform))
    return pair_blocks(select_headlines(samples[arms.isin(wanted)], metrics), _find_first)


def _find_first(platform: str) -> str:
    """The first arm of an A/A arm; nothing for a first arm, which is compared with none."""
    return base_platform(platform) if platform.endswith(AA_SUFFIX) else ""


def find_floors(arms: pd.DataFrame) -> Floors:
    """The noise floors of the arms that `compare_arms` compared.

    A floor is the furthest that the interval of an A/A ratio reaches from 1, either way: a
    difference of two platforms smaller than that could not have been told from none.
    """
    shares: dict[Case, dict[str, float]] = {}
    for row in arms[arms["ratio"].notna()].to_dict("records"):
        kinds = shares.setdefault((row["workload"], row["cache"], row["metric"]), {})
        kinds[row["kind"]] = max(find_reach(row["low"], row["high"]), kinds.get(row["kind"], 0.0))
    return Floors(shares)


def find_reach(low: float, high: float) -> float:
    """How far the interval of a ratio reaches from 1, as a share; NaN without an interval."""
    return max(1 / low, high, 1.0) - 1 if low == low else low


def count_false_alarms(pairs: Pairs, seed: int, relabellings: int = RELABELLINGS) -> FalseAlarms:
    """How often the procedure of the verdicts calls A/A arms different.

    Directly, on the arms as they were measured; and, as these are few, on random relabellings:
    two arms of one platform may change places in a block, so the same change in every workload
    and metric of that block gives a table that could as well have been measured. The noise floor is
    left out of it, as no arm can exceed its own; with it, verdicts are false less often. Figures
    that are the same in every block, such as sizes of an image, cannot differ and do not count.
    """
    moved = np.bincount(pairs.groups, weights=pairs.logs != 0, minlength=len(pairs.table)) > 0
    usable = np.flatnonzero((pairs.table["withheld"] == "").to_numpy() & moved)
    kept = np.isin(pairs.groups, usable)
    groups = np.searchsorted(usable, pairs.groups[kept]).astype(np.int64)
    logs, blocks, count = pairs.logs[kept], pairs.blocks[kept], len(usable)
    if count == 0:
        return FalseAlarms(0, 0, 0, 0)
    called = int(find_differences(logs, groups, blocks, 1, count).sum())
    chance = np.random.default_rng(seed)
    _, place = np.unique(blocks, return_inverse=True)
    tables = 0
    step = max(1, 200_000 // len(logs))
    for first in range(0, relabellings, step):
        repeats = min(step, relabellings - first)
        signs = chance.integers(0, 2, (repeats, place.max() + 1)) * 2.0 - 1
        flipped = (logs * signs[:, place]).ravel()
        numbers = (groups + count * np.arange(repeats)[:, None]).ravel()
        found = find_differences(flipped, numbers, np.tile(blocks, repeats), repeats, count)
        tables += int(found.any(axis=1).sum())
    return FalseAlarms(count, called, relabellings, tables)


def find_differences(
    logs: Floats,
    groups: Integers,
    blocks: Integers,
    tables: int,
    count: int,
    threshold: float = THRESHOLD,
) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which comparisons are called a difference (tables × ``count``), without a noise floor.

    ``groups`` are numbers from 0 to tables · count − 1. The same rule as `ratios.find_verdict`.
    """
    found = summarise_groups(logs, groups, tables * count, blocks)
    p_values = find_p_values(find_means(logs, groups, tables * count)).reshape(tables, count)
    corrected = np.array([correct_holm(each) for each in p_values])
    bound = np.log1p(threshold)
    beyond = (found.low > bound) | (found.high < -bound)
    differences: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = beyond.reshape(tables, count) & (
        corrected < SIGNIFICANT
    )
    return differences


def find_share_interval(count: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy import stats

    found = stats.binomtest(count, total).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)
