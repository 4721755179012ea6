"""BASE against NEW: is the new run worse than the old one? Tests, verdicts and what to know.

A regression is a change in a metric's bad direction whose whole interval lies beyond the practical
threshold, that itself lies beyond the noise floor of both runs, and whose p is below 5 % after
Holm's correction over all comparisons. A platform that worked in BASE and of which every trial
failed in NEW is one too. The floor is the A/A arms': the furthest that the interval of a platform's
ratio to itself reaches from 1. It is asked of the ratio and not again of the whole interval, which
would count the same noise twice and miss what a run can well see.

Within a run, arms share the host's hour; between two runs the hour differs, and no A/A arm sees
that. The control is the plain process: where it moved, the host did, and that is said.
"""

from collections.abc import Sequence

import numpy as np

from harness.analysis.aggregate import find_refusal
from harness.analysis.compare_floors import find_floor, find_floors, is_arm
from harness.analysis.compare_notes import build_notes
from harness.analysis.compare_result import SIGNIFICANT, Comparison, Report, Terms
from harness.analysis.compare_sides import Case, Key, Series, Side, divide_by
from harness.analysis.compare_traits import find_differences
from harness.analysis.statistics import Floats, correct_holm
from harness.analysis.two_samples import POINT_SHARE, compare_samples
from harness.errors import InputError
from harness.metrics import METRICS, is_image_size
from harness.model import AA_SUFFIX
from harness.store.foreign import METRIC

_SHOWN = 5
"""Most names in one line of an error."""


def compare_sides(base: Side, new: Side, terms: Terms) -> Report:
    """Compare two sides; a difference that is not allowed is refused before anything is computed.

    Raises InputError for different tools, and where the two have nothing in common.
    """
    if base.tool != new.tool:
        raise InputError(
            f"not comparable: BASE is of {base.tool} and NEW of {new.tool}",
            hint="two methods are never compared: name two results of one tool",
        )
    differences = find_differences(base.traits, new.traits)
    refused = tuple(each for each in differences if each.dimension not in terms.allowed)
    if refused:
        return Report(base, new, terms, refused=refused)
    one, other = _prepare(base, terms), _prepare(new, terms)
    keys = _find_common(one, other, terms)
    comparisons = _compare(one, other, keys, terms)
    broken = _find_broken(base, new)
    return Report(
        base,
        new,
        terms,
        accepted=differences,
        comparisons=comparisons,
        only_base=tuple(each for each in _list_cases(one, other) if each not in broken),
        only_new=_list_cases(other, one),
        broken=broken,
        notes=build_notes(base, new, comparisons, terms),
    )


def _prepare(side: Side, terms: Terms) -> Side:
    return divide_by(side, terms.relative_to) if terms.relative_to else side


def _find_common(base: Side, new: Side, terms: Terms) -> list[Key]:
    common = [key for key in base.series if key in new.series and not is_arm(key)]
    wanted = [key for key in common if terms.every or _is_headline(key)]
    if not wanted:
        raise InputError(
            f"not comparable: nothing in common; {_say_cases(base)}, {_say_cases(new)}",
            hint="measure the same platforms and workloads"
            if base.tool == "harness"
            else "give what is compared the same name in both",
        )
    for key in wanted:
        if base.series[key].unit != new.series[key].unit:
            raise InputError(
                f"not comparable: {key[0]} is in {base.series[key].unit} in BASE and in "
                f"{new.series[key].unit} in NEW",
                hint="compare values of one unit",
            )
    return wanted


def _say_cases(side: Side) -> str:
    cases = [case for case in side.cases if not case[0].endswith(AA_SUFFIX)]
    names = sorted({" with ".join(part for part in case if part) for case in cases})
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{side.label} has {', '.join(names[:_SHOWN])}{more}"
    total = sum(count for count, _ in side.trials.values())
    failed = sum(count for _, count in side.trials.values())
    reason = f": all of its {total} trials failed" if total and failed == total else ""
    return f"{side.label} has nothing{reason}"


def _is_headline(key: Key) -> bool:
    metric = METRICS.get(key[2])
    return not key[3] and (key[2] == METRIC or (metric is not None and metric.headline))


def _compare(base: Side, new: Side, keys: Sequence[Key], terms: Terms) -> tuple[Comparison, ...]:
    pairs = [_align(base.series[key], new.series[key]) for key in keys]
    found = compare_samples(pairs, base.seed)
    withheld = [_find_reason(base, new, key, pair) for key, pair in zip(keys, pairs, strict=True)]
    usable = np.array([not reason for reason in withheld])
    p_values = correct_holm(np.where(usable, found.p, np.nan))
    floors = [find_floors(side) for side in (base, new)]
    comparisons = []
    for number, key in enumerate(keys):
        one, other = base.series[key], new.series[key]
        floor = find_floor(floors, key, one.kind)
        low, high, p = found.low[number], found.high[number], p_values[number]
        blur, reason = found.blur[number], withheld[number]
        verdict = "inconclusive"
        if not reason:
            span = (found.ratio[number], low, high)
            verdict = find_change(_find_unit(key, one), span, p, terms.threshold, floor or 0.0)
        absent = bool(one.broken or other.broken)
        comparisons.append(
            Comparison(
                *key,
                unit=one.unit,
                n_base=len(one.values),
                n_new=len(other.values),
                base=None if absent else float(np.median(one.values)),
                new=None if absent else float(np.median(other.values)),
                ratio=_known(found.ratio[number], reason),
                low=_known(low, reason),
                high=_known(high, reason),
                shift=None if absent else _find_shift(one, other, found.shift[number]),
                p=_known(p, reason),
                floor=floor,
                detectable=_known(_find_detectable(blur, floor, terms), reason),
                verdict=verdict,
                regression=_is_regression(key, verdict),
                withheld=reason,
            )
        )
    return tuple(comparisons)


def _align(base: Series, new: Series) -> tuple[Floats, Floats]:
    """The values of both; where all are one and the same, zero too, their ratio is 1."""
    one, other = base.values, new.values
    if len(one) and len(other) and (one == one[0]).all() and (other == one[0]).all():
        return np.ones_like(one), np.ones_like(other)
    return (one if len(one) else np.zeros(1)), (other if len(other) else np.zeros(1))


def _find_detectable(blur: float, floor: float | None, terms: Terms) -> float:
    """The least change that would be found with 80 % power; ``blur`` is `Differences.blur`."""
    reach = np.log1p(terms.threshold) + blur
    # Beyond the floor must lie the ratio alone, which scatters by a fraction of that blur.
    beyond = np.log1p(floor or 0.0) + blur * POINT_SHARE
    return float(np.expm1(max(reach, beyond)))


def _find_shift(base: Series, new: Series, shift: float) -> float | None:
    return float(shift) if len(base.values) and len(new.values) else None


def _find_reason(base: Side, new: Side, key: Key, pair: tuple[Floats, Floats]) -> str:
    """Why there is no verdict, or an empty string."""
    for side, values in ((base, pair[0]), (new, pair[1])):
        series = side.series[key]
        if series.broken:
            return f"{side.label}: {series.broken}"
        fixed = is_image_size(key[2])  # nothing in a trial can change it
        refusal = find_refusal([""] * len(series.marks) if fixed else list(series.marks))
        if refusal:
            return f"{side.label}: {refusal}"
        if (values <= 0).any():
            return f"{side.label}: values of 0 or less have no ratio"
    return ""


def _find_unit(key: Key, series: Series) -> str:
    metric = METRICS.get(key[2])
    return metric.unit if metric else series.unit


def _known(value: float, withheld: str) -> float | None:
    return None if withheld or not np.isfinite(value) else float(value)


def find_change(
    unit: str, span: tuple[float, float, float], p: float, threshold: float, floor: float = 0.0
) -> str:
    """The word for a ratio of a metric in ``unit``; ``span`` is the ratio and its interval.

    For a change, the whole interval must lie beyond the threshold, and the ratio beyond the noise
    floor. Equivalence needs the whole interval within the threshold, and noise that could have
    shown more.
    """
    below, above = ("faster", "slower") if unit == "s" else ("smaller", "larger")
    ratio, low, high = np.log(span)
    practical, noise = np.log1p(threshold), np.log1p(floor)
    if p < SIGNIFICANT and high < -practical and ratio < -noise:
        return below
    if p < SIGNIFICANT and low > practical and ratio > noise:
        return above
    within = low >= -practical and high <= practical
    return "equivalent" if within and noise <= practical else "inconclusive"


def _is_regression(key: Key, verdict: str) -> bool:
    """Whether a change is for the worse; some metrics have no better way. Other tools: less."""
    metric = METRICS.get(key[2])
    lower_is_better = True if metric is None else metric.lower_is_better
    worse = {True: ("slower", "larger"), False: ("faster", "smaller"), None: ()}[lower_is_better]
    return verdict in worse


def _list_cases(side: Side, other: Side) -> tuple[Case, ...]:
    """Platforms with workloads that only the first side measured; A/A arms are none."""
    there = set(other.cases)
    return tuple(
        each for each in side.cases if each not in there and not each[0].endswith(AA_SUFFIX)
    )


def _find_broken(base: Side, new: Side) -> tuple[Case, ...]:
    found = []
    for case in base.cases:
        total, failed = new.trials.get(case, (0, 0))
        if total and failed == total and not case[0].endswith(AA_SUFFIX):
            found.append(case)
    return tuple(found)
