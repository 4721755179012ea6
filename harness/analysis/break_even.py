"""Break-even: when a later start, and a larger share of the memory, begin and cease to matter.

Both follow from figures of the run and one stated assumption each. Nothing is said of a figure that
is withheld, nor of a difference whose interval reaches across 0.
"""

from dataclasses import dataclass

from harness.analysis.results import Figure, Results, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    format_number,
    quote,
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


def find_memory(results: Results, platform: str) -> tuple[str, Figure, Figure] | None:
    """What one more instance costs here and on the reference, and the metric that says so."""
    for metric in MEMORY:
        for workload in results.workloads:
            figure = results.find(platform, workload, metric)
            other = results.find(results.reference or "", workload, metric)
            if figure and other and not figure.withheld and not other.withheld and figure.low > 0:
                return metric, figure, other
    return None


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
    """How many instances fit, and how many of them the difference in memory costs the host."""
    host = get_mapping(results.manifest, "host")
    total = host.get("memory")
    rows = []
    for platform in results.first_arms:
        found = find_memory(results, platform)
        if found is None:
            continue
        metric, figure, other = found
        filling = find_filling(figure, other, total) if isinstance(total, int) else None
        cells = (
            Cell(format_bytes(figure.median), quote(metric)),
            build_count(find_density(figure)),
            build_count(filling) if filling else Cell(ABSENT),
        )
        rows.append(Row(describe_platform(results, platform, quoted=True), cells, platform))
    if not rows:
        return None
    size = f" ({format_bytes(total)})" if isinstance(total, int) else ""
    head = (
        "platform",
        "one more instance",
        "instances per GiB",
        f"difference fills the host{size}",
    )
    note = (
        "Assumed: every further instance costs what one more did, and all of the host's memory is "
        f"there for instances. The difference is to {quote(results.reference or '')}."
    )
    return Table("Memory against the host", head, tuple(rows), note=note)


def build_seconds(span: Span) -> Cell:
    length, unit = find_seconds_unit(span.middle)
    middle, low, high = (
        format_number(each / length) for each in (span.middle, span.low, span.high)
    )
    return Cell(f"{middle} {unit}", f"{low}–{high}")


def build_count(span: Span) -> Cell:
    middle, low, high = (format_number(each) for each in (span.middle, span.low, span.high))
    return Cell(middle, f"{low}–{high}")
