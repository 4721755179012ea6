"""How starts spread: the share of them that were ready by a given time."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.plots.startup import HEADLINE, draw_interval
from harness.analysis.plots.style import (
    INK,
    MUTED,
    Drawing,
    count_columns,
    finish,
    is_second_arm,
    legend_height,
    say_log,
    set_log_axis,
    start_figure,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_accelerators, describe_platform


def draw_ecdf(results: Results) -> Drawing | None:
    """How `startup.ready` spreads: the share of starts that were ready by a given time."""
    samples = results.samples
    ready = samples[(samples["metric"] == HEADLINE) & (samples["value"] > 0)]
    workloads = [each for each in results.workloads if (ready["workload"] == each).any()]
    if not workloads:
        return None
    name = "startup-ecdf"
    names = [describe_platform(results, each) for each in results.platforms]
    height = 1.1 + 2.3 * len(workloads) + legend_height(names)
    with start_figure(name, len(workloads), height) as (figure, panels):
        step = 10.0
        for axes, workload in zip(panels, workloads, strict=True):
            rows = ready[ready["workload"] == workload]
            _draw_steps(axes, results, workload, rows)
            step = set_log_axis(axes, rows["value"].min(), rows["value"].max(), "s")
        panels[-1].set_xlabel(f"time from the request to ready, {say_log(step)}")
        shown = [p for p in results.platforms if (ready["platform"] == p).any()]
        keys = [_build_line(results, each) for each in shown]
        columns = count_columns([str(each.get_label()) for each in keys])
        figure.legend(handles=keys, loc="outside lower center", ncols=columns)
        most = int(ready.groupby(["platform", "workload"], observed=True).size().max())
        return finish(
            figure, name, "Every start, not only the middle one",
            f"{describe_accelerators(results)}. Up to {most} starts an arm. A steep line is a "
            "steady platform. The bar at one half is the 95 % interval of the median.".lstrip(". "),
            "Cumulative share of starts that were ready by a given time, one line per platform. "
            f"{describe_accelerators(results)}".strip(),
        )  # fmt: skip


def _draw_steps(axes: Axes, results: Results, workload: str, rows: pd.DataFrame) -> None:
    for platform in results.platforms:
        values = rows[rows["platform"] == platform]["value"]
        if values.empty:
            continue
        sns.ecdfplot(
            x=values, ax=axes, color=results.colours[platform], lw=2,
            ls="--" if is_second_arm(platform) else "-",
        )  # fmt: skip
        times = np.array(axes.lines[-1].get_xdata(), dtype=float)
        times[0] = times[1]  # else the line comes from minus infinity
        axes.lines[-1].set_xdata(times)
        figure = results.find(platform, workload, HEADLINE)
        if figure is not None:
            draw_interval(axes, figure, 0.5)
    axes.set_title(f"workload {workload}", color=INK)
    axes.set_ylabel("share of starts", color=MUTED)
    axes.set_xlabel("")
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 5), ["0", "25 %", "50 %", "75 %", "100 %"])


def _build_line(results: Results, platform: str) -> Line2D:
    return Line2D(
        [], [], lw=2, color=results.colours[platform], ls="--" if is_second_arm(platform) else "-",
        label=describe_platform(results, platform),
    )  # fmt: skip
