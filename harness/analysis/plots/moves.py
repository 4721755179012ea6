"""Seconds from the first request to ready over the bandwidth of the link, from measured points."""

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.moves import SCENARIOS, Way, list_ways
from harness.analysis.plots.data import MOST_LINES, Data, build_data, list_figure, name_interval
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    MARKERS,
    MUTED,
    PAPER,
    RULE,
    build_note,
    say_blocks,
    set_title,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_platform, format_figure, say_intervals
from harness.units import format_bandwidth, format_seconds

_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))


def draw_moves(results: Results) -> Drawing | None:
    """One panel for each scenario, both axes logarithmic; a line for each way to pack."""
    shown = [each for each in SCENARIOS if list_ways(results, each)]
    if not shown:
        return None
    lines = list(dict.fromkeys(
        (way.platform, way.packing) for each in shown for way in list_ways(results, each)
    ))  # fmt: skip
    kept, said = lines, ""
    if len(lines) > MOST_LINES:
        kept = [*lines[: MOST_LINES // 2], *lines[-MOST_LINES // 2 :]]
        said = f"{len(kept)} of {len(lines)} ways shown, the first and the last; all are in the CSV"
    with start_sheet("portability-moves", [1.9] * len(shown)) as sheet:
        for axes, scenario in zip(sheet.panels, shown, strict=True):
            _draw_scenario(axes, results, scenario, kept)
        sheet.panels[-1].set_xlabel("bandwidth of the link, logarithmic", color=MUTED)
        keys = {str(label): key for axes in sheet.panels
                for key, label in zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
        add_keys(sheet, list(keys.values()))
        figures = [
            _require(results, each, way) for each in shown for way in list_ways(results, each)
        ]
        caption = build_note(
            results, say_blocks(figures),
            "Transfer over a shaped link, unpacking and start together; both axes logarithmic. "
            f"Points are medians with {say_intervals(figures)}; the lines only join them", said,
        )  # fmt: skip
        title = "From the first request to ready on another host"
        return finish(sheet, title, caption, _describe(results, shown), _list(results, shown))


def _list(results: Results, scenarios: list[str]) -> Data:
    """Every point with its parts: transfer, unpacking and start."""
    parts = ("transfer", "unpack", "start")
    head = ("scenario", "platform", "packing", "link", "bandwidth (bit/s)", *name_interval("s"),
            *(f"{part}, median (s)" for part in parts))  # fmt: skip
    rows = []
    for scenario in scenarios:
        metric = f"portability.{scenario}_seconds"
        for way in list_ways(results, scenario):
            found = [results.find(way.platform, way.workload, metric, f"{way.phase}/{part}")
                     for part in parts]  # fmt: skip
            row = (scenario, way.platform, way.packing, way.link, way.bandwidth)
            middles = (each.median if each else None for each in found)
            rows.append((*row, *list_figure(_require(results, scenario, way)), *middles))
    return build_data(head, rows)


def _draw_scenario(
    axes: Axes, results: Results, scenario: str, kept: list[tuple[str, str]]
) -> None:
    ways = [way for way in list_ways(results, scenario) if (way.platform, way.packing) in kept]
    styles: dict[str, list[str]] = {}
    for platform, packing in dict.fromkeys((way.platform, way.packing) for way in ways):
        styles.setdefault(platform, []).append(packing)
        dash = _DASHES[(len(styles[platform]) - 1) % len(_DASHES)]
        chosen = [way for way in ways if (way.platform, way.packing) == (platform, packing)]
        figures = [_require(results, scenario, way) for way in chosen]
        middle = [each.median for each in figures]
        reach = [[each.median - each.low for each in figures],
                 [each.high - each.median for each in figures]]  # fmt: skip
        axes.plot(
            [way.bandwidth for way in chosen], middle, ls=dash, lw=1.5, ms=6, mec=PAPER, mew=0.6,
            color=results.colours[platform], marker=MARKERS[results.kinds[platform]],
            label=f"{describe_platform(results, platform)}: {packing}",
        )  # fmt: skip
        axes.errorbar(
            [way.bandwidth for way in chosen], middle, yerr=reach, ls="none",
            color=results.colours[platform], elinewidth=1.0, capsize=2,
        )  # fmt: skip
    if ways:
        _set_axes(axes, sorted({way.bandwidth for way in ways}))
    set_title(axes, f"{scenario}: {SCENARIOS[scenario]}", bold=False)


def _set_axes(axes: Axes, bandwidths: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, axis="y", color=RULE)
    axes.xaxis.set_major_locator(FixedLocator(bandwidths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bandwidth(round(value))))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
    axes.set_xlim(bandwidths[0] / 1.3, bandwidths[-1] * 1.3)
    axes.yaxis.set_major_locator(FixedLocator(choose_ticks(*axes.get_ylim())))


def choose_ticks(low: float, high: float) -> list[float]:
    """Round seconds between ``low`` and ``high``: powers of ten, or finer where they are few."""
    for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        ticks = [step * 10.0**power for power in range(-6, 6) for step in steps]
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) >= 3:
            break
    return found


def _require(results: Results, scenario: str, way: Way) -> Figure:
    found = results.find(way.platform, way.workload, f"portability.{scenario}_seconds", way.phase)
    assert found is not None
    return found


def _describe(results: Results, scenarios: list[str]) -> str:
    return "; ".join(
        f"{scenario}, {describe_platform(results, way.platform)}, {way.packing} at {way.link}: "
        f"{format_figure(_require(results, scenario, way))}"
        for scenario in scenarios
        for way in list_ways(results, scenario)
    )
