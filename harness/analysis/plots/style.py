"""The house style of every figure: one colour and one marker per platform, everywhere.

The marker says the kind, so that colour is never the only key. Figures are drawn in
fixed inks; on the page, the inks are replaced by the page's own, so that they follow dark mode.
The same data gives the same bytes: no dates, no random ids.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.results import Results
from harness.analysis.wording import describe_platform
from harness.model import AA_SUFFIX
from harness.units import format_value

INK, MUTED, RULE, PAPER = "#1b2026", "#5c6670", "#d9dee3", "#ffffff"
WIDTH = 7.6
_LABEL = 26
"""Characters in a line of a platform's label."""
_LEGEND = 112
"""Characters in a line of a legend, its keys included."""
_LINE = 0.155
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

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
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
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.06,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure: file stem, what it shows in words, and its two renderings.

    ``note`` is its caption; ``alt`` says to those who cannot see it what it shows.
    """

    name: str
    title: str
    note: str
    alt: str
    svg: bytes
    png: bytes


@contextmanager
def start_figure(
    name: str, panels: int, height: float, shares: Sequence[float] | None = None
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``panels`` axes, one above the other, in the house style; freed at the end.

    ``height`` is in inches; ``shares`` are the relative heights of the panels.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(panels, 1, squeeze=False, height_ratios=shares)[:, 0]
        yield figure, list(axes)


def finish(figure: Figure, name: str, title: str, note: str, alt: str) -> Drawing:
    """Render ``figure`` as SVG and PNG without anything that changes from one time to the next."""
    figure.suptitle(title, x=0.008, ha="left", fontsize=12, fontweight="bold", color=INK)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "harness"})
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Drawing(name, title, note, alt, _clean_svg(svg.getvalue()), png.getvalue())


def _clean_svg(data: bytes) -> bytes:
    """Trailing spaces and the metadata block say nothing."""
    text = re.sub(rb"<metadata>.*?</metadata>\s*", b"", data, flags=re.DOTALL)
    return re.sub(rb"[ \t]+\n", b"\n", text)


def find_marker(results: Results, platform: str) -> str:
    return MARKERS[results.kinds[platform]]


def is_second_arm(platform: str) -> bool:
    return platform.endswith(AA_SUFFIX)


def label_platforms(axes: Axes, results: Results, platforms: list[str]) -> None:
    """Platforms as rows, from above, in words; an emulated one says so."""
    names = [wrap_label(describe_platform(results, name)) for name in platforms]
    axes.set_yticks(range(len(platforms)), names, ha="right", multialignment="right")
    axes.set_ylim(len(platforms) - 0.4, -0.6)


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


def row_height(results: Results, platform: str, least: float) -> float:
    """Inches that a platform's row needs among others of two lines, and at least ``least``."""
    lines = wrap_label(describe_platform(results, platform)).count("\n") + 1
    return max(least, _LINE * (lines + 2) / 2 + 0.03)


def count_columns(labels: Sequence[str]) -> int:
    """How many columns of a legend fit beside each other."""
    longest = max(map(len, labels), default=0)
    return max(1, min(len(labels), _LEGEND // (longest + 9)))


def legend_height(labels: Sequence[str]) -> float:
    """Inches that a legend in `count_columns` takes."""
    lines = [label.count("\n") + 1 for label in labels]
    return 0.19 * -(-sum(lines) // count_columns(labels))


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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))


def say_log(step: float) -> str:
    return f"logarithmic: each gridline is {step:g} × the one before"
