"""What readers of a comparison must know beside its figures."""

from collections.abc import Sequence

import numpy as np

from harness.analysis.compare_result import Comparison, Terms
from harness.analysis.compare_sides import Side

CONTROL = "process"
"""The platform that adds nothing of its own: where its figures moved, the host did."""

_ENOUGH = 6
"""Blocks for a 95 % interval of a median: the whole range of n values covers 1 - 2^(1 - n)."""


def build_notes(
    base: Side, new: Side, comparisons: Sequence[Comparison], terms: Terms
) -> tuple[str, ...]:
    """What must be known of the two runs beside the figures; names stand in code spans."""
    notes = [*base.notes, *new.notes]
    if base.path.resolve() == new.path.resolve():
        notes.insert(0, "BASE and NEW are the same: nothing can differ")
    notes += [
        f"{name} is {base.state[name] or 'not there'} in BASE and {state or 'not there'} in NEW"
        for name, state in new.state.items()
        if name in base.state and base.state[name] != state
    ]
    least = min((min(each.n_base, each.n_new) for each in comparisons), default=0)
    if 0 < least < _ENOUGH:
        notes.append(
            f"with {least} block{'' if least == 1 else 's'} no interval of a median can hold 95 %: "
            f"{_ENOUGH} are needed"
        )
    if base.tool == "harness" and not any(each.floor is not None for each in comparisons):
        notes.append(
            "no A/A arm in either run: their noise floor is unknown, only the threshold stands"
        )
    if terms.relative_to is None:
        notes += [_say_control(each) for each in comparisons if _has_moved(each, terms.threshold)]
    return tuple(notes)


def _has_moved(each: Comparison, threshold: float) -> bool:
    """Whether the control's start changed: a lower bar than a verdict's, as it is a warning."""
    if each.platform != CONTROL or each.metric != "startup.ready" or each.phase:
        return False
    if each.ratio is None or each.low is None or each.high is None:
        return False
    apart = each.low > 1 or each.high < 1
    return apart and abs(np.log(each.ratio)) > np.log1p(threshold)


def _say_control(each: Comparison) -> str:
    assert each.ratio is not None
    word = "slower" if each.ratio > 1 else "faster"
    return (
        f"the control moved: `{CONTROL}` with `{each.workload}` itself became {word}, "
        f"{each.ratio:.3g} ×: the host did, or the workload; --relative-to {CONTROL} compares "
        "ratios to it"
    )
