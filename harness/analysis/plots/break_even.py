"""How the share of a later start in the whole falls with the work that follows it."""

import numpy as np
from matplotlib.axes import Axes

from harness.analysis.break_even import SHARE, Span, find_penalty, find_work
from harness.analysis.plots.style import (
    INK,
    MUTED,
    RULE,
    Drawing,
    count_columns,
    finish,
    legend_height,
    say_log,
    set_log_axis,
    start_figure,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_accelerators, describe_platform
from harness.units import format_seconds

_POINTS = 200


def draw_break_even(results: Results) -> Drawing | None:
    """One panel per workload, one line per platform that starts later than the reference."""
    found = {
        workload: penalties
        for workload in results.workloads
        if (penalties := _list_penalties(results, workload))
    }
    if not found:
        return None
    name = "break-even"
    shown = list(dict.fromkeys(each for penalties in found.values() for each in penalties))
    labels = [describe_platform(results, each) for each in shown]
    height = 1.1 + 2.3 * len(found) + legend_height(labels)
    with start_figure(name, len(found), height) as (figure, panels):
        step = 10.0
        for axes, (workload, penalties) in zip(panels, found.items(), strict=True):
            step = _draw_panel(axes, results, workload, penalties)
        panels[-1].set_xlabel(f"seconds of work after ready, {say_log(step)}")
        lines = {str(line.get_label()): line for axes in panels
                 for line in axes.get_legend_handles_labels()[0]}  # fmt: skip
        columns = count_columns(labels)
        figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=columns)
        machines = describe_accelerators(results)
        return finish(
            figure, name, "When a later start no longer matters",
            f"{machines + '. ' if machines else ''}Share of the later start in start and work "
            f"together, against {results.reference}; bands are 95 % intervals. Assumed: once "
            "ready, the work takes as long on both. Below the line it is under 1 %.",
            "; ".join(
                f"{workload} on {describe_platform(results, platform)}: under 1 % after "
                f"{format_seconds(find_work(penalty).middle)}"
                for workload, penalties in found.items()
                for platform, penalty in penalties.items()
            ),
        )  # fmt: skip


def _list_penalties(results: Results, workload: str) -> dict[str, Span]:
    found = {each: find_penalty(results, each, workload) for each in results.first_arms}
    return {name: penalty for name, penalty in found.items() if penalty is not None}


def _draw_panel(axes: Axes, results: Results, workload: str, penalties: dict[str, Span]) -> float:
    """Returns the step of the axis from one gridline to the next."""
    work = [find_work(penalty).middle for penalty in penalties.values()]
    low, high = min(work) / 1000, max(work) * 3
    seconds = np.geomspace(low, high, _POINTS)
    for platform, penalty in penalties.items():
        lines = [each / (each + seconds) for each in (penalty.middle, penalty.low, penalty.high)]
        colour = results.colours[platform]
        axes.fill_between(seconds, lines[1], lines[2], color=colour, alpha=0.18, lw=0)
        label = describe_platform(results, platform)
        axes.plot(seconds, lines[0], color=colour, lw=2, label=label)
    axes.axhline(SHARE, color=RULE, lw=1.5, zorder=0)
    step = set_log_axis(axes, low, high, "s")
    axes.set_yscale("log")
    axes.set_ylim(SHARE / 4, 1.1)
    axes.set_yticks([0.01, 0.1, 1.0], ["1 %", "10 %", "100 %"])
    axes.minorticks_off()
    axes.set_title(f"workload {workload}", color=INK)
    axes.set_ylabel("share of the start", color=MUTED)
    return step
