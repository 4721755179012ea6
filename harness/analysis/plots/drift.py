"""The run itself: every start in the order it was made, against its arm's median."""

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from harness.analysis.aggregate import find_disturbances
from harness.analysis.plots.startup import HEADLINE
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PAPER,
    Drawing,
    count_columns,
    finish,
    legend_height,
    start_figure,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_accelerators, describe_platform

_MANY = 2000
"""More points than this are drawn as an image inside the SVG: as shapes they would be megabytes."""


def draw_drift(results: Results) -> Drawing | None:
    """Starts over time: a level band is a steady host, a slope or a step is drift."""
    samples = results.samples
    ready = samples[samples["metric"] == HEADLINE].copy()
    ready = ready[ready["value"] > 0]
    if ready.empty:
        return None
    arms = ready.groupby(["platform", "workload"], observed=True)["value"]
    ready["relative"] = ready["value"] / arms.transform("median")
    since = ready["started_at"] - ready["started_at"].min()
    ready["minutes"] = since.dt.total_seconds() / 60
    ready["disturbed"] = [bool(find_disturbances(str(text))) for text in ready["marks"]]
    ready["arm"] = ready["platform"].astype(str)
    workloads = [each for each in results.workloads if (ready["workload"] == each).any()]
    name = "drift"
    names = [describe_platform(results, each) for each in results.platforms]
    height = 1.2 + 1.6 * len(workloads) + legend_height(names)
    with start_figure(name, len(workloads), height) as (figure, panels):
        for axes, workload in zip(panels, workloads, strict=True):
            _draw_strip(axes, results, workload, ready[ready["workload"] == workload])
        panels[-1].set_xlabel("minutes since the first measured start")
        handles, labels = panels[0].get_legend_handles_labels()
        columns = count_columns(labels)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        machines = describe_accelerators(results)
        return finish(
            figure, name, "Did the host stay the same?",
            f"{machines + '. ' if machines else ''}Each mark is one start, as a share of its own "
            "platform's median; the axis is linear. Rings are trials with a mark of disturbance.",
            "Time to ready of every start relative to its platform's median, over the run. "
            f"{machines}".strip(),
        )  # fmt: skip


def _draw_strip(axes: Axes, results: Results, workload: str, rows: "object") -> None:
    import pandas as pd

    assert isinstance(rows, pd.DataFrame)
    for platform in results.platforms:
        part = rows[rows["arm"] == platform]
        if part.empty:
            continue
        sns.scatterplot(
            data=part, x="minutes", y="relative", ax=axes, color=results.colours[platform], s=26,
            marker=MARKERS[results.kinds[platform]], edgecolor=PAPER, linewidth=0.5, zorder=3,
            label=describe_platform(results, platform), rasterized=len(rows) > _MANY, legend=False,
        )  # fmt: skip
    odd = rows[rows["disturbed"]]
    axes.plot(odd["minutes"], odd["relative"], "o", ms=10, mfc="none", mec=INK, mew=0.9, zorder=4)
    axes.axhline(1, color=MUTED, lw=0.8, zorder=1)
    axes.set_title(f"workload {workload}", color=INK)
    axes.set_ylabel("share of median", color=MUTED)
    axes.set_xlabel("")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))
