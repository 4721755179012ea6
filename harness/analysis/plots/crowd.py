"""How long the Nth instance takes to start beside those that run."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.analysis.crowd import LEAST_STARTS, Series, find_knee, list_series
from harness.analysis.plots.data import (
    LEAST_PLATFORMS,
    Data,
    build_data,
    choose_platforms,
    name_sheet,
    split_sheets,
)
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import MARKERS, MUTED, PAPER, build_note, say_counts, set_title
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform
from harness.units import format_seconds

_HIGH = 0.95
"""Inches of a panel."""


def draw_crowd(results: Results) -> list[Drawing]:
    """One panel for each series that is long enough to show anything."""
    every = [each for each in list_series(results) if len(each.seconds) >= LEAST_STARTS]
    shown, said = _choose_series(results, every)
    ranges = split_sheets([_HIGH] * len(shown))
    data = _list_starts(every)
    return [
        _draw_sheet(results, shown[first:end], said, data, part, len(ranges))
        for part, (first, end) in enumerate(ranges, 1)
    ]


def _choose_series(results: Results, every: list[Series]) -> tuple[list[Series], str]:
    """All of few platforms; of many, those that `choose_platforms` takes by their last starts."""
    last: dict[str, float] = {}
    for each in every:
        last[each.platform] = max(last.get(each.platform, 0.0), each.last)
    kept, said = choose_platforms(results, last, LEAST_PLATFORMS)
    return [each for each in every if each.platform in kept], said


def _draw_sheet(
    results: Results, shown: Sequence[Series], said: str, data: Data, part: int, parts: int
) -> Drawing:
    stem, title = name_sheet("density-starts", "Starting beside others", part, parts)
    with start_sheet(stem, [_HIGH] * len(shown)) as sheet:
        for axes, series in zip(sheet.panels, shown, strict=True):
            _draw_series(axes, results, series)
        sheet.panels[-1].set_xlabel("running instances, linear")
        counted = say_counts({len(each.seconds) for each in shown}, "starts a series")
        caption = build_note(
            results, f"{counted}, each made once and so without an interval",
            "Time from the request to ready of each further instance; all before it run on. A "
            "dashed line is the knee. The axes are linear from zero", said,
        )  # fmt: skip
        alt = "; ".join(
            f"{describe_platform(results, each.platform)}: {format_seconds(each.first)} for "
            f"the first, {format_seconds(each.last)} at {each.counts[-1]} instances"
            for each in shown
        )
        return finish(sheet, title, caption, alt, data, part)


def _list_starts(every: Sequence[Series]) -> Data:
    rows = [
        (each.workload, each.platform, int(count), float(seconds))
        for each in every
        for count, seconds in zip(each.counts, each.seconds, strict=True)
    ]
    return build_data(("workload", "platform", "running instances", "density.ready (s)"), rows)


def _draw_series(axes: Axes, results: Results, series: Series) -> None:
    colour = results.colours[series.platform]
    large = max(series.seconds) >= 1
    values = [each * (1 if large else 1000) for each in series.seconds]
    marker = MARKERS[results.kinds[series.platform]]
    axes.plot(series.counts, values, marker, color=colour, mec=PAPER, mew=0.4, ms=5, ls="none")
    knee = find_knee(series.counts, series.seconds)
    if knee is not None:
        axes.axvline(knee, color=MUTED, lw=1.2, ls="--")
    axes.set_ylim(0, max(values) * 1.12)
    title = f"{describe_platform(results, series.platform)}, {series.workload}"
    set_title(axes, title, bold=False)
    axes.set_ylabel("s" if large else "ms", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
