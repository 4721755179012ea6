"""Common claims held against one run: supported, refuted, equivalent, inconclusive, or why not.

A verdict is the run's own wherever the run compared the two (Holm-corrected with all its others).
A metric outside that family, such as CPU time, is compared by the same method, corrected over its
own comparisons. Where nothing is paired, as between base images, only figures without spread are
judged, such as the bytes of an image: there is no second statistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from harness.analysis.answer import find_workload
from harness.analysis.bases import find_bases
from harness.analysis.claim_list import Claim
from harness.analysis.isolation import find_evidence, has_own_kernel
from harness.analysis.pairs import COMPARED
from harness.analysis.ratios import THRESHOLD, find_words
from harness.analysis.results import Figure, Ratio, Results, compare_apart
from harness.analysis.wording import (
    describe_accelerator,
    describe_platform,
    format_figure,
    format_number,
    format_ratio,
    format_share,
    quote,
    shorten_reason,
)
from harness.metrics import METRICS

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run says of a claim: the verdict, its figure and what that is of.

    ``weight`` says how far the figure is from no difference at all, on the logarithm.
    """

    verdict: str
    figure: str = ""
    note: str = ""
    weight: float = 0.0


def decide(results: Results, claim: Claim) -> Finding:
    """The finding on one claim, for the workload that the answer speaks of."""
    deciders = {
        "platforms": _decide_platforms,
        "bases": _decide_bases,
        "phases": _decide_phases,
        "kernel": _decide_kernel,
        "calls": _decide_calls,
    }
    if results.reference is None:
        return Finding(NOT_MEASURED, note="no measured trial was finished")
    return deciders[claim.by](results, claim)


# ---- one side of platforms against the other ---------------------------------------------------


def _decide_platforms(results: Results, claim: Claim) -> Finding:
    smaller, larger = (_select(results, word) for word in (claim.smaller, claim.larger))
    for side, word in ((smaller, claim.smaller), (larger, claim.larger)):
        if not side:
            return Finding(NOT_MEASURED, note=f"no {quote(word)} in this run")
    workload = _find_workload(results, claim.metric, (*smaller, *larger))
    if not workload:
        return Finding(NOT_MEASURED, note=f"this run has no {quote(claim.metric)}")
    first = results.reference in larger
    one = (larger if first else smaller)[0]
    others = smaller if first else larger
    found = [
        _compare(results, claim.metric, workload, *((other, one) if first else (one, other)))
        for other in others
    ]
    return _combine([each for each in found if each.verdict != NOT_MEASURED]) or found[0]


def _select(results: Results, word: str) -> tuple[str, ...]:
    """The platforms of a kind, or the one of that name; the run's reference first."""
    found = [name for name in results.first_arms if word in (name, results.kinds[name])]
    return tuple(sorted(found, key=lambda name: name != results.reference))


def _find_workload(results: Results, metric: str, platforms: Sequence[str]) -> str:
    names = dict.fromkeys((find_workload(results), *results.workloads))
    return next(
        (
            name
            for name in names
            if sum(_find(results, each, name, metric) is not None for each in platforms) > 1
        ),
        "",
    )


def _find(results: Results, platform: str, workload: str, metric: str) -> Figure | None:
    """The metric's own figure; where there are only packings of it, that of the smallest."""
    whole = results.find(platform, workload, metric)
    if whole is not None:
        return whole
    parts = [
        figure
        for (name, each, found, phase), figure in results.figures.items()
        if (name, each, found) == (platform, workload, metric) and not {"@", "/"} & set(phase)
    ]
    return min(parts, key=lambda figure: figure.median, default=None)


def _compare(results: Results, metric: str, workload: str, small: str, large: str) -> Finding:
    one, other = (_find(results, name, workload, metric) for name in (small, large))
    if one is None or other is None:
        return Finding(NOT_MEASURED, note=f"a side has no {quote(metric)}")
    names = [describe_platform(results, name, quoted=True) for name in (small, large)]
    said = f"{names[0]}: {format_figure(one)}; {names[1]}: {format_figure(other)}"
    if reason := _find_reason(results, metric, (small, large)):
        return Finding("withheld", note=f"{reason}. {said}")
    swapped = large == results.reference
    if results.reference not in (small, large):
        return _judge_apart(one, other, said)
    platform = small if swapped else large
    if refusal := results.find_refusal(platform, workload, metric):
        return Finding("withheld", note=f"{refusal}. {said}")
    ratio = _find_ratio(results, platform, workload, metric)
    if ratio is None:
        return _judge_apart(one, other, said)
    return _judge_ratio(ratio, metric, swapped, said)


def _find_ratio(results: Results, platform: str, workload: str, metric: str) -> Ratio | None:
    if metric in COMPARED:
        return results.find_ratio(platform, workload, metric)
    return compare_apart(results, metric).get((platform, workload, metric))


def _find_reason(results: Results, metric: str, platforms: Sequence[str]) -> str:
    """Why emulation leaves a metric without a verdict; empty where it does not."""
    burdened = metric == "startup.cpu" or METRICS[metric].area == "efficiency"
    if burdened and any(map(results.is_emulated, platforms)):
        return f"{describe_accelerator('tcg')}: work in software says nothing of hardware"
    return ""


def _judge_ratio(ratio: Ratio, metric: str, swapped: bool, said: str) -> Finding:
    """The run's own verdict, in the words of a claim."""
    if ratio.withheld:
        return Finding("withheld", note=f"{shorten_reason(ratio.withheld)}. {said}")
    expected, opposite = find_words(metric) if swapped else find_words(metric)[::-1]
    words = {expected: "supported", opposite: "refuted", "equivalent": "equivalent"}
    weight = abs(log(ratio.median)) if ratio.median > 0 else 0.0
    verdict = words.get(ratio.verdict, "inconclusive")
    return Finding(verdict, format_ratio(ratio), said, weight)


def _judge_apart(small: Figure, large: Figure, said: str) -> Finding:
    """Two figures that the run did not compare: judged only where neither has any spread."""
    if reason := small.withheld or large.withheld:
        return Finding("withheld", note=f"{shorten_reason(reason)}. {said}")
    if any(each.low != each.high for each in (small, large)):
        return Finding("inconclusive", note=f"not among the run's comparisons. {said}")
    gap = 1 + THRESHOLD
    verdict = "equivalent"
    if small.median * gap < large.median:
        verdict = "supported"
    elif large.median * gap < small.median:
        verdict = "refuted"
    times = f"{format_number(large.median / small.median)} ×" if small.median > 0 else ""
    return Finding(verdict, times, said)


def _combine(found: Sequence[Finding]) -> Finding | None:
    """One verdict on all: a single counterexample refutes, and the weakest support is shown."""
    if not found:
        return None
    for verdict in ("refuted", "withheld", "inconclusive"):
        if hits := [each for each in found if each.verdict == verdict]:
            return hits[0]
    equivalent = [each for each in found if each.verdict == "equivalent"]
    if equivalent and len(equivalent) < len(found):
        shown = equivalent[0]
        return Finding("inconclusive", shown.figure, f"not for all. {shown.note}")
    shown = min(found, key=lambda each: each.weight)
    least = f"the nearest of {len(found)}. " if len(found) > 1 else ""
    return Finding(shown.verdict, shown.figure, least + shown.note, shown.weight)


# ---- base images and phases --------------------------------------------------------------------


def _decide_bases(results: Results, claim: Claim) -> Finding:
    for application, workloads in find_bases(results).items():
        for platform in _select(results, "container"):
            found = [
                (figure.median, results.images[name], figure)
                for name in workloads
                if (figure := _find(results, platform, name, claim.metric))
            ]
            if len(found) > 1:
                small, large = min(found), max(found)
                said = f"{quote(small[1])}: {format_figure(small[2])}; " + (
                    f"{quote(large[1])}: {format_figure(large[2])}; {quote(application)}"
                )
                return _judge_apart(small[2], large[2], said)
    return Finding(NOT_MEASURED, note="no application ran on several bases (`run base-ladder`)")


def _decide_phases(results: Results, claim: Claim) -> Finding:
    for platform in results.platforms:
        for workload in results.workloads:
            one, other = (
                results.find(platform, workload, claim.metric, phase)
                for phase in (claim.smaller, claim.larger)
            )
            if one and other:
                said = f"{quote(claim.smaller)}: {format_figure(one)}; " + (
                    f"{quote(claim.larger)}: {format_figure(other)}"
                )
                if reason := _find_reason(results, claim.metric, (platform,)):
                    return Finding("withheld", note=f"{reason}. {said}")
                return _judge_apart(one, other, said)
    return Finding(NOT_MEASURED, note=f"this run has no {quote(claim.metric)} of both")


# ---- the kernel that answers -------------------------------------------------------------------


def _decide_kernel(results: Results, claim: Claim) -> Finding:
    evidence = find_evidence(results)
    shared, own = (
        [name for name in _select(results, word) if name in evidence]
        for word in (claim.smaller, claim.larger)
    )
    if not shared or not own:
        return Finding(NOT_MEASURED, note="no probe ran on both sides (`harness isolation`)")
    wrong = [name for name in shared if has_own_kernel(evidence[name])]
    wrong += [name for name in own if not has_own_kernel(evidence[name])]
    if wrong:
        names = ", ".join(describe_platform(results, name, quoted=True) for name in wrong)
        return Finding("refuted", f"{len(wrong)} otherwise", names)
    return Finding(
        "supported",
        f"{len(shared)} + {len(own)} seen",
        f"the host's kernel: {', '.join(map(quote, shared))}; its own: "
        f"{', '.join(describe_platform(results, name, quoted=True) for name in own)}",
    )


def _decide_calls(results: Results, claim: Claim) -> Finding:
    few, many = (_count_calls(results, word) for word in (claim.smaller, claim.larger))
    if not few or not many:
        return Finding(NOT_MEASURED, note="no probe ran on both sides (`harness isolation`)")
    most, least = max(few.values()), min(many.values())
    said = "; ".join(
        f"{describe_platform(results, name, quoted=True)}: {format_count(count)}"
        for name, count in (*many.items(), *few.items())
    )
    note = f"{said}. What a machine's own process may call on the host is not in it"
    verdict = "supported" if most < least else "refuted" if most > least else "equivalent"
    return Finding(verdict, f"{least:.0f} against {most:.0f}", note)


def _count_calls(results: Results, word: str) -> dict[str, float]:
    """System calls of the host's kernel that a workload reached, by platform."""
    found: dict[str, float] = {}
    for name, evidence in find_evidence(results).items():
        if name not in _select(results, word):
            continue
        figures = [
            figure.median
            for (platform, _, metric, phase), figure in results.figures.items()
            if (platform, metric, phase) == (name, "isolation.calls", "")
        ]
        if has_own_kernel(evidence) or figures:
            found[name] = 0.0 if has_own_kernel(evidence) else figures[0]
    return found


def format_count(count: float) -> str:
    return f"{count:.0f}" if count else "none"


def say_rule() -> str:
    """How a verdict on a claim comes about, in a sentence."""
    return (
        "A claim is held against every machine of the run: one counterexample refutes it. Where "
        "the run compared the two, its own verdict counts; a metric that is not among the run's "
        "comparisons is compared by the same method, corrected over its own. Where nothing is "
        "paired, only figures without spread are judged, by a difference of more than "
        f"{format_share(THRESHOLD)}."
    )
