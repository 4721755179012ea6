"""The answer in four small figures: start, memory, disk and shipping, to be read in ten seconds.

Bars stand on a linear axis from zero, so that their lengths are in true proportion, and each has
its figure written beside its name: there is no axis to decipher.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness.analysis.answer import find_workload
from harness.analysis.memory import PSS, find_memory_workload, say_daemon, say_ended
from harness.analysis.plots.data import build_data, choose_platforms, list_figure, name_interval
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import INK, MUTED, RULE, build_note, say_blocks
from harness.analysis.results import Figure, Results
from harness.analysis.statistics import CONFIDENCE, best_coverage
from harness.analysis.wording import (
    describe_platform,
    describe_ran,
    format_figure,
    format_number,
    quote,
)

MOST_ROWS = 16
_WIDTH = 3.9
_ROW = 0.34
_LONGEST = 16
"""Characters of a platform's name beside its figure."""


@dataclass(frozen=True, slots=True)
class Glance:
    """One small figure: its place in the answer, its title and the metric it shows."""

    name: str
    title: str
    metric: str
    processes: bool = True


GLANCES = (
    Glance("start", "Ready after", "startup.ready"),
    Glance("memory", "Memory on the host (PSS)", "memory.pss"),
    Glance("disk", "Image on disk", "disk.image_allocated", processes=False),
    Glance("shipping", "To ship to a host with nothing", "portability.first", processes=False),
)


def draw_glances(results: Results) -> list[Drawing]:
    """The small figures that the data allows, for the workload of the answer."""
    found = (_draw(results, each) for each in GLANCES)
    return [drawing for drawing in found if drawing is not None]


def _draw(results: Results, glance: Glance) -> Drawing | None:
    workload = find_workload(results)
    if glance.metric == PSS:
        workload = find_memory_workload(results, workload)
    rows = {
        name: figure
        for name in results.first_arms
        if (figure := results.find(name, workload, glance.metric)) is not None
        and (glance.processes or results.kinds[name] != "process")
    }
    if not any(figure.median > 0 for figure in rows.values()):
        return None
    middles = {each: figure.median for each, figure in rows.items()}
    kept, said = choose_platforms(results, middles, MOST_ROWS, "the table below")
    shown = {each: rows[each] for each in kept}
    name = f"glance-{glance.name}"
    more = _say_memory(results, glance, workload)
    with start_sheet(name, [_ROW * len(shown)], _WIDTH) as sheet:
        _draw_bars(sheet.panels[0], results, shown)
        alt = "; ".join(
            f"{describe_platform(results, each)}: {_label(figure)}"
            for each, figure in shown.items()
        )
        return finish(
            sheet, glance.title, _describe(results, workload, shown, said, more),
            f"{glance.title}, {workload}. {alt}.",
            build_data(("workload", "metric", "platform", *name_interval(_find_unit(rows))),
                       [(workload, glance.metric, each, *list_figure(figure))
                        for each, figure in rows.items()]),
        )  # fmt: skip


def _find_unit(rows: Mapping[str, Figure]) -> str:
    return next(iter(rows.values())).unit


def _draw_bars(axes: Axes, results: Results, rows: Mapping[str, Figure]) -> None:
    most = max(max(figure.median, figure.high) for figure in rows.values())
    for place, (platform, figure) in enumerate(rows.items()):
        colour = RULE if figure.withheld else results.colours[platform]
        axes.barh(place + 0.17, max(figure.median, 0), height=0.24, color=colour, zorder=2)
        if figure.low < figure.high:  # what is exact has no interval
            axes.plot(
                [figure.low, figure.high], [place + 0.17] * 2, "|-",
                color=INK, lw=1.1, ms=7, mew=1.1, zorder=3,
            )  # fmt: skip
        high = place - 0.22
        axes.text(0, high, _name(results, platform), ha="left", va="center", fontsize=8.5)
        axes.text(
            most, high, _label(figure), ha="right", va="center", fontsize=8.5,
            color=MUTED if figure.withheld else INK,
            fontweight="bold" if platform == results.reference else "normal",
        )  # fmt: skip
    axes.set(xlim=(0, most), ylim=(len(rows) - 0.5, -0.55), xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)


def _name(results: Results, platform: str) -> str:
    """A name that leaves room for its figure; that it is emulated is never cut off."""
    platform = " ".join(platform.split())
    words = platform if len(platform) <= _LONGEST else f"{platform[:7]}…{platform[-8:]}"
    ran = describe_ran(results, platform)
    return f"{words}, {ran}" if ran else words


def _label(figure: Figure) -> str:
    return "withheld" if figure.withheld else format_figure(figure)


def _say_memory(results: Results, glance: Glance, workload: str) -> str:
    """What a figure of memory is of, and what it leaves out; nothing for the others."""
    if glance.metric != PSS:
        return ""
    daemons = "; ".join(
        f"{quote(name)}{daemon}"
        for name in results.first_arms
        if (daemon := say_daemon(results, name, workload))
    )
    parts = (say_ended(results, workload, "Read "), f"Not in it: {daemons}" if daemons else "")
    return ". ".join(part for part in parts if part)


def _describe(
    results: Results, workload: str, rows: Mapping[str, Figure], said: str, more: str
) -> str:
    """Only what can differ from one start to the next has an interval; bytes may well be exact."""
    counted = say_blocks(rows.values()).removeprefix("n = ")
    spread = [figure.n for figure in rows.values() if figure.low < figure.high]
    interval = f" with {say_interval(min(spread))}" if spread else ""
    words = f"{quote(workload)}, medians of {counted}{interval}, linear from zero"
    return build_note(results, words, said, more)


def say_interval(n: int) -> str:
    """``intervals of 95 %``; of few blocks the range of them covers less, and that is said."""
    share = min(CONFIDENCE, best_coverage(n)) * 100
    most = "" if share == CONFIDENCE * 100 else "at most "
    return f"intervals of {most}{format_number(share).removesuffix('.0').rstrip('.')} %"
