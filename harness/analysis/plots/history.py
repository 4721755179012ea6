"""A headline figure over the runs of one host: each platform on an axis of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from harness.analysis.plots.data import build_data, list_figure, name_interval
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PAPER,
    RULE,
)
from harness.analysis.results import Figure
from harness.analysis.wording import format_figure
from harness.units import format_value

_NOTE = (
    "Each mark is the median of one run with its 95 % interval, from the oldest run to the newest, "
    "one step a run. Axes are linear and do not start at zero; every platform has its own. Hollow "
    "marks are figures that their report withholds."
)
_SHOWN_DATES = 6
_WIDEST = 96
"""Characters of a panel's title."""


@dataclass(frozen=True, slots=True)
class Track:
    """A platform's figures by the place of their run, counted from 0; runs without one are left
    out."""

    label: str
    kind: str
    colour: str
    figures: dict[int, Figure]


def draw_history(
    name: str, title: str, dates: Sequence[str], tracks: Sequence[Track]
) -> Drawing | None:
    """One panel a platform; None without a figure. ``dates`` are those of the runs, in order."""
    shown = [each for each in tracks if each.figures]
    if not shown:
        return None
    with start_sheet(name, [0.7] * len(shown)) as sheet:
        panels = sheet.panels
        for axes, track in zip(panels, shown, strict=True):
            _draw_track(axes, track, len(dates))
            axes.tick_params(labelbottom=axes is panels[-1])
        _label_dates(panels, dates)
        alt = "; ".join(_say_track(each) for each in shown)
        rows = [
            (dates[place], track.label, *list_figure(figure))
            for track in shown
            for place, figure in track.figures.items()
        ]
        unit = next(iter(shown[0].figures.values())).unit
        data = build_data(("run", "platform", *name_interval(unit)), rows)
        return finish(sheet, title, _NOTE, f"{title}. {alt}.", data)


def _draw_track(axes: Axes, track: Track, runs: int) -> None:
    for withheld in (False, True):
        part = {at: each for at, each in track.figures.items() if bool(each.withheld) == withheld}
        if not part:
            continue
        middle = [each.median for each in part.values()]
        below = [max(each.median - each.low, 0.0) for each in part.values()]
        above = [max(each.high - each.median, 0.0) for each in part.values()]
        axes.errorbar(
            list(part), middle, yerr=[below, above], fmt=MARKERS[track.kind], color=track.colour,
            mfc="none" if withheld else track.colour, mec=track.colour if withheld else PAPER,
            mew=1.0 if withheld else 0.6, ms=5.5, elinewidth=1.3, capsize=0, zorder=3,
        )  # fmt: skip
    title = _say_track(track)
    axes.set_title(title if len(title) <= _WIDEST else f"{title[:_WIDEST]}…", color=INK)
    axes.title.set_fontweight("normal")
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.8)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.5, runs - 0.5)
    axes.margins(y=0.18)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    unit = next(iter(track.figures.values())).unit
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))


def _say_track(track: Track) -> str:
    last = track.figures[max(track.figures)]
    return f"{track.label}: {format_figure(last)} in the newest of its {_count(track)}"


def _count(track: Track) -> str:
    return "1 run" if len(track.figures) == 1 else f"{len(track.figures)} runs"


def _label_dates(panels: Sequence[Axes], dates: Sequence[str]) -> None:
    """Some dates of the runs, the newest among them."""
    step = -(-len(dates) // _SHOWN_DATES)
    places = list(range(len(dates) - 1, -1, -step))[::-1]
    for axes in panels:
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_major_formatter(
            FuncFormatter(
                lambda value, _: dates[round(value)].replace(" ", "\n", 1) if value >= 0 else ""
            )
        )
    panels[-1].set_xlabel("date of the run", color=MUTED)
