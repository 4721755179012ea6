"""How a start fares beside others: the Nth instance of a density series, and the knee."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from harness.analysis.results import Results, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, quote
from harness.marks import START_KSM
from harness.model import Outcome, base_platform
from harness.units import format_seconds

METRIC = "density.ready"
LEAST_STARTS = 10
"""Fewer starts show no knee."""

WINDOW = 5
SLOWER = 1.5

_ENDED = "ended"
_SERIES = "density"


@dataclass(frozen=True, slots=True)
class Series:
    """The starts of one density series in order: number of instances, and seconds to ready; none
    where it ended before its first.

    ``end`` is why there was no further one; empty where that was not noted.
    """

    platform: str
    workload: str
    counts: Sequence[int]
    seconds: Sequence[float]
    end: str
    pressure: Mapping[str, float] = field(default_factory=dict)
    """PSI with the last of them running: by resource, the share of ten seconds that tasks waited.
    """

    @property
    def first(self) -> float:
        """Median of the first starts: `WINDOW` of them, of a short series its first half."""
        return float(np.median(self.seconds[: self._window]))

    @property
    def last(self) -> float:
        """Median of as many last ones, so that no start is among both."""
        return float(np.median(self.seconds[-self._window :]))

    @property
    def _window(self) -> int:
        return max(1, min(WINDOW, len(self.seconds) // 2))


def list_series(results: Results) -> list[Series]:
    """Every series of which anything is known, in the order of the report.

    One without any start ended before it: the host had no room, or the first start failed.
    """
    rows = results.samples[results.samples["metric"] == METRIC]
    ends = _find_ends(results)
    pressures = _find_pressures(results)
    found = []
    for platform in results.platforms:
        for workload in results.workloads:
            chosen = rows[(rows["platform"] == platform) & (rows["workload"] == workload)]
            key = (platform, workload)
            if len(chosen) or key in ends:
                series = _build_series(chosen, *key, ends.get(key, ""))
                found.append(replace(series, pressure=pressures.get(key, {})))
    return found


def _find_ends(results: Results) -> dict[tuple[str, str], str]:
    """Why series have no further step, by platform and workload."""
    ends = {}
    for outcome in results.outcomes:
        key = (outcome.platform, outcome.workload)
        if _ENDED in outcome.details:
            begun = "" if outcome.instances else "not begun: "
            ends[key] = f"{begun}{outcome.details[_ENDED]}"
        elif outcome.status == "failed" and _is_of_series(outcome):
            ends[key] = outcome.error or "a start failed"
    return ends


def _is_of_series(outcome: Outcome) -> bool:
    """Whether a failed start is a step of a series; those of older releases do not say so, so of
    these a series' first start is not told from a trial."""
    return _SERIES in outcome.details or (outcome.instances > 1 and "storm" not in outcome.details)


def _find_pressures(results: Results) -> dict[tuple[str, str], Mapping[str, float]]:
    """PSI at the last step of each series, by platform and workload."""
    return {
        (outcome.platform, outcome.workload): found
        for outcome in results.outcomes
        if isinstance(found := outcome.details.get("pressure"), Mapping)
    }


def _build_series(rows: pd.DataFrame, platform: str, workload: str, end: str) -> Series:
    ordered = rows.sort_values("instances")
    counts = [int(each) for each in ordered["instances"]]
    return Series(platform, workload, counts, [float(each) for each in ordered["value"]], end)


def find_knee(counts: Sequence[int], seconds: Sequence[float]) -> int | None:
    """From how many instances on starts were slower for good, or None.

    That is the first number from which on every median of `WINDOW` starts in a row is over
    `SLOWER` times that of the first ones. Single slow starts are no knee.
    """
    if len(seconds) < LEAST_STARTS:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(seconds), WINDOW)
    slow = np.median(windows, axis=1) > SLOWER * np.median(seconds[:WINDOW])
    if not slow[-1]:
        return None
    quick = np.flatnonzero(~slow)
    first = int(quick[-1]) + 1 if len(quick) else 0
    return counts[first + WINDOW // 2]


def build_crowd(results: Results) -> Table | None:
    """One row for each series: how far it came, why it ended, and how starts fared."""
    rows = [_build_row(results, series) for series in list_series(results)]
    if not rows:
        return None
    heads = (
        "platform",
        "workload",
        "instances",
        "first starts",
        "last starts",
        "knee",
        "waiting at last",
    )
    note = (
        f"First and last: median of {WINDOW} starts, one after another, with all before them still "
        f"running; of a series of fewer than {2 * WINDOW}, of its first and of its last half. "
        f"Knee: from there on every {WINDOW} starts in a row took over {SLOWER:g} × the "
        "first, in the median. Waiting: share of the last ten seconds for which some task waited "
        f"(PSI). {describe_merging(results)}"
    )
    return Table("Starting beside others", heads, tuple(rows), note=note)


def _build_row(results: Results, series: Series) -> Row:
    if series.seconds:
        knee = find_knee(series.counts, series.seconds)
        told = "none seen" if len(series.seconds) >= LEAST_STARTS else "too few starts"
        fared = (
            Cell(format_seconds(series.first)),
            Cell(format_seconds(series.last)),
            Cell(ABSENT, told) if knee is None else Cell(f"at {knee} instances"),
            Cell(describe_pressure(series.pressure)),
        )
    else:
        fared = (Cell(ABSENT),) * 4
    last = series.counts[-1] if series.counts else 0
    reached = Cell(str(last), series.end, "" if last else "doubt")
    head = describe_platform(results, series.platform, quoted=True)
    return Row(head, (Cell(quote(series.workload)), reached, *fared), series.platform)


def describe_pressure(pressure: Mapping[str, float]) -> str:
    """``CPU 41 %, memory 0 %``; what was not noted is left out."""
    words = {"cpu": "CPU", "memory": "memory", "io": "disk"}
    found = [f"{words[name]} {share:.0%}" for name, share in pressure.items() if name in words]
    return ", ".join(found).replace("%", " %") or ABSENT


def describe_merging(results: Results) -> str:
    """Whether the host merged equal pages (KSM), and for which machines."""
    machines = [name for name in results.platforms if results.kinds[name] == "vm"]
    state = get_mapping(results.manifest, "memory_settings").get("ksm")
    if not machines or state is None:
        return ""
    if state == "absent":
        return "With KSM: withheld, the host's kernel has none."
    if state != "1":
        return (
            "All without KSM; with it: withheld, because the host's ksmd did not run "
            f"(`{START_KSM}` starts it)."
        )
    off = [name for name in machines if "no-ksm" in base_platform(name).split("/")]
    others = f" {', '.join(map(quote, off))} without: not offered to it." if off else ""
    return f"With KSM: the host's ksmd ran, and machines offer it their guests' memory.{others}"
