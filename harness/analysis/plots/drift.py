"""The run itself: every start in the order of the blocks, against its arm's median."""

import warnings
from collections.abc import Collection

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from harness.analysis.aggregate import find_disturbances
from harness.analysis.plots.data import MOST_LINES, MOST_WORKLOADS, Data, build_data
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.ratios import choose_ratio_ticks
from harness.analysis.plots.startup import HEADLINE
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PAPER,
    RULE,
    build_note,
    set_title,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform

_BOXES, _FEWER = 20, 10
"""Boxes in a panel, and where there are many panels: of more blocks, neighbours share one."""
_MARKS = 600
"""Marks in a figure: of more starts, the furthest from their median are shown."""


def draw_drift(results: Results) -> Drawing | None:
    """Strip and box of the blocks: level boxes are a steady host, a slope or a step is drift."""
    ready = _read_starts(results)
    if ready.empty:
        return None
    known = [each for each in results.workloads if (ready["workload"] == each).any()]
    workloads = known[:MOST_WORKLOADS]
    shown = ready[ready["workload"].isin(workloads)]
    said = ""
    if len(workloads) < len(known):
        said = f"The first {len(workloads)} of {len(known)} workloads. "
    if len(shown) > _MARKS:
        said += f"Marks are the {_MARKS} starts furthest from their median; boxes hold all"
    names = [each for each in results.platforms if (shown["platform"] == each).any()]
    wide = bool(shown["relative"].max() > 4 * shown["relative"].min())
    coloured = names if len(names) <= MOST_LINES else []
    with start_sheet("drift", [1.5 if len(workloads) < 5 else 1.1] * len(workloads)) as sheet:
        for axes, workload in zip(sheet.panels, workloads, strict=True):
            rows = shown[shown["workload"] == workload]
            width = -(-int(rows["block"].nunique()) // (_BOXES if len(workloads) < 5 else _FEWER))
            _draw_boxes(axes, rows, width)
            share = _MARKS // len(workloads)
            _draw_strip(axes, results, rows, coloured, share if len(shown) > _MARKS else len(rows))
            _set_axes(axes, workload, logarithmic=wide)
        sheet.panels[-1].set_xlabel("block, in the order of the run, linear")
        add_keys(sheet, _build_keys(results, coloured, names))
        blocks = shown["block"].nunique()
        group = f", {width} blocks to a box" if width > 1 else ""
        caption = build_note(
            results, f"n = {len(shown)} starts in {blocks} blocks{group}",
            "Each mark is one start, as a share of its own platform's median; boxes hold the "
            "middle half of all platforms, whiskers 5 to 95 %. The axis of shares is "
            f"{'logarithmic' if wide else 'linear'}. Rings are "
            "trials with a mark of disturbance", said,
        )  # fmt: skip
        alt = f"Time to ready of every start relative to its platform's median. {caption}"
        return finish(sheet, "Did the host stay the same?", caption, alt, _list_starts(ready))


def _read_starts(results: Results) -> pd.DataFrame:
    samples = results.samples
    ready = samples[(samples["metric"] == HEADLINE) & (samples["value"] > 0)]
    ready = ready.astype({"platform": str, "workload": str, "marks": str})
    arms = ready.groupby(["platform", "workload"])["value"]
    judged = {each: bool(find_disturbances(each)) for each in ready["marks"].unique()}
    return ready.assign(
        relative=ready["value"] / arms.transform("median"), disturbed=ready["marks"].map(judged)
    ).sort_values(["block", "trial"])


def _draw_boxes(axes: Axes, rows: pd.DataFrame, width: int) -> None:
    first = int(rows["block"].min())
    middle = first + (rows["block"] - first) // width * width + (width - 1) / 2
    with warnings.catch_warnings():
        # seaborn 0.13 still says `vert` to matplotlib, which asks for `orientation` since 3.11
        warnings.filterwarnings("ignore", "vert: bool was deprecated", DeprecationWarning)
        sns.boxplot(
            x=middle, y=rows["relative"], ax=axes, native_scale=True, whis=(5, 95),
            showfliers=False, width=0.8, color=RULE, saturation=1, linecolor=MUTED, linewidth=0.8,
            zorder=2,
        )  # fmt: skip


def _draw_strip(
    axes: Axes, results: Results, rows: pd.DataFrame, coloured: Collection[str], most: int
) -> None:
    """Marks beside each other within their block, in the order of its trials."""
    place = rows.groupby("block").cumcount() / rows.groupby("block")["value"].transform("size")
    rows = rows.assign(x=rows["block"] - 0.3 + 0.6 * place)
    far = np.abs(np.log(rows["relative"])).sort_values(ascending=False, kind="stable")
    rows = rows.loc[far.index[:most]]
    kinds = rows["platform"].map(dict(results.kinds))
    for kind, marker in MARKERS.items():
        part = rows[kinds == kind]
        colours = [
            results.colours[each] if each in coloured else MUTED for each in part["platform"]
        ]
        axes.scatter(
            part["x"], part["relative"], s=20 if coloured else 12, c=colours, marker=marker,
            edgecolors=PAPER, linewidths=0.4, zorder=3,
        )  # fmt: skip
    odd = rows[rows["disturbed"]]
    axes.plot(odd["x"], odd["relative"], "o", ms=8, mfc="none", mec=INK, mew=0.8, zorder=4)


def _set_axes(axes: Axes, workload: str, *, logarithmic: bool) -> None:
    axes.axhline(1, color=MUTED, lw=0.8, zorder=1)
    set_title(axes, f"workload {workload}")
    axes.set_ylabel("share of median", color=MUTED)
    axes.set_xlabel("")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(FixedLocator(choose_ratio_ticks(low, high)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.4g} %"))


def _build_keys(
    results: Results, coloured: Collection[str], names: Collection[str]
) -> list[Line2D]:
    """Platforms; where there are too many to tell apart, their kinds."""
    keys = {describe_platform(results, each): (results.kinds[each], results.colours[each])
            for each in coloured}  # fmt: skip
    if not coloured:
        keys = {results.kinds[each]: (results.kinds[each], MUTED) for each in names}
    return [
        Line2D([], [], ls="", marker=MARKERS[kind], ms=6, color=colour, label=label)
        for label, (kind, colour) in keys.items()
    ]


def _list_starts(ready: pd.DataFrame) -> Data:
    names = ["workload", "platform", "block", "trial", "value", "relative", "marks"]
    rows = list(zip(*(ready[name].tolist() for name in names), strict=True))
    head = ("workload", "platform", "block", "trial", "startup.ready (s)",
            "share of its median (1)", "marks")  # fmt: skip
    return build_data(head, rows)
