"""How starts spread: the share of them that were ready by a given time."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.plots.data import (
    MOST_LINES,
    MOST_WORKLOADS,
    Data,
    build_data,
    choose_platforms,
)
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.startup import HEADLINE
from harness.analysis.plots.style import (
    INK,
    MUTED,
    build_note,
    is_second_arm,
    say_log,
    set_log_axis,
    set_title,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform

_STEPS = 25
"""Steps that a line is drawn with at most: further ones are finer than its width."""


def draw_ecdf(results: Results) -> Drawing | None:
    """How `startup.ready` spreads: the share of starts that were ready by a given time."""
    samples = results.samples
    ready = samples[(samples["metric"] == HEADLINE) & (samples["value"] > 0)]
    ready = ready.astype({"platform": str, "workload": str})
    workloads = [each for each in results.workloads if (ready["workload"] == each).any()]
    if not workloads:
        return None
    lengths = _compare_lengths(ready)
    ordered = {name: lengths[name] for name in results.platforms if name in lengths}
    platforms, said = choose_platforms(results, ordered, MOST_LINES)
    shown = workloads[:MOST_WORKLOADS]
    if len(shown) < len(workloads):
        said = f"{said}. The first {len(shown)} of {len(workloads)} workloads"
    with start_sheet("startup-ecdf", [1.6 if len(shown) < 5 else 1.1] * len(shown)) as sheet:
        drawn = ready[ready["workload"].isin(shown) & ready["platform"].isin(platforms)]
        step = 10.0
        for axes, workload in zip(sheet.panels, shown, strict=True):
            _draw_steps(axes, results, workload, drawn, platforms)
            step = set_log_axis(axes, drawn["value"].min(), drawn["value"].max(), "s")
        sheet.panels[-1].set_xlabel(f"time from the request to ready, {say_log(step)}")
        add_keys(sheet, [_build_line(results, each) for each in platforms])
        counts = drawn.groupby(["platform", "workload"]).size()
        least, most = int(counts.min()), int(counts.max())
        count = f"n = {least} starts" if least == most else f"n = {least} to {most} starts"
        caption = build_note(
            results, f"{count} a line", "A steep line is a steady platform. The bar at one half "
            "is the 95 % interval of the median. The axis of time is logarithmic",
            "Lines have up to 25 steps" if most > _STEPS else "", said,
        )  # fmt: skip
        alt = "Cumulative share of starts that were ready by a given time, one line per platform."
        title = "Every start, not only the middle one"
        return finish(sheet, title, caption, f"{alt} {caption}", _list_starts(ready))


def _compare_lengths(ready: pd.DataFrame) -> dict[str, float]:
    """How long each platform's starts are beside the others' with the same workload.

    A platform without the longest workload is not short for that.
    """
    medians = ready.groupby(["workload", "platform"])["value"].median()
    shares = medians / medians.groupby("workload").transform("median")
    found = shares.groupby("platform").median()
    return dict(zip(found.index, found.tolist(), strict=True))


def _draw_steps(
    axes: Axes, results: Results, workload: str, rows: pd.DataFrame, platforms: list[str]
) -> None:
    part = rows[rows["workload"] == workload]
    for platform in platforms:
        values = part[part["platform"] == platform]["value"].to_numpy(dtype=float)
        if not len(values):
            continue
        if len(values) > _STEPS:
            values = np.quantile(values, (np.arange(_STEPS) + 0.5) / _STEPS)
        colour, line = results.colours[platform], "--" if is_second_arm(platform) else "-"
        sns.ecdfplot(x=values, ax=axes, color=colour, lw=1.8, ls=line)
        times = np.array(axes.lines[-1].get_xdata(), dtype=float)
        times[0] = times[1]  # else the line comes from minus infinity
        axes.lines[-1].set_xdata(times)
    found = [results.find(each, workload, HEADLINE) for each in platforms]
    shown = [each for each in found if each is not None and each.low > 0]
    axes.hlines([0.5] * len(shown), [each.low for each in shown], [each.high for each in shown],
                color=INK, lw=1.2, zorder=4)  # fmt: skip
    ends = [end for each in shown for end in (each.low, each.high)]
    axes.plot(ends, [0.5] * len(ends), "|", color=INK, ms=8, ls="none", zorder=4)
    set_title(axes, f"workload {workload}")
    axes.set_ylabel("share of starts", color=MUTED)
    axes.set_xlabel("")
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])


def _list_starts(ready: pd.DataFrame) -> Data:
    """Every start, also of platforms without a line, each with its place in it."""
    part = ready.sort_values(["workload", "platform", "value"])
    groups = part.groupby(["workload", "platform"])["value"]
    shares = groups.rank(method="first") / groups.transform("size")
    columns = (part["workload"], part["platform"], part["block"], part["value"], shares)
    rows = list(zip(*(each.tolist() for each in columns), strict=True))
    head = ("workload", "platform", "block", "startup.ready (s)", "share ready by then (1)")
    return build_data(head, rows)


def _build_line(results: Results, platform: str) -> Line2D:
    return Line2D(
        [], [], lw=2, color=results.colours[platform], ls="--" if is_second_arm(platform) else "-",
        label=describe_platform(results, platform),
    )  # fmt: skip
