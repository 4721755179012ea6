"""What one more instance costs: memory of the host over the number of running instances."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.analysis.arrays import Floats
from harness.analysis.density import METRIC, SOURCE
from harness.analysis.plots.data import (
    LEAST_PLATFORMS,
    Data,
    build_data,
    choose_platforms,
    list_figure,
    name_interval,
    name_sheet,
    split_sheets,
)
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import MARKERS, MUTED, PAPER, build_note, say_blocks, set_title
from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_platform, format_figure, shorten_reason

_HIGH = 0.95
"""Inches of a panel."""


def draw_density(results: Results) -> list[Drawing]:
    """Fall of MemAvailable over running instances, one panel per series with its slope."""
    steps = results.samples[results.samples["metric"] == SOURCE]
    steps = steps.astype({"platform": str, "workload": str})
    every = [
        (platform, workload)
        for platform in results.platforms
        for workload in results.workloads
        if results.find(platform, workload, METRIC)
    ]
    shown, said = _choose_series(results, every)
    ranges = split_sheets([_HIGH] * len(shown))
    data = _list_steps(results, steps, every)
    return [
        _draw_sheet(results, steps, shown[first:end], said, data, part, len(ranges))
        for part, (first, end) in enumerate(ranges, 1)
    ]


def _draw_sheet(
    results: Results, steps: pd.DataFrame, shown: list[tuple[str, str]], said: str, data: Data,
    part: int, parts: int,
) -> Drawing:  # fmt: skip
    stem, heading = name_sheet("memory-density", "Memory of one more instance", part, parts)
    with start_sheet(stem, [_HIGH] * len(shown)) as sheet:
        for axes, (platform, workload) in zip(sheet.panels, shown, strict=True):
            chosen = (steps["platform"] == platform) & (steps["workload"] == workload)
            _draw_series(axes, results, platform, workload, steps[chosen])
        sheet.panels[-1].set_xlabel("running instances, linear")
        counted = say_blocks([results.find(*each, METRIC) for each in shown], "steps a series")
        caption = build_note(
            results, counted,
            "Fall of the host's MemAvailable from its highest, both axes linear; the line is the "
            "Theil–Sen slope, its band the 95 % interval; none where it is withheld. Other load on "
            "the host is part of it",
            said,
        )  # fmt: skip
        alt = "; ".join(
            f"{describe_platform(results, platform)}: "
            f"{_describe_slope(results.find(platform, workload, METRIC))}"
            for platform, workload in shown
        )
        return finish(sheet, heading, caption, alt, data, part)


def _describe_slope(slope: Figure | None) -> str:
    if slope is not None and slope.withheld:
        return f"withheld, {shorten_reason(slope.withheld)}"
    return f"{format_figure(slope)} each"


def _choose_series(
    results: Results, every: list[tuple[str, str]]
) -> tuple[list[tuple[str, str]], str]:
    """All of few platforms; of many, those that `choose_platforms` takes by their slopes."""
    slopes: dict[str, float] = {}
    for platform, workload in every:
        figure = results.find(platform, workload, METRIC)
        slopes.setdefault(platform, figure.median if figure else 0.0)
    kept, said = choose_platforms(results, slopes, LEAST_PLATFORMS)
    return [each for each in every if each[0] in kept], said


def _list_steps(results: Results, steps: pd.DataFrame, every: list[tuple[str, str]]) -> Data:
    """Every point as it was read, with the slope of its series."""
    columns = (steps[name].tolist() for name in ("platform", "workload", "instances", "value"))
    head = ("platform", "workload", "running instances", "memory.available (B)",
            *(f"memory.marginal {each}" for each in name_interval("B")))  # fmt: skip
    rows = [
        (
            platform,
            workload,
            instances,
            value,
            *list_figure(results.find(platform, workload, METRIC)),
        )
        for platform, workload, instances, value in zip(*columns, strict=True)
        if (platform, workload) in every
    ]
    return build_data(head, rows)


def _draw_series(
    axes: Axes, results: Results, platform: str, workload: str, steps: pd.DataFrame
) -> None:
    slope = results.find(platform, workload, METRIC)
    assert slope is not None
    colour = results.colours[platform]
    count = steps["instances"].to_numpy(dtype=float)
    fall = (steps["value"].max() - steps["value"].to_numpy(dtype=float)) / 2**20
    if not slope.withheld:
        _draw_slope(axes, slope, count, fall, colour)
    axes.plot(count, fall, MARKERS[results.kinds[platform]], color=colour, mec=PAPER, mew=0.6, ms=6)
    title = f"{describe_platform(results, platform)}, {workload}: {_describe_slope(slope)}"
    set_title(axes, title, bold=False)
    axes.set_ylabel("MiB", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_slope(axes: Axes, slope: Figure, count: Floats, fall: Floats, colour: str) -> None:
    """The line through the middle of the points, and the lines of its interval's two slopes."""
    middle = float(np.median(fall - slope.median / 2**20 * count))
    centre = float(np.median(count))
    level = middle + slope.median / 2**20 * centre
    line = np.array([count.min(), count.max()])
    low, high = (level + each / 2**20 * (line - centre) for each in (slope.low, slope.high))
    axes.fill_between(line, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(line, middle + slope.median / 2**20 * line, color=colour, lw=1.8)
