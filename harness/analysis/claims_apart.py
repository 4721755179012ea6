"""Figures that the run did not pair, such as bytes: judged by their ranges, packing by packing."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import log

from harness.analysis.claims_finding import DEPENDS, Finding
from harness.analysis.ratios import THRESHOLD
from harness.analysis.results import Figure, Results
from harness.analysis.wording import (
    PACKINGS,
    format_figure,
    format_number,
    quote,
    shorten_reason,
)

_JUDGED = ("supported", "refuted", "equivalent", "inconclusive")


def judge_apart(small: Figure, large: Figure, said: str) -> Finding:
    """Two figures that the run did not pair.

    Bytes are judged by their ranges, which have to lie apart, or together, by the threshold as a
    whole: hardly anything of them is chance. Of others only those without any spread are.
    """
    if reason := small.withheld or large.withheld:
        return Finding("withheld", note=f"{shorten_reason(reason)}. {said}")
    exact = all(each.low == each.high for each in (small, large))
    if not exact and {small.unit, large.unit} != {"B"}:
        return Finding("inconclusive", note=f"not paired, and no bytes. {said}")
    times, weight = "", 0.0
    if small.median > 0 and large.median > 0:
        times = f"{format_number(large.median / small.median)} ×"
        weight = abs(log(large.median / small.median))
    verdict = _judge_ranges(small, large)
    note = f"the ranges overlap or touch. {said}" if verdict == "inconclusive" else said
    return Finding(verdict, times, note, weight)


def _judge_ranges(small: Figure, large: Figure) -> str:
    gap = 1 + THRESHOLD
    if small.high * gap < large.low:
        return "supported"
    if large.high * gap < small.low:
        return "refuted"
    alike = small.high <= large.low * gap and large.high <= small.low * gap
    return "equivalent" if alike else "inconclusive"


def format_range(figure: Figure) -> str:
    """As `format_figure`, with the range in bytes where three digits do not show it."""
    text = format_figure(figure)
    if figure.unit != "B" or figure.low == figure.high or "(" in text:
        return text
    return f"{text} ({figure.low:.0f}–{figure.high:.0f} B)"


# ---- packings ----------------------------------------------------------------------------------


def find_packings(results: Results, platform: str, workload: str, metric: str) -> dict[str, Figure]:
    """What a platform's image travels in, by packing, the smallest first."""
    found = {
        phase: figure
        for (name, each, known, phase), figure in results.figures.items()
        if (name, each, known) == (platform, workload, metric) and phase in PACKINGS
    }
    return dict(sorted(found.items(), key=lambda entry: (entry[1].median, entry[0])))


def say_packings(packings: Mapping[str, Figure]) -> str:
    """``oci-gzip` 628 KiB, `oci-zstd` 628 KiB``."""
    return ", ".join(
        f"{quote(name)} {format_range(figure)}{' (withheld)' if figure.withheld else ''}"
        for name, figure in packings.items()
    )


def judge_packings(small: Mapping[str, Figure], large: Mapping[str, Figure], said: str) -> Finding:
    """Each packing against the same one of the other side; where they share none, every one
    against every one. Where these do not agree, it depends on the packing, and the finding says
    which is which."""
    alike = [(name, name) for name in small if name in large]
    pairs = alike or [(one, other) for one in small for other in large]
    found = {(one, other): judge_apart(small[one], large[other], said) for one, other in pairs}
    judged = {pair: each for pair, each in found.items() if each.verdict in _JUDGED}
    if not judged:
        return next(iter(found.values()))
    nearest = min(judged.values(), key=lambda each: each.weight)
    verdicts = {each.verdict for each in judged.values()}
    if len(verdicts) == 1:
        return replace(nearest, note=said)
    ratios = sorted(large[other].median / small[one].median for one, other in judged)
    return Finding(
        DEPENDS,
        f"{format_number(ratios[0])} to {format_number(ratios[-1])} ×",
        f"{_say_sides(judged)}. {said}",
        nearest.weight,
    )


def _say_sides(judged: Mapping[tuple[str, str], Finding]) -> str:
    """``supported against `qcow2`; refuted against `casync```: by the packing of the larger side
    where that alone decides, else by pairs."""
    by_verdict: dict[str, list[tuple[str, str]]] = {}
    for pair, finding in judged.items():
        by_verdict.setdefault(finding.verdict, []).append(pair)
    others = {other for _, other in judged}
    alone = all(
        len({finding.verdict for (_, name), finding in judged.items() if name == other}) == 1
        for other in others
    )
    parts = []
    for verdict in (each for each in _JUDGED if each in by_verdict):
        pairs = by_verdict[verdict]
        names: Iterable[str] = (
            dict.fromkeys(quote(other) for _, other in pairs)
            if alone
            else (f"{quote(one)} against {quote(other)}" for one, other in pairs)
        )
        parts.append(f"{verdict} {'against ' if alone else 'for '}{', '.join(names)}")
    return "; ".join(parts)
