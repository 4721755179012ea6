"""What a run says of a claim, and how findings on several pairs become one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

NOT_MEASURED = "not measured"
DEPENDS = "depends on the packing"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run says of a claim: the verdict, its figure and what that is of.

    ``weight`` says how far the figure is from no difference at all, on the logarithm. ``emulated``
    says that a side of it ran without hardware virtualisation.
    """

    verdict: str
    figure: str = ""
    note: str = ""
    weight: float = 0.0
    emulated: bool = False


def combine(found: Sequence[Finding]) -> Finding | None:
    """One verdict on all pairs: a single counterexample refutes, and the weakest support is shown.

    How many pairs there are is said, and of how many the verdict is.
    """
    if not found:
        return None
    emulated = any(each.emulated for each in found)
    return replace(_choose(found), emulated=emulated)


def _choose(found: Sequence[Finding]) -> Finding:
    many = len(found)
    for verdict in ("refuted", "withheld", DEPENDS, "inconclusive"):
        hits = [each for each in found if each.verdict == verdict]
        if hits:
            shown = max(hits, key=lambda each: each.weight)
            return _say_count(shown, f"{len(hits)} of {many} pairs", many)
    equivalent = [each for each in found if each.verdict == "equivalent"]
    if equivalent and len(equivalent) < many:
        shown = replace(equivalent[0], verdict="inconclusive")
        return _say_count(shown, f"equivalent for {len(equivalent)} of {many} pairs", many)
    shown = min(found, key=lambda each: each.weight)
    return _say_count(shown, f"the nearest of {many} pairs", many)


def _say_count(finding: Finding, words: str, many: int) -> Finding:
    return replace(finding, note=f"{words}: {finding.note}") if many > 1 else finding
