"""What running the work costs: figures by platform, as a ratio to `process` in the same block.

None of these is a headline. What an emulated machine's processor did is no figure of hardware
virtualisation, and every cell of its ratios says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from harness.analysis.aggregate import reduce_to_blocks
from harness.analysis.pairs import build_ratios, pair_blocks
from harness.analysis.ratios import drop_refused
from harness.analysis.results import Results, find_seed, get_list, get_mapping, list_refused
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    format_number,
    quote,
    shorten_reason,
)
from harness.metrics import METRICS
from harness.model import Outcome

REFERENCE = "process"
AREA = "efficiency."
LEAD = (
    "How much work is done in a second while the workload runs, how long a piece of it takes, and "
    "what it costs the host in CPU time."
)
NOTE = (
    "Ratios are to `process` in the same block; `process` has the limits that the others "
    "have. Work for each CPU second counts the host's CPU time of everything that serves the "
    "instance: a virtual machine's processors and emulator threads too."
)
NO_NETWORK = "Over the bridge there is no ratio: a bare process has no network of its own."
EMULATED = "An emulated processor's figures say nothing of hardware virtualisation."

_CLOCKS = (
    ", but for what a tool says of its work in the guest: a trial is marked where its time does "
    "not fit in the host's"
)

_DERIVED = {
    f"{AREA}throughput": f"{AREA}per_cpu_second",
    f"{AREA}bandwidth": f"{AREA}bytes_per_cpu_second",
}
_NO_FIGURES = {f"{AREA}{name}" for name in ("duration", "cpu")} | set(_DERIVED.values())
_ENDED = {
    "memory-limit": "killed by its memory limit",
    "pids-limit": "stopped by its limit of processes",
    "disk-limit": "stopped by its disk quota",
    "timeout": "ended by its timeout",
}
_SPLIT = "\t"

Key = tuple[str, str, str, str]
"""Platform, workload, metric, phase."""


@dataclass(frozen=True, slots=True)
class BlockRatio:
    """A platform's figure over that of `process` in the same block: median and 95 % interval."""

    median: float
    low: float
    high: float
    withheld: str


def build_efficiency(results: Results) -> Table | None:
    """Platform × figure of every workload that has figures; None for a run without one."""
    ratios = find_ratios(results)
    rows = [
        row
        for workload in results.workloads
        for row in (*_build_rows(results, ratios, workload), *_build_failed(results, workload))
    ]
    if not rows:
        return None
    head = ("platform", "workload", "figure", "median", "ratio to `process`", "per CPU second",
            "its ratio")  # fmt: skip
    return Table("Work while it runs", head, tuple(rows), _build_note(results))


def describe_clocks(results: Results) -> str:
    """What a sentence on clocks has to add: a tool in a guest has the guest's."""
    return _CLOCKS if results.find_metrics(AREA) else ""


def find_ratios(results: Results) -> Mapping[Key, BlockRatio]:
    """The ratio of every figure to `process`, where both ran in the same blocks."""
    samples = results.samples
    chosen = samples["metric"].astype(str).str.startswith(AREA) & (samples["instances"] == 1)
    frame = samples[chosen].copy()
    if frame.empty or REFERENCE not in set(frame["platform"].astype(str)):
        return {}
    # comparisons are told apart by their metric alone: the phase is made a part of it
    frame["metric"] = frame["metric"].astype(str) + _SPLIT + frame["phase"].astype(str)
    frame["phase"] = ""
    blocks = drop_refused(reduce_to_blocks(frame), list_refused(results.certificate, REFERENCE))
    pairs = pair_blocks(blocks, lambda name: "" if name == REFERENCE else REFERENCE)
    return _index(build_ratios(pairs, find_seed(results.manifest)))


def _index(table: pd.DataFrame) -> dict[Key, BlockRatio]:
    found = {}
    for row in table.to_dict("records"):
        metric, _, phase = row["metric"].partition(_SPLIT)
        ratio = BlockRatio(row["ratio"], row["low"], row["high"], row["withheld"])
        found[row["platform"], row["workload"], metric, phase] = ratio
    return found


def _build_rows(results: Results, ratios: Mapping[Key, BlockRatio], workload: str) -> list[Row]:
    """The rows of one workload: figure by figure, so that its platforms stand together."""
    figures = dict.fromkeys(
        (metric, phase)
        for (_, each, metric, phase) in results.figures
        if each == workload and metric.startswith(AREA) and metric not in _NO_FIGURES
    )
    order = list(METRICS)
    return [
        _build_row(results, ratios, (platform, workload, metric, phase))
        for metric, phase in sorted(figures, key=lambda each: (order.index(each[0]), each[1]))
        for platform in results.platforms
        if results.find(platform, workload, metric, phase)
    ]


def _build_row(results: Results, ratios: Mapping[Key, BlockRatio], key: Key) -> Row:
    platform, workload, metric, phase = key
    derived = (platform, workload, _DERIVED.get(metric, ""), phase)
    cells = (
        Cell(quote(workload)),
        Cell(_describe_figure(metric, phase)),
        build_cell(results.find(*key)),
        _build_ratio(results, ratios, key),
        build_cell(results.find(*derived)),
        _build_ratio(results, ratios, derived),
    )
    return Row(describe_platform(results, platform, quoted=True), cells, platform)


def _describe_figure(metric: str, phase: str) -> str:
    name = metric.removeprefix(AREA).replace("_", " ")
    return f"{name}, {phase}" if phase else name


def _build_ratio(results: Results, ratios: Mapping[Key, BlockRatio], key: Key) -> Cell:
    ratio = ratios.get(key)
    if key[0] == REFERENCE and results.find(*key):
        return Cell("reference")
    refusal = results.certificate.find_refusal(key[0], REFERENCE, key[1])
    if refusal and results.find(*key):
        return Cell("withheld", shorten_reason(refusal), "doubt")
    if ratio is None or ratio.median != ratio.median:
        return Cell(ABSENT)
    median, low, high = (format_number(each) for each in (ratio.median, ratio.low, ratio.high))
    notes = ["" if low == high == median else f"{low}–{high}"]
    notes += ["emulated"] if results.is_emulated(key[0]) else []
    notes += [f"no headline: {shorten_reason(ratio.withheld)}"] if ratio.withheld else []
    doubt = ratio.withheld or results.is_emulated(key[0])
    return Cell(f"{median} ×", "; ".join(filter(None, notes)), "doubt" if doubt else "")


def _build_failed(results: Results, workload: str) -> list[Row]:
    """A row for each platform on which no trial of a workload with figures came to its end."""
    if workload not in _list_workloads(results):
        return []
    rows = []
    for platform in results.first_arms:
        trials = results.find_trials(platform, workload)
        if trials and all(each.status == "failed" for each in trials):
            head = describe_platform(results, platform, quoted=True)
            absent = (Cell(ABSENT),) * 3
            cells = (Cell(quote(workload)), Cell(ABSENT), _describe_failure(trials[0]), *absent)
            rows.append(Row(head, cells, platform))
    return rows


def _describe_failure(outcome: Outcome) -> Cell:
    """What ended the work: a limit is an outcome of its own."""
    text = _ENDED.get(str(outcome.details.get("ended_by")), "failed")
    return Cell(text, outcome.error or "", "doubt")


def _list_workloads(results: Results) -> dict[str, bool]:
    """The run's workloads with figures, and whether each needs a network."""
    entries = get_list(get_mapping(results.manifest, "plan"), "workloads")
    found = [each for each in entries if isinstance(each, Mapping) and each.get("figures")]
    return {str(each.get("name")): bool(each.get("load")) for each in found}


def _build_note(results: Results) -> str:
    notes = [NOTE]
    loaded = any(_list_workloads(results).values())
    if loaded and REFERENCE in results.platforms:
        notes.append(NO_NETWORK)
    if any(results.is_emulated(platform) for platform in results.platforms):
        notes.append(EMULATED)
    return " ".join(notes)
