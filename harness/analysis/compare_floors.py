"""The noise floors of a run that is compared: how far a platform lay from itself in it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.compare_sides import Key, Series, Side
from harness.analysis.statistics import Floats, bootstrap_median
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
    floors: dict[tuple[str, str, str], dict[str, float]] = {}
    for key, reach in _find_reaches(_pair_arms(side), side.seed).items():
        kinds = floors.setdefault(key[1:], {})
        kind = side.series[key].kind
        kinds[kind] = max(reach, kinds.get(kind, 0.0))
    return floors


def find_floor(floors: Sequence[Floors], key: Key, kind: str) -> float | None:
    """The larger of several runs: of an arm of the same kind, else of any; None without any arm."""
    known = [each[key[1:]] for each in floors if key[1:] in each]
    found = [shares.get(kind, max(shares.values())) for shares in known]
    return float(max(found)) if found else None


def _pair_arms(side: Side) -> dict[Key, Floats]:
    """Sorted log ratios of every second arm to its first, where there are two or more."""
    found = {}
    for key, second in side.series.items():
        first = side.series.get((base_platform(key[0]), *key[1:]))
        if is_arm(key) and first is not None:
            logs = _find_logs(first, second)
            if len(logs) > 1:
                found[key] = logs
    return found


def _find_logs(first: Series, second: Series) -> Floats:
    """Empty where a value has no ratio."""
    _, one, other = np.intersect1d(first.blocks, second.blocks, return_indices=True)
    base, new = first.values[one], second.values[other]
    if (base <= 0).any() or (new <= 0).any():
        return np.empty(0)
    return np.asarray(np.sort(np.log(new / base)), dtype=np.float64)


def _find_reaches(arms: Mapping[Key, Floats], seed: int) -> dict[Key, float]:
    """How far each interval reaches from 1, as a share; arms of one size together."""
    sizes: dict[int, list[Key]] = defaultdict(list)
    for key, logs in arms.items():
        sizes[len(logs)].append(key)
    reaches: dict[Key, float] = {}
    for keys in sizes.values():
        low, high = bootstrap_median(np.stack([arms[key] for key in keys]), seed)
        reach = np.expm1(np.maximum(np.maximum(-low, high), 0.0))
        reaches |= dict(zip(keys, reach.tolist(), strict=True))
    return reaches
