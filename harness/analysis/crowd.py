"""How a start fares beside others: the Nth instance of a density series, and the knee."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.results import Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, quote
from harness.units import format_seconds

METRIC = "density.ready"
LEAST_STARTS = 10
"""Fewer starts show no knee."""

WINDOW = 5
SLOWER = 1.5

_ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Series:
    """The starts of one density series in order: number of instances, and seconds to ready.

    ``end`` is why there was no further one; empty where that was not noted.
    """

    platform: str
    workload: str
    counts: Sequence[int]
    seconds: Sequence[float]
    end: str

    @property
    def first(self) -> float:
        """Median of the first starts."""
        return float(np.median(self.seconds[:WINDOW]))

    @property
    def last(self) -> float:
        """Median of the last ones."""
        return float(np.median(self.seconds[-WINDOW:]))


def list_series(results: Results) -> list[Series]:
    """Every series of at least one start, in the order of the report."""
    rows = results.samples[results.samples["metric"] == METRIC]
    ends = {
        (outcome.platform, outcome.workload): str(outcome.details[_ENDED])
        for outcome in results.outcomes
        if _ENDED in outcome.details
    }
    failed = {
        (outcome.platform, outcome.workload): outcome.error or "a start failed"
        for outcome in results.failed
        if outcome.instances > 1 and "storm" not in outcome.details
    }
    found = []
    for platform in results.platforms:
        for workload in results.workloads:
            chosen = rows[(rows["platform"] == platform) & (rows["workload"] == workload)]
            if len(chosen):
                key = (platform, workload)
                found.append(_build_series(chosen, *key, ends.get(key) or failed.get(key, "")))
    return found


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
    rows = []
    for series in list_series(results):
        knee = find_knee(series.counts, series.seconds)
        told = "none seen" if len(series.seconds) >= LEAST_STARTS else "too few starts"
        cells = (
            Cell(quote(series.workload)),
            Cell(str(series.counts[-1]), series.end),
            Cell(format_seconds(series.first)),
            Cell(format_seconds(series.last)),
            Cell(ABSENT, told) if knee is None else Cell(f"at {knee} instances"),
        )
        head = describe_platform(results, series.platform, quoted=True)
        rows.append(Row(head, cells, series.platform))
    if not rows:
        return None
    heads = ("platform", "workload", "instances", "first starts", "last starts", "knee")
    note = (
        f"First and last: median of {WINDOW} starts, one after another, with all before them still "
        f"running. Knee: from there on every {WINDOW} starts in a row took over {SLOWER:g} × the "
        "first, in the median."
    )
    return Table("Starting beside others", heads, tuple(rows), note=note)
