"""What a change costs: seconds until the new image can be started, and bytes to ship."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness.analysis.plots.style import (
    INK,
    PAPER,
    Drawing,
    find_marker,
    finish,
    say_log,
    set_linear_axis,
    set_log_axis,
    start_figure,
)
from harness.analysis.rebuild import WAYS, Case, find_cases
from harness.analysis.results import Figure, Results
from harness.analysis.wording import format_figure

_NAME = "rebuild"


def draw_rebuilds(results: Results) -> Drawing | None:
    """One row per change and way, one panel for seconds and one for the smallest shipment."""
    cases = find_cases(results)
    seconds = [case.seconds for case in cases]
    shipped = [found[1] if (found := case.smallest) else None for case in cases]
    if not any(seconds) or not any(shipped):
        return None
    with start_figure(_NAME, 2, 1.5 + 0.42 * len(cases)) as (figure, panels):
        _draw_panel(panels[0], results, cases, seconds, "s")
        panels[0].set_title("until the new image can be started on this host", color=INK)
        step = _draw_panel(panels[1], results, cases, shipped, "B")
        panels[1].set_title("to ship to a host that has the old image", color=INK)
        return finish(
            figure, _NAME, "What a change costs",
            "Medians with 95 % intervals. Containers (circles) are rebuilt by layers, disks of "
            f"virtual machines (squares) anew or by update. Bytes: {say_log(step)}; the packing "
            "that ships least is shown.",
            "; ".join(
                f"{_label(case)}: {format_figure(time)}, {format_figure(size)}"
                for case, time, size in zip(cases, seconds, shipped, strict=True)
            ),
        )  # fmt: skip


def _draw_panel(
    axes: Axes,
    results: Results,
    cases: Sequence[Case],
    figures: Sequence[Figure | None],
    unit: str,
) -> float:
    known = [each for each in figures if each is not None]
    low, high = min(each.low for each in known), max(each.high for each in known)
    step = 0.0
    if unit == "s":
        axes.set_xlim(right=1.06 * high)
        set_linear_axis(axes, unit)
    else:
        step = set_log_axis(axes, low, high, unit)
    for row, (case, figure) in enumerate(zip(cases, figures, strict=True)):
        if figure is not None:
            colour = results.colours[case.platform]
            axes.plot([figure.low, figure.high], [row, row], color=colour, lw=2.2, alpha=0.5)
            axes.plot(
                figure.median, row, find_marker(results, case.platform),
                color=colour, mec=PAPER, mew=0.6, ms=7,
            )  # fmt: skip
    axes.set_yticks(range(len(cases)), [_label(case) for case in cases])
    axes.set_ylim(len(cases) - 0.4, -0.6)
    return step


def _label(case: Case) -> str:
    return f"{case.change}: {WAYS[case.way]}"
