"""Startup in two views: milestones on a log axis, phases on a linear one."""

import textwrap
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.analysis.plots.style import (
    INK,
    PAPER,
    PHASE_COLOURS,
    Drawing,
    count_columns,
    find_marker,
    finish,
    is_second_arm,
    label_platforms,
    say_log,
    set_linear_axis,
    set_log_axis,
    start_figure,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import (
    describe_accelerators,
    describe_platform,
    find_traits,
    format_figure,
)
from harness.metrics import describe_phase
from harness.model import MILESTONES, OPTIONAL_MILESTONES, RESIDUAL

HEADLINE = "startup.ready"
_SHOWN = MILESTONES[1 : MILESTONES.index("stopped")]
_MAY_LACK = (*OPTIONAL_MILESTONES, "response")


@dataclass(frozen=True, slots=True)
class Stop:
    """A milestone of one arm: its median time since the request; ``phase`` is what led to it."""

    milestone: str
    phase: str
    seconds: float


Chosen = list[tuple[str, dict[str, list[Stop]]]]
"""Workloads, each with the stops of its platforms."""


def find_stops(results: Results, workload: str) -> dict[str, list[Stop]]:
    """The milestones of each platform, by median over trials, in order.

    A milestone that fewer than half of the trials reported is left out, and the span that covers
    the gap is `residual`. Medians of cumulative times keep their order and end at the headline.
    """
    times = _read_times(results, workload)
    stops: dict[str, list[Stop]] = {}
    for platform, rows in times.groupby("platform", sort=False):
        count = rows["trial"].nunique()
        middle = rows.groupby("milestone")["seconds"].agg(["median", "size"])
        known = middle[middle["size"] * 2 > count]["median"]
        stops[str(platform)] = _chain({str(name): float(value) for name, value in known.items()})
    return stops


def _read_times(results: Results, workload: str) -> pd.DataFrame:
    rows = [
        (outcome.platform, outcome.trial, name, (stamp - outcome.milestones["request"]) / 1e9)
        for outcome in results.measured
        if outcome.workload == workload and outcome.status == "ok"
        and "request" in outcome.milestones
        for name, stamp in outcome.milestones.items()
        if name in _SHOWN
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["platform", "trial", "milestone", "seconds"])


def _chain(known: dict[str, float]) -> list[Stop]:
    expected = [name for name in _SHOWN if name in known or name not in _MAY_LACK]
    stops, gap = [], False
    for name in expected:
        if name not in known:
            gap = True
            continue
        stops.append(Stop(name, RESIDUAL if gap else name, max(known[name], 1e-9)))
        gap = False
    return sorted(stops, key=lambda stop: stop.seconds)


def draw_milestones(results: Results) -> Drawing | None:
    """The way to `ready` on a log axis: milestones as dots, never stacked areas."""
    chosen = _choose(results)
    if not chosen:
        return None
    name = "startup-log"
    rows = [len(stops) for _, stops in chosen]
    with start_figure(name, len(chosen), 1.5 + sum(0.5 * count + 0.75 for count in rows)) as made:
        figure, panels = made
        step = 10.0
        for axes, (workload, stops) in zip(panels, chosen, strict=True):
            _draw_tracks(axes, results, workload, stops)
            every = [stop.seconds for each in stops.values() for stop in each]
            found = (results.find(platform, workload, HEADLINE) for platform in stops)
            every += [each.high for each in found if each]
            above = [each for each in every if each > 0] or [1.0]
            step = set_log_axis(axes, min(above), max(above) * 2.2, "s")
        panels[-1].set_xlabel(f"time since the request, {say_log(step)}")
        names = list(dict.fromkeys(s.milestone for _, st in chosen for t in st.values() for s in t))
        keys = [_build_dot(each) for each in sorted(names, key=_SHOWN.index) if each != "ready"]
        columns = count_columns([str(each.get_label()) for each in keys])
        figure.legend(handles=keys, loc="outside lower center", ncols=columns, fontsize=8.5)
        return finish(
            figure, name, "From the request to ready",
            f"{_describe(results, chosen)} A dot is a milestone at its median time since the "
            "request; the large mark is `ready` with its 95 % interval.",
            _build_alt(results, chosen),
        )  # fmt: skip


def _draw_tracks(axes: Axes, results: Results, workload: str, stops: dict[str, list[Stop]]) -> None:
    for row, (platform, chain) in enumerate(stops.items()):
        colour = results.colours[platform]
        alpha = 0.55 if is_second_arm(platform) else 1.0
        times = [stop.seconds for stop in chain]
        axes.plot(times, [row] * len(times), color=colour, lw=2.2, alpha=alpha * 0.55, zorder=2)
        for stop in chain:
            if stop.milestone != "ready":
                axes.plot(
                    stop.seconds, row, "o", ms=6, mec=PAPER, mew=0.8, zorder=3,
                    color=PHASE_COLOURS[stop.milestone],
                )  # fmt: skip
        figure = results.find(platform, workload, HEADLINE)
        if figure is not None:
            _draw_headline(axes, results, platform, figure, row, max(times))
    axes.set_title(f"workload {workload}", color=INK)
    label_platforms(axes, results, list(stops))


def _draw_headline(
    axes: Axes, results: Results, platform: str, figure: Figure, row: int, right: float
) -> None:
    marker = find_marker(results, platform)
    draw_interval(axes, figure, row)
    axes.plot(
        figure.median,
        row,
        marker,
        ms=8.5,
        color=results.colours[platform],
        mec=PAPER,
        mew=1,
        zorder=5,
    )
    axes.annotate(
        format_figure(figure), (max(right, figure.high), row), xytext=(9, 0), zorder=6,
        textcoords="offset points", va="center", fontsize=8.5, color=INK,
    )  # fmt: skip


def draw_interval(axes: Axes, figure: Figure, row: float) -> None:
    """The 95 % interval as a thin line with ends, always drawn."""
    axes.plot(
        [figure.low, figure.high], [row, row], "|-", color=INK, lw=1.3, ms=15, mew=1.3, zorder=4
    )


def _build_dot(milestone: str) -> Line2D:
    return Line2D([], [], ls="", marker="o", ms=7, color=PHASE_COLOURS[milestone], label=milestone)


def draw_phases(results: Results) -> Drawing | None:
    """The same starts as stacked bars on one linear axis, which shows their true proportion."""
    chosen = _choose(results)
    if not chosen:
        return None
    name = "startup-linear"
    rows = [len(stops) for _, stops in chosen]
    legend = 1.8 if _has_machine(results, chosen) else 0.0
    height = 1.5 + legend + sum(0.46 * count + 0.7 for count in rows)
    with start_figure(name, len(chosen), height) as made:
        figure, panels = made
        for axes, (workload, stops) in zip(panels, chosen, strict=True):
            _draw_bars(axes, results, workload, stops)
        panels[-1].set_xlabel("time since the request, linear from zero")
        used = {s.phase for _, stops in chosen for chain in stops.values() for s in chain}
        keys = [
            Patch(color=PHASE_COLOURS[phase], label=_name_phase(results, chosen, phase))
            for phase in (*_SHOWN, RESIDUAL)
            if phase in used
        ]
        columns = 1 if _has_machine(results, chosen) else len(keys)
        figure.legend(handles=keys, loc="outside lower center", ncols=columns, fontsize=8.5)
        return finish(
            figure, name, "The same starts in true proportion",
            f"{_describe(results, chosen)} A bar's parts are the phases, each named by the "
            "milestone it ends at; the line at `ready` is the 95 % interval.",
            _build_alt(results, chosen),
        )  # fmt: skip


def _has_machine(results: Results, chosen: Chosen) -> bool:
    return any(results.kinds[platform] == "vm" for _, stops in chosen for platform in stops)


def _name_phase(results: Results, chosen: Chosen, phase: str) -> str:
    """``to init``; where machines are shown, with what happens there on each platform."""
    name = phase if phase == RESIDUAL else f"to {phase}"
    if not _has_machine(results, chosen):
        return name
    words = dict.fromkeys(
        describe_phase(phase, find_traits(results, platform, {stop.milestone for stop in chain}))
        for _, stops in chosen
        for platform, chain in stops.items()
        if any(stop.phase == phase for stop in chain)
    )
    label = f"{name}: {'; '.join(filter(None, words))}".removesuffix(": ")
    return textwrap.fill(label, 92, subsequent_indent="    ")


def _draw_bars(axes: Axes, results: Results, workload: str, stops: dict[str, list[Stop]]) -> None:
    for row, (platform, chain) in enumerate(stops.items()):
        left = 0.0
        for stop in chain:
            axes.barh(
                row, stop.seconds - left, left=left, height=0.56, zorder=2, linewidth=0.6,
                color=PHASE_COLOURS[stop.phase], edgecolor=PAPER,
                alpha=0.6 if is_second_arm(platform) else 1.0,
            )  # fmt: skip
            left = stop.seconds
        figure = results.find(platform, workload, HEADLINE)
        if figure is not None:
            draw_interval(axes, figure, row)
            axes.annotate(
                format_figure(figure), (max(left, figure.high), row), xytext=(7, 0),
                textcoords="offset points", va="center", fontsize=8.5, color=INK,
            )  # fmt: skip
    axes.set_title(f"workload {workload}", color=INK)
    found = (results.find(platform, workload, HEADLINE) for platform in stops)
    reach = [chain[-1].seconds for chain in stops.values()]
    axes.set_xlim(0, 1.32 * max([*reach, *(each.high for each in found if each)]))
    set_linear_axis(axes, "s")
    label_platforms(axes, results, list(stops))


def _choose(results: Results) -> Chosen:
    """Workloads with the platforms that have milestones, in the report's order."""
    chosen = []
    for workload in results.workloads:
        found = find_stops(results, workload)
        ordered = {name: found[name] for name in results.platforms if found.get(name)}
        if ordered:
            chosen.append((workload, ordered))
    return chosen


def _describe(results: Results, chosen: Chosen) -> str:
    counts = [
        figure.n
        for workload, stops in chosen
        for platform in stops
        if (figure := results.find(platform, workload, HEADLINE)) is not None
    ]
    least, most = min(counts, default=0), max(counts, default=0)
    blocks = f"{most} blocks" if least == most else f"{least} to {most} blocks"
    machines = describe_accelerators(results)
    return f"{machines}. {blocks}." if machines else f"{blocks}."


def _build_alt(results: Results, chosen: Chosen) -> str:
    parts = [
        f"{describe_platform(results, platform)}: "
        f"{format_figure(results.find(platform, workload, HEADLINE))}"
        for workload, stops in chosen[:1]
        for platform in stops
    ]
    return f"Time to ready of {chosen[0][0]}. {'; '.join(parts)}."
