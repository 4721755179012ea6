"""Timings of other tools beside a run's own, in tables of their own.

They were taken with another clock and in no block of the run: no pair, no verdict against the run,
and no part in any other figure. Timings of one tool on one host are of one method and may be
compared with each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.aggregate import LEAST_BLOCKS, reduce_to_blocks
from harness.analysis.answer import find_workload
from harness.analysis.compare import find_change
from harness.analysis.compare_result import SIGNIFICANT
from harness.analysis.compare_traits import build_foreign_traits, find_differences
from harness.analysis.pairs import THRESHOLD
from harness.analysis.results import Results, find_seed
from harness.analysis.statistics import Floats, correct_holm, summarise_groups
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.two_samples import Differences, compare_samples
from harness.analysis.wording import ABSENT, format_number, format_p, format_share, quote
from harness.metrics import METRICS
from harness.store.foreign import CLOCKS, SPANS, ForeignFile, Timing
from harness.units import format_value

MOST_ROWS = 200
"""No table of more rows is of use to a reader; what is left out is said."""

OTHER_METHOD = "other method: not paired"
_METRIC = "startup.ready"
_LONGEST = 100

LEAD = (
    "Timings that other tools took. Their clocks span something else than this run's, they were in "
    "none of its blocks and are in none of its other figures."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One timing and the file that it is from."""

    file: ForeignFile
    timing: Timing

    @property
    def values(self) -> Floats:
        return np.array(self.timing.values, dtype=float)


def build_tables(results: Results, files: Sequence[ForeignFile]) -> list[Table]:
    """What was brought in: all of it beside the run's reference, then tool by tool."""
    entries = [Entry(file, timing) for file in files for timing in file.timings]
    if not entries:
        return []
    seed = find_seed(results.manifest)
    found = [_build_overview(results, entries, seed)]
    for tool in dict.fromkeys(entry.file.tool for entry in entries):
        for what in dict.fromkeys(map(find_what, entries)):
            alike = [each for each in entries if (each.file.tool, find_what(each)) == (tool, what)]
            if len(alike) > 1:
                found.append(_build_own(tool, alike, seed))
    return found


def find_what(entry: Entry) -> tuple[str, str]:
    """What was measured: its unit and, in suites of the harness's own, the metric. Nothing else is
    compared with it."""
    metric, bracket, _ = entry.timing.name.partition("[")
    return entry.timing.unit, metric if bracket and metric in METRICS else ""


def _build_overview(results: Results, entries: Sequence[Entry], seed: int) -> Table:
    reference = find_reference_values(results)
    shown = entries[:MOST_ROWS]
    comparable = len(reference) >= LEAST_BLOCKS
    base = reference if comparable else np.ones(1)
    ratios = compare_samples([(base, entry.values) for entry in shown], seed)
    rows = tuple(
        _build_row(entry, _format_ratio(ratios, number, entry) if comparable else ABSENT)
        for number, entry in enumerate(shown)
    )
    name = quote(results.reference or "nothing")
    workload = find_workload(results)
    head = (
        "timing", "tool and file", "its clock spans", "n", "median",
        f"to {name} with {quote(workload)}" if comparable else "ratio", "verdict",
    )  # fmt: skip
    tools = dict.fromkeys(entry.file.tool for entry in entries)
    notes = [f"Clock of {tool}: {CLOCKS[tool]}." for tool in tools]
    notes.append(f"The run's own clock spans {_METRIC}, from the request until it is ready.")
    caption = "Beside the run's own start"
    return Table(caption, head, rows, " ".join([*notes, _say_left_out(len(entries))]).strip())


def find_reference_values(results: Results) -> Floats:
    """The start of the run's reference, one value a block; empty where that was not measured."""
    samples = results.samples
    wanted = (samples["metric"] == _METRIC) & (samples["phase"] == "") & (samples["instances"] == 1)
    wanted &= (samples["platform"] == results.reference) & (
        samples["workload"] == find_workload(results)
    )
    blocks = reduce_to_blocks(samples[wanted])
    return np.sort(blocks["value"].to_numpy(dtype=float))


def _build_row(entry: Entry, ratio: str) -> Row:
    timing = entry.timing
    failed = f"{timing.failures} failed" if timing.failures else ""
    median, interval = format_median(timing)
    cells = (
        Cell(entry.file.tool, quote(entry.file.path.name)),
        Cell(SPANS[entry.file.tool] if timing.unit == "s" else ABSENT),
        Cell(str(len(timing.values)), failed),
        Cell(median, interval),
        Cell(ratio if timing.unit == "s" else ABSENT),
        Cell("no verdict", OTHER_METHOD),
    )
    return Row(_name(timing), cells)


def format_median(timing: Timing) -> tuple[str, str]:
    """The median and its 95 % interval; fewer than three values have no interval."""
    values = np.sort(np.array(timing.values, dtype=float))
    median = format_value(float(np.median(values)), timing.unit)
    if len(values) < LEAST_BLOCKS:
        return median, f"no interval: {len(values)} values, {LEAST_BLOCKS} are needed"
    found = summarise_groups(values, np.zeros(len(values), dtype=np.int64), 1)
    low, high = float(found.low[0]), float(found.high[0])
    return median, f"{format_value(low, timing.unit)} – {format_value(high, timing.unit)}"


def _format_ratio(found: Differences, number: int, entry: Entry) -> str:
    if len(entry.timing.values) < LEAST_BLOCKS or not np.isfinite(found.low[number]):
        return ABSENT
    ratio, low, high = (
        format_number(each[number]) for each in (found.ratio, found.low, found.high)
    )
    return f"{ratio} × ({low}–{high})"


def _build_own(tool: str, entries: Sequence[Entry], seed: int) -> Table:
    """Timings of one tool against the first of them; of another host there is no verdict."""
    first, shown = entries[0], entries[1:MOST_ROWS]
    found = compare_samples([(first.values, entry.values) for entry in shown], seed)
    reasons = [_find_reason(first, entry) for entry in shown]
    usable = np.array([not reason for reason in reasons]) & np.isfinite(found.low)
    p_values = correct_holm(np.where(usable, found.p, np.nan))
    rows = []
    for number, entry in enumerate(shown):
        verdict, ratio, p = "inconclusive", ABSENT, p_values[number]
        if usable[number]:
            span = (found.ratio[number], found.low[number], found.high[number])
            verdict = find_change(entry.timing.unit, span, p, THRESHOLD)
            ratio = _format_ratio(found, number, entry)
        reason = reasons[number] or ("" if usable[number] else "values of 0 have no ratio")
        cells = (
            Cell(quote(entry.file.path.name)),
            Cell(ratio),
            Cell(format_p(float(p))),
            Cell("no verdict" if reason else verdict, reason, "doubt" if reason else ""),
        )
        rows.append(Row(_name(entry.timing), cells))
    head = ("timing", "file", f"to {_name(first.timing)}", "p, Holm-corrected", "verdict")
    note = (
        f"Not paired. A verdict needs the whole interval beyond {format_share(THRESHOLD)} and "
        f"p < {SIGNIFICANT:g} after Holm's correction. {_say_left_out(len(entries))}"
    )
    return Table(f"Among the timings of {tool}", head, tuple(rows), note.strip())


def _find_reason(first: Entry, other: Entry) -> str:
    """Why two timings of one tool have no verdict, or an empty string."""
    if min(len(first.timing.values), len(other.timing.values)) < LEAST_BLOCKS:
        return f"{LEAST_BLOCKS} values are needed"
    traits = [build_foreign_traits(each.file.facts) for each in (first, other)]
    differing = dict.fromkeys(each.dimension for each in find_differences(*traits))
    return f"measured with another {', '.join(differing)}" if differing else ""


def _name(timing: Timing) -> str:
    name = timing.name
    return quote(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")


def _say_left_out(count: int) -> str:
    more = count - MOST_ROWS
    return f"{more} more are left out of this table." if more > 0 else ""
