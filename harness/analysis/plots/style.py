"""The house style of every figure: one colour and one marker per platform, everywhere.

The marker says the kind, so that colour is never the only key. Figures are drawn in
fixed inks; on the page, the inks are replaced by the page's own, so that they follow dark mode.
"""

import re
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_accelerators, describe_platform
from harness.model import AA_SUFFIX
from harness.units import format_value

INK, MUTED, RULE, PAPER = "#1b2026", "#5c6670", "#d9dee3", "#ffffff"
WIDTH = 7.6
_LABEL = 26
"""Characters in a line of a platform's label."""
LINE = 0.155
"""Inches from one line of a label to the next."""

PHASE_COLOURS = {
    "created": "#4195e8",
    "started": "#8d9860",
    "loader": "#7c4c69",
    "kernel": "#c8863d",
    "initramfs": "#1c9fc5",
    "system": "#746600",
    "init": "#1f6449",
    "exec": "#714799",
    "ready": "#844d2c",
    "residual": "#8b939c",
    "response": "#cb587d",
}
"""One colour per milestone; neighbours differ also to those who cannot tell red from green."""

MARKERS = {"process": "D", "container": "o", "sandbox": "^", "vm": "s"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "figure.dpi": 160,
    "path.simplify": True,
    "legend.fontsize": 8.5,
    "legend.borderaxespad": 0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
}


def find_marker(results: Results, platform: str) -> str:
    return MARKERS[results.kinds[platform]]


def is_second_arm(platform: str) -> bool:
    return platform.endswith(AA_SUFFIX)


def label_platforms(axes: Axes, results: Results, platforms: list[str]) -> None:
    """Platforms as rows, from above, in words; an emulated one says so."""
    names = [wrap_label(describe_platform(results, name)) for name in platforms]
    label_rows(axes, names)


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from above, each with its name to the left.

    The names are plain texts: as ticks they take four times as long to draw.
    """
    axes.set_yticks([])
    for row, name in enumerate(names):
        axes.annotate(
            name, (0, row), xycoords=axes.get_yaxis_transform(), xytext=(-5, 0), color=INK,
            textcoords="offset points", ha="right", va="center", multialignment="right",
            annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(len(names) - 0.4, -0.6)


def wrap_label(text: str) -> str:
    """``vm-direct`` above ``emulated (TCG)``; a long variant is broken at its options.

    What is still very long is cut in the middle.
    """
    lines: list[str] = []
    for part in text.replace("\n", " ").split(", "):
        lines += _break_options(part)
    return "\n".join(line if len(line) <= _LABEL else f"{line[:12]}…{line[-12:]}" for line in lines)


def _break_options(name: str) -> list[str]:
    """``vm-direct/disk=erofs/upper=tmpfs`` in lines that end at a slash."""
    if len(name) <= _LABEL:
        return [name]
    lines = [""]
    for word in re.findall(r"[^/]*/|[^/]+$", name):
        if lines[-1] and len(lines[-1] + word) > _LABEL:
            lines.append("")
        lines[-1] += word
    return lines


def rows_height(names: Sequence[str], least: float = 0.26) -> float:
    """Inches that rows with these labels need, so that no label touches its neighbours."""
    lines = max((name.count("\n") + 1 for name in names), default=1)
    return max(least, LINE * lines + 0.06) * len(names)


def platforms_height(results: Results, platforms: Sequence[str], least: float = 0.26) -> float:
    return rows_height([wrap_label(describe_platform(results, each)) for each in platforms], least)


def label_values(axes: Axes, texts: Sequence[str], colours: Sequence[str] | None = None) -> None:
    """Each row's value in words, in a column to the right of the axes, where nothing else is."""
    for row, text in enumerate(texts):
        axes.annotate(
            text, (1, row), xycoords=axes.get_yaxis_transform(), xytext=(7, 0), fontsize=8.5,
            textcoords="offset points", va="center", annotation_clip=False,
            color=colours[row] if colours else INK,
        )  # fmt: skip


def set_title(axes: Axes, text: str, *, bold: bool = True) -> None:
    """A panel's title, broken where it would leave the figure."""
    axes.set_title(break_lines(text, 60), color=INK, fontweight="bold" if bold else "normal")


def break_lines(text: str, length: int, most: int = 3) -> str:
    """At most ``most`` lines of ``length`` characters; what is longer is cut in the middle."""
    plain = " ".join(text.split())
    if len(plain) > length * most * 3 // 4:
        half = length * most * 3 // 8
        plain = f"{plain[:half]}…{plain[-half:]}"
    return "\n".join(textwrap.wrap(plain, length, break_on_hyphens=False))


def draw_intervals(axes: Axes, figures: Sequence[Figure | None], least: float = -np.inf) -> None:
    """Each row's 95 % interval as a thin line with ends; those that begin at ``least`` or below
    have no place on the axis."""
    known = [
        (row, each.low, each.high)
        for row, each in enumerate(figures)
        if each is not None and each.low > least
    ]
    if known:
        rows, lows, highs = (np.array(each, dtype=float) for each in zip(*known, strict=True))
        axes.hlines(rows, lows, highs, color=INK, lw=1.3, zorder=4)
        ends, twice = np.concatenate([lows, highs]), np.concatenate([rows, rows])
        axes.plot(ends, twice, "|", color=INK, ms=11, mew=1.3, zorder=4, ls="none")


def draw_marks(
    axes: Axes, results: Results, marks: Sequence[tuple[float, float, str]], size: float = 8.0
) -> None:
    """A mark for each (x, y, platform) in the platform's colour, its shape by kind."""
    for kind, marker in MARKERS.items():
        part = [each for each in marks if results.kinds[each[2]] == kind]
        if part:
            across, along, platforms = zip(*part, strict=True)
            axes.scatter(
                across, along, s=size**2, marker=marker, edgecolors=PAPER, linewidths=0.8,
                c=[results.colours[each] for each in platforms], zorder=5,
            )  # fmt: skip


def say_blocks(figures: Collection[Figure | None], word: str = "blocks") -> str:
    """``n = 10 blocks``, or ``n = 3 to 10 blocks`` where figures differ; empty without any."""
    return say_counts({each.n for each in figures if each is not None}, word)


def say_counts(counts: Collection[int], word: str) -> str:
    """The same of plain counts."""
    ends = dict.fromkeys((min(counts), max(counts))) if counts else {}
    return f"n = {' to '.join(map(str, ends))} {word}" if ends else ""


def say_medians(figures: Collection[Figure | None]) -> str:
    """What is drawn of ``figures``: medians, with intervals where any of them has a spread."""
    spread = any(each is not None and each.low < each.high for each in figures)
    return "medians with 95 % intervals" if spread else "the same bytes in every block"


def build_note(results: Results, *sentences: str) -> str:
    """A caption: what the machines ran on, then the sentences that say something."""
    parts = [describe_accelerators(results), *sentences]
    return " ".join(f"{part.strip().rstrip('.')}." for part in parts if part.strip(" ."))


def set_log_axis(axes: Axes, low: float, high: float, unit: str) -> float:
    """A logarithmic x axis with round ticks; returns the step from one gridline to the next."""
    base, places = (10.0, 1) if unit == "s" else (2.0, 2)
    first = int(np.floor(np.log(low) / np.log(base)))
    last = int(np.ceil(np.log(high) / np.log(base)))
    step = max(places, -(-(last - first) // 6)) if unit == "B" else max(1, -(-(last - first) // 7))
    ticks = [base**power for power in range(first - first % step, last + step, step)]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))
    axes.set_xlim(min(low * 0.8, ticks[0] * 1.0001), high * 1.12)
    return float(base**step)


def set_linear_axis(axes: Axes, unit: str) -> None:
    """A linear x axis from zero in the words of its unit."""
    axes.set_xlim(left=0)
    right = axes.get_xlim()[1]
    if unit == "B":  # 8 MiB is round, 7.63 MiB is not
        axes.xaxis.set_major_locator(MultipleLocator(2.0 ** np.ceil(np.log2(right / 5))))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))


def say_log(step: float) -> str:
    return f"logarithmic: each gridline is {step:g} × the one before"
