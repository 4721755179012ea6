"""A claim on platforms: every one of one side held against every one of the other.

The verdict on a pair is the run's own wherever the run compared the two (Holm-corrected with all
its others). All other pairs are compared by the same method, corrected over the claim's pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from harness.analysis.answer import find_workload
from harness.analysis.claim_list import Claim
from harness.analysis.claims_apart import (
    find_packings,
    format_range,
    judge_apart,
    judge_packings,
    say_packings,
)
from harness.analysis.claims_finding import DEPENDS, NOT_MEASURED, Finding, combine
from harness.analysis.memory import (
    PSS,
    find_daemon,
    find_memory_workload,
    say_daemon,
    say_ended,
)
from harness.analysis.pairs import COMPARED
from harness.analysis.ratios import find_words
from harness.analysis.results import Figure, Ratio, Results, compare_pairs
from harness.analysis.wording import (
    describe_accelerator,
    describe_platform,
    format_figure,
    format_ratio,
    quote,
    shorten_reason,
)
from harness.metrics import METRICS, is_image_size
from harness.units import format_bytes

_MOVED = ("portability.shared_base", "portability.update")
"""Bytes whose seconds were measured with the same image."""


@dataclass(frozen=True)
class Case:
    """What a claim is decided on: a metric of one workload, and the ratios of its pairs."""

    results: Results
    metric: str
    workload: str
    ratios: Mapping[tuple[str, str], Ratio]

    def find(self, platform: str) -> Figure | None:
        return self.results.find(platform, self.workload, self.metric)

    def find_packings(self, platform: str) -> dict[str, Figure]:
        """What travels has packings; those of other metrics are no choice of the sender."""
        if METRICS[self.metric].area != "portability":
            return {}
        return find_packings(self.results, platform, self.workload, self.metric)

    def is_known(self, platform: str) -> bool:
        return self.find(platform) is not None or bool(self.find_packings(platform))


def decide_platforms(results: Results, claim: Claim) -> Finding:
    """The finding on all pairs of a claim's two sides."""
    absent = Finding(NOT_MEASURED, note=f"this run has no {quote(claim.metric)} on both sides")
    smaller, larger = (select(results, word) for word in (claim.smaller, claim.larger))
    for side, word in ((smaller, claim.smaller), (larger, claim.larger)):
        if not side:
            return Finding(NOT_MEASURED, note=f"no {quote(word)} in this run")
    case = _find_case(results, claim.metric, smaller, larger)
    if case is None:
        return absent
    found = [
        _judge_pair(case, small, large)
        for small in smaller
        for large in larger
        if small != large and case.is_known(small) and case.is_known(large)
    ]
    whole = combine(found)
    if whole is None:
        return absent
    return replace(whole, note=f"{_say_workload(case)}{whole.note}{_say_more(case, smaller)}")


def select(results: Results, word: str) -> tuple[str, ...]:
    """The platforms of a kind, or the one of that name; the run's reference first."""
    found = [name for name in results.first_arms if word in (name, results.kinds[name])]
    return tuple(sorted(found, key=lambda name: name != results.reference))


def find_reason(results: Results, metric: str, platforms: Sequence[str]) -> str:
    """Why emulation leaves a metric without a verdict; empty where it does not."""
    burdened = metric == "startup.cpu" or METRICS[metric].area == "efficiency"
    if burdened and any(map(results.is_emulated, platforms)):
        return f"{describe_accelerator('tcg')}: work in software says nothing of hardware"
    return ""


def _find_case(
    results: Results, metric: str, smaller: Sequence[str], larger: Sequence[str]
) -> Case | None:
    """The answer's own workload, else the first that both sides have the metric of."""
    first = find_workload(results)
    if METRICS[metric].area == "memory":
        first = find_memory_workload(results, first)
    for workload in dict.fromkeys((first, *results.workloads)):
        case = Case(results, metric, workload, {})
        if all(any(map(case.is_known, side)) for side in (smaller, larger)):
            ratios = compare_pairs(results, metric, workload, (smaller, larger))
            return replace(case, ratios=ratios)
    return None


# ---- one pair ----------------------------------------------------------------------------------


def _judge_pair(case: Case, small: str, large: str) -> Finding:
    emulated = any(map(case.results.is_emulated, (small, large)))
    said = f"{_say_side(case, small)}; {_say_side(case, large)}"
    return replace(_judge(case, small, large, said), emulated=emulated)


def _judge(case: Case, small: str, large: str, said: str) -> Finding:
    results, metric = case.results, case.metric
    if reason := find_reason(results, metric, (small, large)):
        return Finding("withheld", note=f"{reason}. {said}")
    of_image = is_image_size(metric)
    refusal = results.certificate.find_refusal(large, small, case.workload, of_image=of_image)
    if refusal:
        return Finding("withheld", note=f"{refusal}. {said}")
    one, other = case.find_packings(small), case.find_packings(large)
    by_packing = judge_packings(one, other, said) if one and other else None
    if by_packing is not None and by_packing.verdict == DEPENDS:
        return by_packing
    lesser, greater = case.find(small), case.find(large)
    if lesser is None or greater is None:
        return by_packing or Finding(NOT_MEASURED, note=said)
    found = _find_ratio(case, small, large)
    return _judge_ratio(metric, *found, said) if found else judge_apart(lesser, greater, said)


def _find_ratio(case: Case, small: str, large: str) -> tuple[Ratio, bool] | None:
    """The pair's ratio, and whether it is the smaller side over the larger: the run's own where
    it has one, so that a page never has two verdicts on the same two."""
    results = case.results
    if case.metric in COMPARED and results.reference in (small, large):
        swapped = results.reference == large
        own = results.find_ratio(small if swapped else large, case.workload, case.metric)
        return (own, swapped) if own else None
    found = case.ratios.get((small, large))
    return (found, False) if found else None


def _judge_ratio(metric: str, ratio: Ratio, swapped: bool, said: str) -> Finding:
    """A ratio's verdict, in the words of a claim."""
    if ratio.withheld:
        return Finding("withheld", note=f"{shorten_reason(ratio.withheld)}. {said}")
    expected, opposite = find_words(metric) if swapped else find_words(metric)[::-1]
    words = {expected: "supported", opposite: "refuted", "equivalent": "equivalent"}
    weight = abs(log(ratio.median)) if ratio.median > 0 else 0.0
    verdict = words.get(ratio.verdict, "inconclusive")
    return Finding(verdict, format_ratio(ratio), said, weight)


# ---- in words ----------------------------------------------------------------------------------


def _say_side(case: Case, platform: str) -> str:
    """``docker`: 12.0 MiB + 121 MiB once, for its daemon``, or every packing of it."""
    name = describe_platform(case.results, platform, quoted=True)
    if packings := case.find_packings(platform):
        return f"{name}: {say_packings(packings)}"
    figure = case.find(platform)
    assert figure is not None
    daemon = say_daemon(case.results, platform, case.workload) if case.metric == PSS else ""
    return f"{name}: {format_range(figure)}{daemon}"


def _say_workload(case: Case) -> str:
    """``with `httpd`: `` where that is not the workload of the other claims."""
    ended = say_ended(case.results, case.workload) if METRICS[case.metric].area == "memory" else ""
    other = case.workload != find_workload(case.results)
    return f"with {quote(case.workload)}{ended}: " if other or ended else ""


def _say_more(case: Case, smaller: Sequence[str]) -> str:
    """What the verdict leaves out: an engine's daemons, and the seconds of what is moved."""
    if case.metric == PSS:
        return _say_daemons(case, smaller)
    return _say_seconds(case, f"{case.metric}_seconds") if case.metric in _MOVED else ""


def _say_daemons(case: Case, smaller: Sequence[str]) -> str:
    """``(`docker`: 13.5 MiB + 121 MiB once, for its daemon: a first instance takes 134 MiB)``."""
    said = []
    for name in smaller:
        daemon, own = find_daemon(case.results, name, case.workload), case.find(name)
        if daemon and own:
            total = format_bytes(own.median + daemon.median)
            said.append(f"{_say_side(case, name)}: a first instance takes {total}")
    return f". No verdict counts an engine's daemons ({'; '.join(said)})" if said else ""


def _say_seconds(case: Case, metric: str) -> str:
    """The time that goes with the bytes, from the fastest way to the slowest, for each platform."""
    found: dict[str, list[Figure]] = {}
    for (platform, workload, name, phase), figure in case.results.figures.items():
        if (workload, name) == (case.workload, metric) and "@" in phase and "/" not in phase:
            found.setdefault(platform, []).append(figure)
    parts = []
    for platform in (name for name in case.results.first_arms if name in found):
        ends = min(found[platform], key=_find_median), max(found[platform], key=_find_median)
        between = " to ".join(dict.fromkeys(map(format_figure, ends)))
        parts.append(f"{describe_platform(case.results, platform, quoted=True)}: {between}")
    return f". Until it is ready there, fastest way to slowest: {'; '.join(parts)}" if parts else ""


def _find_median(figure: Figure) -> float:
    return figure.median
