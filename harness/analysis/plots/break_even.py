"""How the share of what a later start adds to start and work falls with the work that follows."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.arrays import Floats
from harness.analysis.break_even import READY, SHARE, Span, find_penalty, find_work
from harness.analysis.plots.data import (
    MOST_LINES,
    MOST_WORKLOADS,
    Data,
    build_data,
    choose_platforms,
)
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    MUTED,
    RULE,
    build_note,
    say_blocks,
    say_log,
    set_log_axis,
    set_title,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform
from harness.units import format_seconds

_POINTS, _FEWER = 40, 20
"""Points of a curve, and where there are many panels."""


def draw_break_even(results: Results) -> Drawing | None:
    """One panel per workload, one line per platform that starts later than the reference."""
    found = {
        workload: penalties
        for workload in results.workloads
        if (penalties := _list_penalties(results, workload))
    }
    if not found:
        return None
    most = {
        each: max(known[each].middle for known in found.values() if each in known)
        for each in results.first_arms
        if any(each in known for known in found.values())
    }
    shown, said = choose_platforms(results, most, MOST_LINES)
    panels = dict(list(found.items())[:MOST_WORKLOADS])
    if len(panels) < len(found):
        said = f"{said}. The first {len(panels)} of {len(found)} workloads"
    low = min(find_work(each).middle for known in found.values() for each in known.values()) / 1000
    high = max(find_work(each).middle for known in found.values() for each in known.values()) * 3
    with start_sheet("break-even", [1.7 if len(panels) < 5 else 1.1] * len(panels)) as sheet:
        step = 10.0
        seconds = np.geomspace(low, high, _POINTS if len(panels) < 5 else _FEWER)
        for axes, (workload, penalties) in zip(sheet.panels, panels.items(), strict=True):
            drawn = {name: each for name, each in penalties.items() if name in shown}
            _draw_panel(axes, results, workload, drawn, seconds)
            step = set_log_axis(axes, low, high, "s")
        sheet.panels[-1].set_xlabel(f"seconds of work after ready, {say_log(step)}")
        add_keys(sheet, [_build_line(results, each) for each in shown])
        pairs = [results.find(each, workload, READY) for workload in panels for each in shown]
        caption = build_note(
            results, say_blocks(pairs),
            f"What is ready later than {results.reference} is later by some seconds: drawn is "
            "their share in these seconds and the work together; bands are 95 % intervals, both "
            "axes logarithmic. Assumed: once ready, the work takes as long on both. Below the "
            "line the share is under 1 %", said,
        )  # fmt: skip
        alt = "; ".join(
            f"{workload} on {describe_platform(results, platform)}: under 1 % after "
            f"{format_seconds(find_work(penalty).middle)}"
            for workload, penalties in panels.items()
            for platform, penalty in penalties.items()
            if platform in shown
        )
        return finish(sheet, "When a later start no longer matters", caption, alt, _list(found))


def _build_line(results: Results, platform: str) -> Line2D:
    colour, label = results.colours[platform], describe_platform(results, platform)
    return Line2D([], [], lw=2, color=colour, label=label)


def _list(found: Mapping[str, Mapping[str, Span]]) -> Data:
    """What the curves are made of: share = later by / (later by + work)."""
    spans = ("later by", "under 1 % after work of")
    ends = ("median", "low", "high")
    head = ("workload", "platform", *(f"{span}, {end} (s)" for span in spans for end in ends))
    return build_data(head, [
        (workload, platform, *(value for span in (penalty, find_work(penalty))
                               for value in (span.middle, span.low, span.high)))
        for workload, penalties in found.items()
        for platform, penalty in penalties.items()
    ])  # fmt: skip


def _list_penalties(results: Results, workload: str) -> dict[str, Span]:
    found = {each: find_penalty(results, each, workload) for each in results.first_arms}
    return {name: penalty for name, penalty in found.items() if penalty is not None}


def _draw_panel(
    axes: Axes, results: Results, workload: str, penalties: Mapping[str, Span], seconds: Floats
) -> None:
    for platform, penalty in penalties.items():
        lines = [each / (each + seconds) for each in (penalty.middle, penalty.low, penalty.high)]
        colour = results.colours[platform]
        axes.fill_between(seconds, lines[1], lines[2], color=colour, alpha=0.18, lw=0)
        axes.plot(seconds, lines[0], color=colour, lw=1.8)
    axes.axhline(SHARE, color=RULE, lw=1.5, zorder=0)
    axes.set_yscale("log")
    axes.set_ylim(SHARE / 4, 1.1)
    axes.set_yticks([0.01, 0.1, 1.0], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    set_title(axes, f"workload {workload}")
    axes.set_ylabel("share of the delay", color=MUTED)
