"""How long the Nth instance takes to start beside those that run."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.analysis.crowd import LEAST_STARTS, Series, find_knee, list_series
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PAPER,
    Drawing,
    finish,
    start_figure,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_accelerators, describe_platform
from harness.units import format_seconds


def draw_crowd(results: Results) -> Drawing | None:
    """One panel for each series that is long enough to show anything."""
    shown = [each for each in list_series(results) if len(each.seconds) >= LEAST_STARTS]
    if not shown:
        return None
    name = "density-starts"
    with start_figure(name, len(shown), 1.1 + 1.45 * len(shown)) as (figure, panels):
        for axes, series in zip(panels, shown, strict=True):
            _draw_series(axes, results, series)
        panels[-1].set_xlabel("running instances, linear")
        machines = describe_accelerators(results)
        return finish(
            figure, name, "Starting beside others",
            f"{machines + '. ' if machines else ''}Time from the request to ready of each further "
            "instance; all before it run on. A dashed line is the knee.",
            "; ".join(
                f"{describe_platform(results, each.platform)}: {format_seconds(each.first)} for "
                f"the first, {format_seconds(each.last)} at {each.counts[-1]} instances"
                for each in shown
            ),
        )  # fmt: skip


def _draw_series(axes: Axes, results: Results, series: Series) -> None:
    colour = results.colours[series.platform]
    large = max(series.seconds) >= 1
    values = [each * (1 if large else 1000) for each in series.seconds]
    marker = MARKERS[results.kinds[series.platform]]
    axes.plot(series.counts, values, marker, color=colour, mec=PAPER, mew=0.4, ms=5, ls="none")
    knee = find_knee(series.counts, series.seconds)
    if knee is not None:
        axes.axvline(knee, color=MUTED, lw=1.2, ls="--")
    axes.set_ylim(bottom=0)
    title = f"{describe_platform(results, series.platform)}, {series.workload}"
    axes.set_title(title, color=INK, fontweight="normal")
    axes.set_ylabel("s" if large else "ms", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
