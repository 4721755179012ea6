"""The noise floors of a run that is compared: how far a platform lay from itself in it."""

from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.compare_sides import Key, Series, Side
from harness.analysis.noise_floor import choose_floor, find_reach
from harness.analysis.statistics import Floats, summarise_groups
from harness.model import AA_SUFFIX, base_platform

Floors = Mapping[tuple[str, str, str], Mapping[str, float]]
"""Shares by workload, metric and phase, then by kind of platform."""


def is_arm(key: Key) -> bool:
    """Whether a series is of a platform's second arm: it serves the floor and is not compared."""
    return key[0].endswith(AA_SUFFIX)


def find_floors(side: Side) -> Floors:
    """The noise floors of one run; empty without an A/A arm.

    A floor is the furthest that the interval of an A/A arm's ratio to its first arm, paired by
    block, reaches from 1: what the run's own report says of it too.
    """
    arms = _pair_arms(side)
    if not arms:
        return {}
    blocks, logs = (np.concatenate([pair[place] for pair in arms.values()]) for place in (0, 1))
    groups = np.repeat(np.arange(len(arms)), [len(pair[0]) for pair in arms.values()])
    found = summarise_groups(logs, groups, len(arms), blocks.astype(np.int64))
    floors: dict[tuple[str, str, str], dict[str, float]] = {}
    for key, low, high in zip(arms, np.exp(found.low), np.exp(found.high), strict=True):
        kinds, kind = floors.setdefault(key[1:], {}), side.series[key].kind
        kinds[kind] = max(find_reach(float(low), float(high)), kinds.get(kind, 0.0))
    return floors


def find_floor(floors: Sequence[Floors], key: Key, kind: str) -> float | None:
    """The larger of several runs, each chosen as `choose_floor` says; None without any."""
    known = (choose_floor(each.get(key[1:], {}), kind) for each in floors)
    return max((float(each) for each in known if each is not None), default=None)


def _pair_arms(side: Side) -> dict[Key, tuple[Floats, Floats]]:
    """Blocks and log ratios of every second arm to its first, where there are two or more."""
    found = {}
    for key, second in side.series.items():
        first = side.series.get((base_platform(key[0]), *key[1:]))
        if is_arm(key) and first is not None:
            pair = _find_logs(first, second)
            if len(pair[0]) > 1:
                found[key] = pair
    return found


def _find_logs(first: Series, second: Series) -> tuple[Floats, Floats]:
    """Empty where a value has no ratio."""
    blocks, one, other = np.intersect1d(first.blocks, second.blocks, return_indices=True)
    base, new = first.values[one], second.values[other]
    if (base <= 0).any() or (new <= 0).any():
        return np.empty(0), np.empty(0)
    return blocks, np.log(new / base)
