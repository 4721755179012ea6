"""Every comparison of a run in one picture: ratios with intervals, and the band of equivalence."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.pairs import COMPARED, THRESHOLD
from harness.analysis.plots.data import (
    Data,
    build_data,
    choose_platforms,
    limit_rows,
    name_sheet,
    split_sheets,
)
from harness.analysis.plots.layout import Drawing, Sheet, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    break_lines,
    build_note,
    label_platforms,
    label_values,
    platforms_height,
    say_counts,
    set_title,
)
from harness.analysis.results import Ratio, Results
from harness.analysis.wording import describe_platform, format_number, format_ratio, shorten_reason

VERDICTS = {
    "faster": ("<", "#1d8a57"),
    "smaller": ("<", "#1d8a57"),
    "slower": (">", "#c4512d"),
    "larger": (">", "#c4512d"),
    "equivalent": ("s", "#4f7fd0"),
    "inconclusive": ("o", "#7d8793"),
}
"""A sign and a colour each; for what is neither time nor cost, `larger` is no worse."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Panel = tuple[str, str, Mapping[str, Ratio]]
"""A workload, a metric, and the platforms that were compared."""


def draw_ratios(results: Results) -> list[Drawing]:
    """A panel per workload and metric, a row per platform; one logarithmic axis for a sheet."""
    panels, said = _build_panels(results)
    most, left = 8, 0
    inches = [_find_height(results, rows) for *_, rows in panels]
    ranges = split_sheets(inches)
    if len(ranges) > most:
        left = len(panels) - ranges[most - 1][1]
        ranges = ranges[:most]
    if left:
        said = (
            f"{said}. " * bool(said)
            + f"{left} panel{'s' * (left > 1)} more {'are' if left > 1 else 'is'} in the CSV alone"
        )
    data = _list_all(results)
    made = []
    for part, (first, end) in enumerate(ranges, 1):
        shown = panels[first:end]
        stem, title = name_sheet("ratios", f"Against {results.reference}", part, len(ranges))
        with start_sheet(stem, inches[first:end]) as sheet:
            _draw_panels(sheet, results, shown)
            add_keys(sheet, _build_keys(shown))
            counts = {each.n for *_, rows in shown for each in rows.values()}
            caption = build_note(
                results, say_counts(counts, "pairs of one block"),
                "Ratios, so without a unit: medians with 95 % intervals, on a logarithmic axis. "
                f"The band is ± {THRESHOLD * 100:.0f} %: what lies in it as a "
                "whole does not matter in practice", said,
            )  # fmt: skip
            made.append(finish(sheet, title, caption, _say_all(results, shown), data, part))
    return made


def _build_panels(results: Results) -> tuple[list[Panel], str]:
    """One for each workload and metric that has a ratio; the sizes of an image once."""
    panels: list[Panel] = []
    said = ""
    found = {(workload, metric) for _, workload, metric in results.ratios}
    for workload in results.workloads:
        first = workload in results.one_per_image
        for metric in COMPARED:
            of_image = "image" in metric or metric.startswith("portability")
            if (workload, metric) not in found or (of_image and not first):
                continue
            rows = {
                name: ratio
                for name in results.first_arms
                if (ratio := results.find_ratio(name, workload, metric)) is not None
            }
            middles = {name: each.median for name, each in rows.items()}
            kept, words = choose_platforms(results, middles, limit_rows(len(results.workloads)))
            panels.append((workload, metric, {name: rows[name] for name in kept}))
            said = said or words
    return panels, said


def _find_height(results: Results, rows: Mapping[str, Ratio]) -> float:
    """Inches of a panel: room for its labels, and for what is said of those withheld."""
    lines = max(_say(each).count("\n") + 1 for each in rows.values())
    return platforms_height(results, list(rows), 0.15 * lines + 0.08)


def _draw_panels(sheet: Sheet, results: Results, panels: Sequence[Panel]) -> None:
    ends = [
        end
        for *_, rows in panels
        for each in rows.values()
        for end in (each.low, each.high)
        if not each.withheld and end > 0
    ]
    low, high = min([*ends, 1 / 1.2]) / 1.1, max([*ends, 1.2]) * 1.1
    for axes, (workload, metric, rows) in zip(sheet.panels, panels, strict=True):
        _draw_rows(axes, results, rows)
        axes.axvspan(1 / (1 + THRESHOLD), 1 + THRESHOLD, color=RULE, lw=0, zorder=0)
        axes.axvline(1, color=MUTED, lw=0.8, zorder=1)
        _set_axis(axes, low, high)
        set_title(axes, f"{metric}, workload {workload}")
        label_platforms(axes, results, list(rows))
        colours = [MUTED if each.withheld else INK for each in rows.values()]
        label_values(axes, [_say(each) for each in rows.values()], colours)
    label = f"ratio to {results.reference} in the same block, logarithmic"
    sheet.panels[-1].set_xlabel(break_lines(label, 60))


def _draw_rows(axes: Axes, results: Results, rows: Mapping[str, Ratio]) -> None:
    """Intervals in the platforms' colours, and above them the signs of the verdicts."""
    places = {name: row for row, name in enumerate(rows)}
    known = {name: each for name, each in rows.items() if not each.withheld and each.low > 0}
    axes.hlines(
        [places[name] for name in known], [each.low for each in known.values()],
        [each.high for each in known.values()], lw=2.2, zorder=3,
        colors=[results.colours[name] for name in known],
    )  # fmt: skip
    for verdict, (marker, colour) in VERDICTS.items():
        found = {name: each for name, each in known.items() if each.verdict == verdict}
        if found:
            axes.plot(
                [each.median for each in found.values()], [places[name] for name in found], marker,
                ms=7.5, mfc=PAPER if verdict == "inconclusive" else colour, mec=colour, mew=1.3,
                ls="none", zorder=4,
            )  # fmt: skip


def _set_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(choose_ratio_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))


def format_tick(value: float) -> str:
    """``0.5 ×``, ``10 000 ×``, and from a million on ``10⁶ ×``."""
    if 1e-4 <= value < 1e6:
        return f"{value:,g} ×".replace(",", "\N{NO-BREAK SPACE}")
    power = f"{value:.0e}".partition("e")[2]
    return f"10{str(int(power)).translate(_RAISED)} ×"


def choose_ratio_ticks(low: float, high: float) -> list[float]:
    """Round ratios between ``low`` and ``high``, 1 among them: at most seven."""
    for steps, every in (
        ((1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), 1), ((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 3),
        ((1,), 5),
    ):  # fmt: skip
        powers = range(-60, 61)
        ticks = [step * 10.0**power for power in powers if power % every == 0 for step in steps]
        found = [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]
        if len(found) <= 7:
            break
    return found if len(found) <= 7 else [1.0]


def _say(ratio: Ratio) -> str:
    if ratio.withheld:
        return break_lines(f"withheld: {shorten_reason(ratio.withheld)}", 36)
    return f"{format_ratio(ratio)}, {ratio.verdict}"


def _build_keys(panels: Sequence[Panel]) -> list[Line2D]:
    used = {each.verdict for *_, rows in panels for each in rows.values() if not each.withheld}
    return [
        Line2D(
            [], [], ls="", marker=marker, ms=7, mec=colour, mew=1.3, label=verdict,
            mfc=PAPER if verdict == "inconclusive" else colour,
        )
        for verdict, (marker, colour) in VERDICTS.items()
        if verdict in used
    ]  # fmt: skip


def _list_all(results: Results) -> Data:
    head = ("workload", "metric", "platform", "reference", "n (pairs)", "ratio (1)", "low (1)",
            "high (1)", "noise floor (1)", "verdict", "withheld")  # fmt: skip
    order = {name: place for place, name in enumerate(results.workloads)}
    found = sorted(results.ratios.items(), key=lambda each: (order[each[0][1]], each[0][2]))
    rows = [
        (workload, metric, platform, results.reference, each.n,
         *(None if value != value else value for value in (each.median, each.low, each.high)),
         each.floor, "" if each.withheld else each.verdict, each.withheld)
        for (platform, workload, metric), each in found
    ]  # fmt: skip
    return build_data(head, rows)


def _say_all(results: Results, panels: Sequence[Panel]) -> str:
    found = "; ".join(
        f"{metric}, {workload}, {describe_platform(results, platform)}: {_say(ratio)}"
        + (f" of {format_number(ratio.n)} pairs" if ratio.withheld else "")
        for workload, metric, rows in panels
        for platform, ratio in rows.items()
    )
    return found.replace("\n", " ")
