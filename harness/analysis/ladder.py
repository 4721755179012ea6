"""The ladder of virtual machines: when each milestone was reached, and the phases in between.

Milestones are medians over blocks with intervals, as everywhere. Phases are means: the mean of a
sum is the sum of the means, so they add up to the total as printed; medians do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from harness.analysis.results import Figure, Results
from harness.analysis.statistics import summarise_groups
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import ABSENT, describe_platform, find_traits, quote
from harness.metrics import describe_phase
from harness.model import RESIDUAL, STARTUP_MILESTONES, Outcome, build_phases

RUNGS = STARTUP_MILESTONES[1:]
RESPONSE = "response"
STOP_PHASES = ("end", "libvirt", "destroy", RESIDUAL)
_STOP_WORDS = {
    "end": "the guest's own shutdown",
    "libvirt": "libvirt's clean-up",
    "destroy": "waiting for a machine ended by force",
    RESIDUAL: "not attributed",
}

NOTE = (
    "A machine's upper line is the median time since the request, with its 95 % interval. Its "
    "lower line is the mean of the phase that ends there: means of phases sum to the mean total "
    "exactly, where medians do not."
)


@dataclass(frozen=True, slots=True)
class Climb:
    """The starts of one machine: ``outcomes`` that got ready, in the order of the trials."""

    platform: str
    outcomes: tuple[Outcome, ...]

    @property
    def milestones(self) -> frozenset[str]:
        return frozenset(name for outcome in self.outcomes for name in outcome.milestones)

    def find_times(self, milestone: str) -> list[tuple[int, float]]:
        """Block and seconds since the request of every start that reported ``milestone``."""
        return [
            (outcome.block, (outcome.milestones[milestone] - outcome.milestones["request"]) / 1e9)
            for outcome in self.outcomes
            if milestone in outcome.milestones
        ]


def build_ladder(results: Results, workload: str) -> Table | None:
    """Every machine by every milestone, the fastest first; None without a machine."""
    climbs = find_climbs(results, workload)
    if not climbs:
        return None
    reached = frozenset[str]().union(*(climb.milestones for climb in climbs))
    rungs = [name for name in RUNGS if name in reached]
    last = [RESPONSE] if RESPONSE in reached else []
    rows = []
    for climb in climbs:
        head = describe_platform(results, climb.platform, quoted=True)
        cells = (*_build_rungs(results, workload, climb, rungs), Cell(""), Cell(""))
        cells += tuple(_build_rungs(results, workload, climb, last))
        rows.append(Row(head, cells, climb.platform))
        rows.append(_build_phase_row(results, climb, rungs, last))
    heads = ("machine", *rungs, RESIDUAL, "sum of phases", *last)
    return Table(f"{quote(workload)}: the ladder of virtual machines", heads, tuple(rows), NOTE)


def find_climbs(results: Results, workload: str) -> list[Climb]:
    """The machines that got ready with ``workload``, from the fastest to the slowest."""
    climbs = [
        Climb(platform, tuple(found))
        for platform in results.first_arms
        if results.kinds[platform] == "vm" and (found := _find_starts(results, platform, workload))
    ]
    return sorted(climbs, key=lambda each: median(time for _, time in each.find_times("ready")))


def _find_starts(results: Results, platform: str, workload: str) -> list[Outcome]:
    return [
        outcome
        for outcome in results.find_trials(platform, workload)
        if outcome.status == "ok" and {"request", "ready"} <= outcome.milestones.keys()
    ]


def _build_rungs(results: Results, workload: str, climb: Climb, rungs: Sequence[str]) -> list[Cell]:
    cells = []
    for name in rungs:
        times = climb.find_times(name)
        headline = {"ready": "startup.ready", RESPONSE: "startup.response"}.get(name, "")
        figure = results.find(climb.platform, workload, headline)
        cell = build_cell(figure or _summarise(times))
        if 0 < len(times) < len(climb.outcomes):
            few = f"in {len(times)} of {len(climb.outcomes)} starts"
            cell = Cell(cell.text, f"{cell.note}; {few}".removeprefix("; "), cell.tone)
        cells.append(cell)
    return cells


def _summarise(times: Sequence[tuple[int, float]]) -> Figure | None:
    """Median over blocks with its interval; of several starts in a block their median counts."""
    blocks: dict[int, list[float]] = {}
    for block, seconds in times:
        blocks.setdefault(block, []).append(seconds)
    if not blocks:
        return None
    values = np.array([median(each) for each in blocks.values()])
    order = np.array(list(blocks), dtype=np.int64)
    found = summarise_groups(values, np.zeros(len(values), dtype=np.int64), 1, order)
    return Figure(
        len(values), float(found.median[0]), float(found.low[0]), float(found.high[0]), "s"
    )


def _build_phase_row(
    results: Results, climb: Climb, rungs: Sequence[str], last: Sequence[str]
) -> Row:
    phases = [build_phases(outcome.milestones) for outcome in climb.outcomes]
    means = average(phases)
    total = fmean(time for _, time in climb.find_times("ready"))
    traits = find_traits(results, climb.platform, climb.milestones)
    cells = [
        Cell(format_share_of(total, means[name]), describe_phase(name, traits))
        if name in means
        else Cell(ABSENT)
        for name in (*rungs, RESIDUAL)
    ]
    cells.append(Cell(format_share_of(total, total), "mean total"))
    for _ in last:
        answers = [(each.milestones[RESPONSE] - each.milestones["ready"]) / 1e9
                   for each in climb.outcomes if RESPONSE in each.milestones]  # fmt: skip
        words = f"{describe_phase(RESPONSE, traits)}, after the total"
        cells.append(
            Cell(format_share_of(total, fmean(answers)), words) if answers else Cell(ABSENT)
        )
    return Row("phases, mean", tuple(cells), goes_on=True)


def average(breakdowns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each part over all ``breakdowns``; one that lacks a part spent no time on it."""
    names = dict.fromkeys(name for each in breakdowns for name in each)
    return {name: fmean(each.get(name, 0.0) for each in breakdowns) for name in names}


def format_share_of(total: float, seconds: float) -> str:
    """``1.631 s``: a part of ``total``, in the unit and to the decimals that the total has.

    Parts that are printed like this add up to the printed total, up to rounding.
    """
    if seconds == 0:
        return "0 s"
    if total >= 1:
        return f"{seconds:.3f} s"
    return f"{seconds * 1e3:.1f} ms" if total >= 0.1 else f"{seconds * 1e3:.3f} ms"


def build_stops(results: Results, workload: str) -> Table | None:
    """What stopping each machine is made of; None where no trial has the phases of its stop."""
    rows, seen = [], set[str]()
    stops = {
        climb.platform: _find_stops(climb.outcomes) for climb in find_climbs(results, workload)
    }
    seen.update(name for found in stops.values() for parts, _ in found for name in parts)
    phases = [name for name in STOP_PHASES if name in seen]
    for platform, found in stops.items():
        if found:
            head = describe_platform(results, platform, quoted=True)
            rows.append(Row(head, _build_stop_cells(found, phases), platform))
    if not rows:
        return None
    heads = ("machine", *(f"{name}: {_STOP_WORDS[name]}" for name in phases), "stopped after")
    note = "Means, which sum to the total exactly; the total is the mean of `startup.stopped`."
    return Table(f"{quote(workload)}: what a stop is made of", heads, tuple(rows), note)


def _find_stops(outcomes: Sequence[Outcome]) -> list[tuple[dict[str, float], float]]:
    """Phases and total of every stop that has both."""
    found = []
    for outcome in outcomes:
        rows = [row for row in outcome.measurements if row.metric == "startup.stop_phase"]
        parts = {row.phase: row.value for row in rows}
        total = [row.value for row in outcome.measurements if row.metric == "startup.stopped"]
        if parts and total:
            found.append((parts, total[0]))
    return found


def _build_stop_cells(
    stops: Sequence[tuple[dict[str, float], float]], phases: Sequence[str]
) -> tuple[Cell, ...]:
    means = average([parts for parts, _ in stops])
    total = fmean(seconds for _, seconds in stops)
    cells = []
    for name in phases:
        count = sum(name in parts for parts, _ in stops)
        note = "" if count in (0, len(stops)) else f"in {count} of {len(stops)} stops"
        text = format_share_of(total, means[name]) if name in means else ABSENT
        cells.append(Cell(text, note))
    return (*cells, Cell(format_share_of(total, total)))
