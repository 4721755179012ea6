"""How starts fare in a storm: quantiles of the time to ready, and starts per second and core.

A quantile is one of a single storm: of its K starts, how long that share of them took at most. The
figure is the median of it over the storms of a kind, and its 95 % interval is by the ranks of the
storms (`quantiles`): starts of one storm hinder each other, so that only whole storms are
independent. A start that failed was never ready; it counts as one that took without end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isinf

import numpy as np

from harness.analysis.aggregate import LEAST_BLOCKS, MOST_MARKED, find_disturbances, find_refusal
from harness.analysis.quantiles import count_least_blocks, find_quantile_interval
from harness.analysis.results import Figure, Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    quote,
    shorten_reason,
    split_figure,
)
from harness.model import Outcome
from harness.units import format_seconds

READY = "storm.ready"
RATE = "storm.rate"
SHARES = (0.5, 0.95, 0.99)
BURST = "burst"
LEAD = (
    "What many starts at once do to each. Times count from the moment at which an instance was to "
    "start, fixed beforehand, so that no delay hides behind another."
)
_STORM = "storm"


@dataclass(frozen=True, slots=True)
class Once:
    """One storm: seconds to ready of its starts (inf for one that failed), and its rate if any.

    ``late`` is the worst lateness of a request in seconds.
    """

    ready: Sequence[float]
    marks: str
    rate: float | None
    late: float


@dataclass(frozen=True, slots=True)
class Storms:
    """All storms of one kind on one platform, with as many starts; in the order they were run."""

    platform: str
    workload: str
    kind: str
    starts: int
    storms: Sequence[Once]
    cut: str = ""

    @property
    def failed(self) -> int:
        return sum(isinf(each) for storm in self.storms for each in storm.ready)


def list_storms(results: Results) -> list[Storms]:
    """Every kind of storm that was run, in the order of the report: bursts first. Not those of
    which an interrupted run has only a part: they would pass for smaller ones."""
    found: dict[tuple[str, str, str, int], dict[int, list[Outcome]]] = {}
    for outcome in results.outcomes:
        told = outcome.details.get(_STORM)
        if isinstance(told, Mapping) and "refused" not in told:
            key = (outcome.platform, outcome.workload, str(told["kind"]), outcome.instances)
            found.setdefault(key, {}).setdefault(outcome.block, []).append(outcome)
    whole = {
        key: {number: starts for number, starts in blocks.items() if len(starts) == key[-1]}
        for key, blocks in found.items()
    }
    storms = [
        Storms(*key, [_read_once(blocks[each]) for each in sorted(blocks)], _find_cut(blocks))
        for key, blocks in whole.items()
        if blocks
    ]
    order = {name: place for place, name in enumerate(results.platforms)}
    return sorted(storms, key=lambda each: (each.kind != BURST, each.kind, order[each.platform]))


def _read_once(outcomes: Sequence[Outcome]) -> Once:
    rows = {
        (number, row.metric): row.value
        for number, outcome in enumerate(outcomes)
        for row in outcome.measurements
    }
    rates = [value for (_, metric), value in rows.items() if metric == RATE]
    marks = dict.fromkeys(mark for outcome in outcomes for mark in outcome.marks)
    return Once(
        [rows.get((number, READY), inf) for number in range(len(outcomes))],
        " ".join(marks),
        rates[0] if rates else None,
        max((value for (_, metric), value in rows.items() if metric == "storm.late"), default=0.0),
    )


def _find_cut(blocks: Mapping[int, Sequence[Outcome]]) -> str:
    for outcomes in blocks.values():
        told = outcomes[0].details[_STORM]
        if isinstance(told, Mapping) and "cut" in told:
            return f"cut from {told['asked']}: {told['cut']}"
    return ""


def find_disturbed(storms: Sequence[Once]) -> str:
    """Why no figure of these storms is shown, by their marks; empty where one is."""
    bad = sum(bool(find_disturbances(each.marks)) for each in storms)
    if len(storms) >= LEAST_BLOCKS and bad <= MOST_MARKED * len(storms):
        return ""
    reason = find_refusal([each.marks for each in storms])
    return (
        reason.replace("blocks", "storms").replace("block,", "storm,").replace("trials", "storms")
    )


def find_quantile(storms: Storms, share: float) -> Figure:
    """The quantile ``share`` of a single storm's starts, in seconds: median over the storms.

    ``withheld`` says why there is none: fewer starts than it takes for the share to be another
    start than the slowest, too few storms for an interval, too many disturbed, or failed starts.
    """
    ranks = [np.quantile(each.ready, share, method="inverted_cdf") for each in storms.storms]
    row = np.sort(np.asarray(ranks, dtype=float))[np.newaxis]
    size, least = len(ranks), count_least_blocks(0.5)
    reason = find_disturbed(storms.storms)
    if storms.starts < (needed := ceil(round(1 / (1 - share), 6))):
        reason = f"{needed} starts are needed in a storm, {storms.starts} were made"
    elif size < least:
        reason = _say_few(size, least)
    elif isinf(row[0, -1]):
        reason = "starts failed"
    if reason:
        return Figure(size, np.nan, np.nan, np.nan, "s", reason)
    low, high = find_quantile_interval(row, 0.5)
    return Figure(size, float(np.median(row)), float(low[0]), float(high[0]), "s")


def _say_few(size: int, least: int) -> str:
    return f"{least} storms are needed, {size} {'was' if size == 1 else 'were'} run"


def find_rate(storms: Storms) -> Figure:
    """Starts per second and core: median over the storms, with the same rules."""
    rates = [each.rate for each in storms.storms if each.rate is not None]
    reason = find_disturbed(storms.storms)
    if len(rates) < len(storms.storms):
        reason = "starts failed"
    elif len(rates) < (least := count_least_blocks(0.5)):
        reason = _say_few(len(rates), least)
    if reason:
        return Figure(len(rates), np.nan, np.nan, np.nan, "1/s", reason)
    row = np.sort(np.asarray(rates, dtype=float))[np.newaxis]
    low, high = find_quantile_interval(row, 0.5)
    return Figure(len(rates), float(np.median(row)), float(low[0]), float(high[0]), "1/s")


def describe_kind(storms: Storms) -> str:
    """``burst of 16``, ``16 at 2/s``."""
    if storms.kind == BURST:
        return f"burst of {storms.starts}"
    return f"{storms.starts} at {storms.kind}"


def build_storms(results: Results) -> Table | None:
    """One row for each kind of storm on each platform; None for a run without any."""
    rows = [_build_row(results, each) for each in list_storms(results)]
    rows += _list_refused(results)
    if not rows:
        return None
    heads = (
        "platform", "workload", "storm", "storms", "alone", "p50", "p95", "p99",
        "starts/s/core", "failed",
    )  # fmt: skip
    note = (
        "From the intended start to ready. p50, p95 and p99 are those of a single storm's starts: "
        "the median over storms, with its 95 % interval by their ranks. Starts/s/core: a burst's "
        "instances over the time until its last was ready, and the host's CPUs. Alone: "
        f"`startup.ready` of one instance beside nothing.{_describe_cpus(results)}"
    )
    return Table("Boot storms", heads, tuple(rows), note=note)


def _describe_cpus(results: Results) -> str:
    """An emulated guest's start is work of the host's CPUs, so that it shares them with others."""
    if not any(results.is_emulated(each.platform) for each in list_storms(results)):
        return ""
    return " Emulated machines are no measure of those under hardware virtualisation."


def _build_row(results: Results, storms: Storms) -> Row:
    alone = results.find(storms.platform, storms.workload, "startup.ready")
    late = max(each.late for each in storms.storms)
    failed = Cell(str(storms.failed) if storms.failed else "none")
    cells = (
        Cell(quote(storms.workload)),
        Cell(describe_kind(storms), storms.cut),
        Cell(str(len(storms.storms)), f"requests at most {format_seconds(late)} late"),
        _build_cell(alone) if alone else Cell(ABSENT),
        *(_build_cell(find_quantile(storms, share)) for share in SHARES),
        _build_cell(find_rate(storms)) if storms.kind == BURST else Cell(ABSENT),
        failed,
    )
    head = describe_platform(results, storms.platform, quoted=True)
    return Row(head, cells, storms.platform)


def _build_cell(figure: Figure) -> Cell:
    if figure.withheld:
        return Cell("withheld", shorten_reason(figure.withheld), "doubt")
    return Cell(*split_figure(figure))


def _list_refused(results: Results) -> list[Row]:
    """A row for each kind of storm that the host had no room for."""
    found: dict[tuple[str, str, str, str], str] = {}
    for outcome in results.outcomes:
        told = outcome.details.get(_STORM)
        if isinstance(told, Mapping) and "refused" in told:
            size = f"{told['asked']}, {told['kind']}"
            found[outcome.platform, outcome.workload, str(told["kind"]), size] = str(
                told["refused"]
            )
    return [
        Row(
            describe_platform(results, platform, quoted=True),
            (Cell(quote(workload)), Cell(size, f"not begun: {why}", "doubt"), *[Cell(ABSENT)] * 7),
            platform,
        )
        for (platform, workload, _, size), why in found.items()
    ]
