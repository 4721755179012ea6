"""What `compare` prints: rows for a table, lines for people, and a document for machines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from harness.analysis.compare_result import SIGNIFICANT, Comparison, Report
from harness.analysis.compare_sides import Case, Side
from harness.analysis.two_samples import CONFIDENCE, RESAMPLES
from harness.analysis.wording import ABSENT, format_number, format_p, format_share
from harness.store.foreign import METRIC
from harness.units import format_value

FORMAT = 1
"""Version of the document of `build_document`. History: 1, first release."""

_HEAD = ("platform", "workload", "metric", "base", "new", "new / base", "shift", "p", "floor",
         "detectable", "verdict")  # fmt: skip


def build_rows(report: Report) -> list[tuple[str, ...]]:
    """The table with its head: a row for each comparison."""
    return [_HEAD, *(_build_row(each) for each in report.comparisons)]


def _build_row(each: Comparison) -> tuple[str, ...]:
    metric = f"{each.metric} {each.phase}".strip()
    return (
        " ".join(each.platform.split()),
        each.workload or ABSENT,
        metric,
        f"{_format_value(each.base, each.unit)} (n {each.n_base})",
        f"{_format_value(each.new, each.unit)} (n {each.n_new})",
        _format_ratio(each),
        _format_shift(each),
        ABSENT if each.p is None else format_p(each.p),
        ABSENT if each.floor is None else format_share(each.floor),
        ABSENT if each.detectable is None else format_share(each.detectable),
        _format_verdict(each),
    )


def _format_verdict(each: Comparison) -> str:
    if each.withheld:
        return f"withheld: {each.withheld}"
    return f"{each.verdict}: regression" if each.regression else each.verdict


def _format_value(value: float | None, unit: str) -> str:
    if value is None:
        return ABSENT
    if unit == "×":
        return f"{format_number(value)} ×"
    return format_value(value, unit)


def _format_shift(each: Comparison) -> str:
    if each.shift is None:
        return ABSENT
    text = _format_value(each.shift, each.unit)
    return f"+{text}" if each.shift > 0 else text


def _format_ratio(each: Comparison) -> str:
    if each.ratio is None or each.low is None or each.high is None:
        return ABSENT
    ratio, low, high = (format_number(value) for value in (each.ratio, each.low, each.high))
    return f"{ratio} ×" if low == high == ratio else f"{ratio} × ({low}–{high})"


def list_lines(report: Report) -> list[str]:
    """What must be known beside the table, and last the verdict of the whole; without markup."""
    lines = [f"allowed: {each}" for each in report.accepted]
    lines += [f"only in BASE: {_format_case(each)}" for each in report.only_base]
    lines += [f"only in NEW: {_format_case(each)}" for each in report.only_new]
    lines += [f"note: {each}" for each in report.notes]
    lines += [
        f"regression: every trial of {_format_case(each)} failed in NEW" for each in report.broken
    ]
    lines += [f"regression: {_say(each)}" for each in report.regressions]
    return [line.replace("`", "") for line in [*lines, _conclude(report)]]


def _format_case(case: Case) -> str:
    return " with ".join(part for part in case if part)


def _say(each: Comparison) -> str:
    name = f"{each.metric} {each.phase}".strip()
    subject = _format_case((each.platform, each.workload))
    where = subject if each.metric == METRIC else f"{name} of {subject}"
    return f"{where} is {each.verdict}, {_format_ratio(each)}"


def _conclude(report: Report) -> str:
    compared = sum(not each.withheld for each in report.comparisons)
    withheld = len(report.comparisons) - compared
    worse = len(report.regressions) + len(report.broken)
    counted = f"{compared} comparison{'' if compared == 1 else 's'}"
    counted += f" ({withheld} withheld)" if withheld else ""
    threshold = f"a threshold of {format_share(report.terms.threshold)}"
    if worse:
        return f"{worse} regression{'' if worse == 1 else 's'} in {counted}, {threshold}"
    if not compared:
        return f"nothing could be compared: {withheld} withheld"
    return f"no regression in {counted}, {threshold}"


def build_document(report: Report) -> dict[str, object]:
    """The same for machines; what is not known is null. Keys are only ever added."""
    return {
        "format": FORMAT,
        "verdict": report.verdict,
        "base": _describe_side(report.base),
        "new": _describe_side(report.new),
        "threshold": report.terms.threshold,
        "significance": SIGNIFICANT,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "correction": "holm",
        "relative_to": report.terms.relative_to,
        "allowed": sorted(report.terms.allowed),
        "refused": [asdict(each) for each in report.refused],
        "accepted": [asdict(each) for each in report.accepted],
        "missing": [
            *_list_missing(report.only_base, "new"),
            *_list_missing(report.only_new, "base"),
        ],
        "broken": _list_missing(report.broken, "new"),
        "notes": list(report.notes),
        "comparisons": [asdict(each) for each in report.comparisons],
    }


def _describe_side(side: Side) -> Mapping[str, str]:
    return {"path": str(side.path), "name": side.name, "tool": side.tool}


def _list_missing(cases: Sequence[Case], where: str) -> list[dict[str, str]]:
    return [{"in": where, "platform": case[0], "workload": case[1]} for case in cases]
