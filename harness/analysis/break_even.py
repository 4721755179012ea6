"""Break-even: when a later start, and a larger share of the memory, begin and cease to matter.

Both follow from figures of the run and one stated assumption each. Nothing is said of a figure that
is withheld, of a difference whose interval reaches across 0, nor of one that the parity certificate
refuses. Memory is that of one method and one workload throughout: two methods are never compared,
nor instances that work with some that rest.
"""

from dataclasses import dataclass

from harness.analysis.results import Figure, Results, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    format_number,
    quote,
    shorten_reason,
    split_figure,
)
from harness.units import find_seconds_unit, format_bytes

SHARE = 0.01
"""The start no longer matters where it is under this share of the whole."""

READY = "startup.ready"
MEMORY = ("memory.marginal", "memory.pss")
"""What one more instance costs: the slope over running instances, else the PSS of one."""

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Span:
    """A value with its 95 % interval."""

    middle: float
    low: float
    high: float

    def scale(self, factor: float) -> "Span":
        return Span(self.middle * factor, self.low * factor, self.high * factor)


def find_penalty(results: Results, platform: str, workload: str) -> Span | None:
    """Seconds that a start takes longer than the reference's, from the ratio paired in blocks.

    None without a ratio, for a withheld one, and where the platform is not surely later.
    """
    figure = results.find(results.reference or "", workload, READY)
    ratio = results.find_ratio(platform, workload, READY)
    if figure is None or ratio is None or figure.withheld or ratio.withheld or ratio.low <= 1:
        return None
    return Span(ratio.median - 1, ratio.low - 1, ratio.high - 1).scale(figure.median)


def find_work(penalty: Span) -> Span:
    """Seconds of work after which the penalty is under `SHARE` of penalty and work together."""
    return penalty.scale((1 - SHARE) / SHARE)


@dataclass(frozen=True, slots=True)
class Basis:
    """What the memory of every platform is read from: one metric and one workload."""

    metric: str
    workload: str


def find_basis(results: Results) -> Basis | None:
    """The first of `MEMORY`, and the first workload, that tell surely what one more instance costs
    on the reference and on another platform; None where none does."""
    for metric in MEMORY:
        for workload in results.workloads:
            basis = Basis(metric, workload)
            known = [name for name in results.first_arms if find_memory(results, name, basis)]
            if results.reference in known and len(known) > 1:
                return basis
    return None


def find_memory(results: Results, platform: str, basis: Basis) -> Figure | None:
    """What one more instance surely costs there; None where that is withheld, or may be nothing."""
    figure = results.find(platform, basis.workload, basis.metric)
    if figure is None or figure.withheld or figure.low <= 0:
        return None
    return figure


def find_doubt(results: Results, platform: str, basis: Basis) -> str:
    """Why a platform that was measured has no `find_memory`."""
    figure = results.find(platform, basis.workload, basis.metric)
    if figure is None:
        return "not measured"
    return shorten_reason(figure.withheld) or "perhaps nothing: its interval reaches to 0"


def find_filling(figure: Figure, other: Figure, total: float) -> Span | None:
    """Instances at which the difference in memory alone fills the host's ``total`` bytes.

    Its interval is that of the difference of two intervals, so wider than needed. None where the
    difference is not surely above 0.
    """
    least, most = figure.low - other.high, figure.high - other.low
    if least <= 0:
        return None
    return Span(total / (figure.median - other.median), total / most, total / least)


def find_density(figure: Figure) -> Span:
    """Instances per GiB of host memory."""
    return Span(_GIB / figure.median, _GIB / figure.high, _GIB / figure.low)


def build_work(results: Results) -> Table | None:
    """After how much work the start no longer matters, by platform and workload."""
    rows = []
    for workload in results.workloads:
        for platform in results.first_arms:
            penalty = find_penalty(results, platform, workload)
            if penalty is None:
                continue
            cells = (
                Cell(quote(workload)),
                build_seconds(penalty),
                build_seconds(find_work(penalty)),
            )
            rows.append(Row(describe_platform(results, platform, quoted=True), cells, platform))
    if not rows:
        return None
    head = ("platform", "workload", "later by", "under 1 % after work of")
    note = "Assumed: once ready, the work itself takes as long on both."
    return Table(f"Start against {quote(results.reference or '')}", head, tuple(rows), note=note)


def build_filling(results: Results) -> Table | None:
    """How many instances fit, and how many of them the difference in memory costs the host.

    Platforms whose memory is not known by the table's method stand there with the reason.
    """
    basis = find_basis(results)
    if basis is None:
        return None
    total = get_mapping(results.manifest, "host").get("memory")
    size = total if isinstance(total, int) else None
    rows = tuple(
        _build_filling_row(results, platform, basis, size)
        for platform in results.first_arms
        if find_memory(results, platform, basis) or _is_measured(results, platform, basis.workload)
    )
    said = f" ({format_bytes(size)})" if size is not None else ""
    head = (
        "platform",
        "one more instance",
        "instances per GiB",
        f"difference fills the host{said}",
    )
    note = (
        f"By {quote(basis.metric)} of {quote(basis.workload)}, on every platform. Assumed: every "
        "further instance costs what one more did, and all of the host's memory is there for "
        f"instances. The difference is to {quote(results.reference or '')}."
    )
    return Table("Memory against the host", head, rows, note=note)


def _is_measured(results: Results, platform: str, workload: str) -> bool:
    return any(results.find(platform, workload, metric) for metric in MEMORY)


def _build_filling_row(results: Results, platform: str, basis: Basis, total: int | None) -> Row:
    head = describe_platform(results, platform, quoted=True)
    figure = find_memory(results, platform, basis)
    if figure is None:
        doubt = Cell(ABSENT, find_doubt(results, platform, basis), "doubt")
        return Row(head, (doubt, Cell(ABSENT), Cell(ABSENT)), platform)
    cells = (
        Cell(*split_figure(figure)),
        build_count(find_density(figure)),
        _build_difference(results, platform, basis, total),
    )
    return Row(head, cells, platform)


def _build_difference(results: Results, platform: str, basis: Basis, total: int | None) -> Cell:
    """At how many instances the difference to the reference fills the host; or why not."""
    if refusal := results.find_refusal(platform, basis.workload, basis.metric):
        return Cell(ABSENT, shorten_reason(refusal), "doubt")
    figure = find_memory(results, platform, basis)
    other = find_memory(results, results.reference or "", basis)
    if figure is None or other is None or total is None:
        return Cell(ABSENT)
    filling = find_filling(figure, other, total)
    return build_count(filling) if filling else Cell(ABSENT)


def build_seconds(span: Span) -> Cell:
    length, unit = find_seconds_unit(span.middle)
    middle, low, high = (
        format_number(each / length) for each in (span.middle, span.low, span.high)
    )
    return Cell(f"{middle} {unit}", f"{low}–{high}")


def build_count(span: Span) -> Cell:
    middle, low, high = (format_number(each) for each in (span.middle, span.low, span.high))
    return Cell(middle, f"{low}–{high}")
