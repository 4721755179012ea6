"""What a change costs: seconds until the new image can be started, and bytes to ship."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from harness.analysis.plots.data import Data, build_data, list_figure, name_interval
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import (
    build_note,
    draw_intervals,
    draw_marks,
    label_rows,
    label_values,
    rows_height,
    say_blocks,
    say_log,
    set_linear_axis,
    set_log_axis,
    set_title,
)
from harness.analysis.rebuild import WAYS, Case, find_cases
from harness.analysis.results import Figure, Results
from harness.analysis.wording import format_figure, say_intervals

_NAME = "rebuild"


def draw_rebuilds(results: Results) -> Drawing | None:
    """One row per change and way, one panel for seconds and one for the smallest shipment."""
    cases = find_cases(results)
    seconds = [case.seconds for case in cases]
    shipped = [found[1] if (found := case.smallest) else None for case in cases]
    if not any(seconds) or not any(shipped):
        return None
    high = rows_height([""] * len(cases), 0.3)
    with start_sheet(_NAME, [high, high]) as sheet:
        _draw_panel(sheet.panels[0], results, cases, seconds, "s")
        set_title(sheet.panels[0], "until the new image can be started on this host")
        step = _draw_panel(sheet.panels[1], results, cases, shipped, "B")
        set_title(sheet.panels[1], "to ship to a host that has the old image")
        caption = build_note(
            results, say_blocks([*seconds, *shipped]),
            f"Medians with {say_intervals([*seconds, *shipped])}. Containers (circles) are rebuilt "
            "by layers, disks of virtual machines (squares) anew or by update. Seconds: linear "
            f"from zero. Bytes: {say_log(step)}; the packing that ships least is shown",
        )  # fmt: skip
        alt = "; ".join(
            f"{_label(case)}: {format_figure(time)}, {format_figure(size)}"
            for case, time, size in zip(cases, seconds, shipped, strict=True)
        )
        return finish(sheet, "What a change costs", caption, alt, _list(cases))


def _list(cases: Sequence[Case]) -> Data:
    """Every change and way: seconds, and what is shipped in each packing."""
    head = ("change", "way", "platform", "metric", "packing", "unit", *name_interval("unit"))
    rows = []
    for case in cases:
        start = (case.change, WAYS[case.way], case.platform)
        rows.append((*start, "rebuild.seconds", "", "s", *list_figure(case.seconds)))
        rows += [(*start, "rebuild.shipped", packing, "B", *list_figure(figure))
                 for packing, figure in case.shipped.items()]  # fmt: skip
    return build_data(head, rows)


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
    draw_intervals(axes, figures)
    rows = enumerate(zip(cases, figures, strict=True))
    draw_marks(
        axes, results, [(each.median, row, case.platform) for row, (case, each) in rows if each]
    )
    label_rows(axes, [_label(case) for case in cases])
    label_values(axes, [format_figure(each) for each in figures])
    return step


def _label(case: Case) -> str:
    return f"{case.change}: {WAYS[case.way]}"
