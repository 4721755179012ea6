"""What one more instance costs: memory of the host over the number of running instances."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from harness.analysis.density import METRIC, SOURCE
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
from harness.analysis.wording import describe_accelerators, describe_platform, format_figure


def draw_density(results: Results) -> Drawing | None:
    """Fall of MemAvailable over running instances, one panel per platform with its slope."""
    steps = results.samples[results.samples["metric"] == SOURCE]
    shown = [
        (platform, workload)
        for platform in results.platforms
        for workload in results.workloads
        if results.find(platform, workload, METRIC)
    ]
    if not shown:
        return None
    name = "memory-density"
    with start_figure(name, len(shown), 1.1 + 1.45 * len(shown)) as (figure, panels):
        for axes, (platform, workload) in zip(panels, shown, strict=True):
            chosen = (steps["platform"] == platform) & (steps["workload"] == workload)
            _draw_series(axes, results, platform, workload, steps[chosen])
        panels[-1].set_xlabel("running instances, linear")
        machines = describe_accelerators(results)
        return finish(
            figure, name, "Memory of one more instance",
            f"{machines + '. ' if machines else ''}Fall of the host's MemAvailable from its "
            "highest; the line is the Theil–Sen slope, its band the 95 % interval. Other "
            "load on the host is part of it.",
            "; ".join(
                f"{describe_platform(results, platform)}: "
                f"{format_figure(results.find(platform, workload, METRIC))}"
                for platform, workload in shown
            ),
        )  # fmt: skip


def _draw_series(
    axes: Axes, results: Results, platform: str, workload: str, steps: pd.DataFrame
) -> None:
    slope = results.find(platform, workload, METRIC)
    assert slope is not None
    colour = results.colours[platform]
    count = steps["instances"].to_numpy(dtype=float)
    fall = (steps["value"].max() - steps["value"].to_numpy(dtype=float)) / 2**20
    middle = float(np.median(fall - slope.median / 2**20 * count))
    centre = float(np.median(count))
    level = middle + slope.median / 2**20 * centre
    line = np.array([count.min(), count.max()])
    low, high = (level + each / 2**20 * (line - centre) for each in (slope.low, slope.high))
    axes.fill_between(line, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(line, middle + slope.median / 2**20 * line, color=colour, lw=1.8)
    axes.plot(count, fall, MARKERS[results.kinds[platform]], color=colour, mec=PAPER, mew=0.6, ms=6)
    title = f"{describe_platform(results, platform)}, {workload}: {format_figure(slope)} each"
    axes.set_title(title, color=INK, fontweight="normal")
    axes.set_ylabel("MiB", color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
