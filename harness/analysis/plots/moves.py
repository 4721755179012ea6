"""Seconds from the first request to ready over the bandwidth of the link, from measured points."""

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from harness.analysis.moves import SCENARIOS, Way, list_ways
from harness.analysis.plots.style import (
    INK,
    MARKERS,
    MUTED,
    PAPER,
    RULE,
    Drawing,
    finish,
    start_figure,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_accelerators, describe_platform, format_figure
from harness.units import format_bandwidth, format_seconds

_DASHES = ((0, ()), (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))


def draw_moves(results: Results) -> Drawing | None:
    """One panel for each scenario, both axes logarithmic; a line for each way to pack."""
    shown = [each for each in SCENARIOS if list_ways(results, each)]
    if not shown:
        return None
    name = "portability-moves"
    lines = {(way.platform, way.packing) for each in shown for way in list_ways(results, each)}
    height = 0.9 + (2.1 + 0.04 * len(lines)) * len(shown) + 0.19 * len(lines) / 2
    with start_figure(name, len(shown), height) as (figure, panels):
        for axes, scenario in zip(panels, shown, strict=True):
            _draw_scenario(axes, results, scenario)
        panels[-1].set_xlabel("bandwidth of the link, logarithmic", color=MUTED)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        machines = describe_accelerators(results)
        return finish(
            figure, name, "From the first request to ready on another host",
            f"{machines + '. ' if machines else ''}Transfer over a shaped link, unpacking and "
            "start together, logarithmic. Points are medians with 95 % intervals; the lines only "
            "join them.",
            _describe(results, shown),
        )  # fmt: skip


def _draw_scenario(axes: Axes, results: Results, scenario: str) -> None:
    ways = list_ways(results, scenario)
    styles: dict[str, list[str]] = {}
    for platform, packing in dict.fromkeys((way.platform, way.packing) for way in ways):
        styles.setdefault(platform, []).append(packing)
        dash = _DASHES[(len(styles[platform]) - 1) % len(_DASHES)]
        chosen = [way for way in ways if (way.platform, way.packing) == (platform, packing)]
        figures = [_require(results, scenario, way) for way in chosen]
        middle = [each.median for each in figures]
        reach = [[each.median - each.low for each in figures],
                 [each.high - each.median for each in figures]]  # fmt: skip
        axes.errorbar(
            [way.bandwidth for way in chosen], middle, yerr=reach, ls=dash, lw=1.5,
            color=results.colours[platform], marker=MARKERS[results.kinds[platform]], ms=6,
            mec=PAPER, mew=0.6, elinewidth=1.0,
            label=f"{describe_platform(results, platform)}: {packing}",
        )  # fmt: skip
    _set_axes(axes, sorted({way.bandwidth for way in ways}))
    axes.set_title(f"{scenario}: {SCENARIOS[scenario]}", color=INK, fontweight="normal")


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
