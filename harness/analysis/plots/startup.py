"""Startup in two views: milestones on a log axis, phases on a linear one."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.analysis.plots.data import (
    MOST_WORKLOADS,
    Data,
    build_data,
    choose_platforms,
    limit_rows,
    list_figure,
    name_interval,
    name_sheet,
    split_sheets,
)
from harness.analysis.plots.layout import Drawing, Sheet, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    PAPER,
    PHASE_COLOURS,
    build_note,
    draw_intervals,
    draw_marks,
    label_platforms,
    label_values,
    platforms_height,
    say_counts,
    say_log,
    set_linear_axis,
    set_log_axis,
    set_title,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform, find_traits, format_figure
from harness.metrics import describe_phase
from harness.model import MILESTONES, OPTIONAL_MILESTONES, RESIDUAL

HEADLINE = "startup.ready"
_SHOWN = MILESTONES[1 : MILESTONES.index("stopped")]
_MAY_LACK = (*OPTIONAL_MILESTONES, "response")


@dataclass(frozen=True, slots=True)
class Stop:
    """A milestone of one arm: its median time since the request, over ``n`` trials that reported
    it; ``phase`` is what led to it."""

    milestone: str
    phase: str
    seconds: float
    n: int


Chosen = list[tuple[str, dict[str, list[Stop]]]]
"""Workloads, each with the stops of its platforms."""


def find_stops(results: Results) -> dict[str, dict[str, list[Stop]]]:
    """By workload and platform: the milestones by median over trials, in order.

    A milestone that fewer than half of the trials reported is left out, and the span that covers
    the gap is `residual`. Medians of cumulative times keep their order and end at the headline.
    """
    stops: dict[str, dict[str, list[Stop]]] = {}
    for (workload, platform), trials in _read_times(results).items():
        times: dict[str, list[float]] = {}
        for name, seconds in (each for trial in trials for each in trial.items()):
            times.setdefault(name, []).append(seconds)
        known = {name: each for name, each in times.items() if len(each) * 2 > len(trials)}
        stops.setdefault(workload, {})[platform] = _chain(known)
    return stops


def _read_times(results: Results) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Seconds since the request of every milestone of every trial that did start."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for each in results.measured:
        start = each.milestones.get("request")
        if each.status == "ok" and start is not None:
            shown = {
                name: (stamp - start) / 1e9
                for name, stamp in each.milestones.items()
                if name in _SHOWN
            }
            if shown:
                found.setdefault((each.workload, each.platform), []).append(shown)
    return found


def _chain(known: dict[str, list[float]]) -> list[Stop]:
    expected = [name for name in _SHOWN if name in known or name not in _MAY_LACK]
    stops, gap = [], False
    for name in expected:
        if name not in known:
            gap = True
            continue
        seconds = max(median(known[name]), 1e-9)
        stops.append(Stop(name, RESIDUAL if gap else name, seconds, len(known[name])))
        gap = False
    return sorted(stops, key=lambda stop: stop.seconds)


Stops = dict[str, dict[str, list[Stop]]]
"""By workload and platform."""


def draw_startup(results: Results) -> list[Drawing]:
    """The way to `ready` twice: on a logarithmic axis, and in true proportion on a linear one."""
    stops = find_stops(results)
    return [*draw_milestones(results, stops), *draw_phases(results, stops)]


def draw_milestones(results: Results, stops: Stops) -> list[Drawing]:
    """The way to `ready` on a log axis: milestones as dots, never stacked areas."""
    return _draw_sheets(
        results, stops, "startup-log", "From the request to ready",
        "A dot is a milestone at its median time since the request; the large mark is `ready` with "
        "its 95 % interval. The axis is logarithmic",
        _fill_log_axis,
    )  # fmt: skip


def draw_phases(results: Results, stops: Stops) -> list[Drawing]:
    """The same starts as a waterfall on one linear axis, which shows their true proportion."""
    return _draw_sheets(
        results, stops, "startup-linear", "The same starts in true proportion",
        "A bar's parts are the phases, each named by the milestone it ends at; the line at `ready` "
        "is the 95 % interval. The axis is linear, from zero",
        _fill_linear_axis,
    )  # fmt: skip


Filler = Callable[[Sheet, Results, Chosen], list[Artist]]
"""Draws the panels of a sheet; returns the keys of its legend."""


def _draw_sheets(
    results: Results, found: Stops, name: str, title: str, note: str, fill: Filler
) -> list[Drawing]:
    chosen, said = _choose(results, found)
    inches = [platforms_height(results, list(stops), 0.3) for _, stops in chosen]
    ranges = split_sheets(inches)
    data = _list_stops(results, found)
    made = []
    for part, (first, end) in enumerate(ranges, 1):
        shown = chosen[first:end]
        stem, heading = name_sheet(name, title, part, len(ranges))
        with start_sheet(stem, inches[first:end]) as sheet:
            add_keys(sheet, fill(sheet, results, shown))
            counts = {stop.n for _, stops in shown for chain in stops.values() for stop in chain}
            caption = build_note(results, say_counts(counts, "blocks"), note, said)
            alt = _build_alt(results, shown)
            made.append(finish(sheet, heading, caption, alt, data, part))
    return made


def _fill_log_axis(sheet: Sheet, results: Results, chosen: Chosen) -> list[Artist]:
    step = 10.0
    every = [stop.seconds for _, stops in chosen for chain in stops.values() for stop in chain]
    found = (results.find(each, workload, HEADLINE) for workload, stops in chosen for each in stops)
    every += [value for each in found if each for value in (each.low, each.high)]
    above = [each for each in every if each > 0] or [1.0]
    for axes, (workload, stops) in zip(sheet.panels, chosen, strict=True):
        _draw_tracks(axes, results, workload, stops)
        step = set_log_axis(axes, min(above), max(above), "s")
    sheet.panels[-1].set_xlabel(f"time since the request, {say_log(step)}")
    names = {stop.milestone for _, stops in chosen for chain in stops.values() for stop in chain}
    return [_build_dot(each) for each in sorted(names, key=_SHOWN.index) if each != "ready"]


def _draw_tracks(axes: Axes, results: Results, workload: str, stops: dict[str, list[Stop]]) -> None:
    platforms = list(stops)
    figures = [results.find(each, workload, HEADLINE) for each in platforms]
    axes.hlines(
        range(len(platforms)), [min(stop.seconds for stop in stops[each]) for each in platforms],
        [max(stop.seconds for stop in stops[each]) for each in platforms], lw=2.2, alpha=0.55,
        colors=[results.colours[each] for each in platforms], zorder=2,
    )  # fmt: skip
    dots = [
        (stop.seconds, row, PHASE_COLOURS[stop.milestone])
        for row, chain in enumerate(stops.values())
        for stop in chain
        if stop.milestone != "ready"
    ]
    for colour in dict.fromkeys(each[2] for each in dots):
        seconds, rows = zip(*(each[:2] for each in dots if each[2] == colour), strict=True)
        axes.plot(seconds, rows, "o", ms=6, mec=PAPER, mew=0.8, zorder=3, color=colour)
    draw_intervals(axes, figures)
    rows = enumerate(zip(platforms, figures, strict=True))
    draw_marks(
        axes, results, [(figure.median, row, name) for row, (name, figure) in rows if figure]
    )
    set_title(axes, f"workload {workload}")
    label_platforms(axes, results, platforms)
    label_values(axes, [format_figure(each) for each in figures])


def _build_dot(milestone: str) -> Line2D:
    return Line2D([], [], ls="", marker="o", ms=7, color=PHASE_COLOURS[milestone], label=milestone)


def _fill_linear_axis(sheet: Sheet, results: Results, chosen: Chosen) -> list[Artist]:
    reach = [chain[-1].seconds for _, stops in chosen for chain in stops.values()]
    found = (results.find(each, workload, HEADLINE) for workload, stops in chosen for each in stops)
    right = 1.02 * max([*reach, *(each.high for each in found if each)])
    for axes, (workload, stops) in zip(sheet.panels, chosen, strict=True):
        _draw_bars(axes, results, workload, stops)
        axes.set_xlim(0, right)
        set_linear_axis(axes, "s")
    sheet.panels[-1].set_xlabel("time since the request, linear from zero")
    used = {stop.phase for _, stops in chosen for chain in stops.values() for stop in chain}
    return [
        Patch(color=PHASE_COLOURS[phase], label=_name_phase(results, chosen, phase))
        for phase in (*_SHOWN, RESIDUAL)
        if phase in used
    ]


def _name_phase(results: Results, chosen: Chosen, phase: str) -> str:
    """``to init``; where machines are shown, with what happens there on each platform."""
    name = phase if phase == RESIDUAL else f"to {phase}"
    if not any(results.kinds[each] == "vm" for _, stops in chosen for each in stops):
        return name
    words = dict.fromkeys(
        describe_phase(phase, find_traits(results, platform, {stop.milestone for stop in chain}))
        for _, stops in chosen
        for platform, chain in stops.items()
        if any(stop.phase == phase for stop in chain)
    )
    return f"{name}: {'; '.join(filter(None, words))}".removesuffix(": ")


def _draw_bars(axes: Axes, results: Results, workload: str, stops: dict[str, list[Stop]]) -> None:
    platforms = list(stops)
    for phase in (*_SHOWN, RESIDUAL):
        rows, lefts, widths = [], [], []
        for row, chain in enumerate(stops.values()):
            left = 0.0
            for stop in chain:
                if stop.phase == phase:
                    rows.append(row)
                    lefts.append(left)
                    widths.append(stop.seconds - left)
                left = stop.seconds
        if rows:
            axes.barh(
                rows, widths, left=lefts, height=0.6, zorder=2, lw=0.4,
                color=PHASE_COLOURS[phase], edgecolor=PAPER,
            )  # fmt: skip
    figures = [results.find(each, workload, HEADLINE) for each in platforms]
    draw_intervals(axes, figures)
    set_title(axes, f"workload {workload}")
    label_platforms(axes, results, platforms)
    label_values(axes, [format_figure(each) for each in figures])


def _choose(results: Results, found: Stops) -> tuple[Chosen, str]:
    """Workloads with the platforms that have milestones, in the report's order."""
    named = [each for each in results.workloads if any(found.get(each, {}).values())]
    chosen, said = [], ""
    for workload in named:
        ends = {
            name: found[workload][name][-1].seconds
            for name in results.platforms
            if found[workload].get(name)
        }
        kept, words = choose_platforms(results, ends, limit_rows(len(named)))
        chosen.append((workload, {name: found[workload][name] for name in kept}))
        said = said or words
    if len(chosen) > MOST_WORKLOADS:
        said = f"{said}. " * bool(said) + f"The first {MOST_WORKLOADS} of {len(chosen)} workloads"
    return chosen[:MOST_WORKLOADS], said


def _list_stops(results: Results, stops: Stops) -> Data:
    """Every milestone of every arm, also of those for which there is no room."""
    rows = [
        (workload, platform, stop.milestone, stop.phase, stop.n, stop.seconds,
         *(list_figure(results.find(platform, workload, HEADLINE))
           if stop.milestone == "ready" else list_figure(None)))
        for workload, found in stops.items()
        for platform, chain in found.items()
        for stop in chain
    ]  # fmt: skip
    head = ("workload", "platform", "milestone", "phase", "n", "since the request (s)")
    return build_data((*head, *(f"startup.ready {each}" for each in name_interval("s"))), rows)


def _build_alt(results: Results, chosen: Chosen) -> str:
    parts = [
        f"{describe_platform(results, platform)}: "
        f"{format_figure(results.find(platform, workload, HEADLINE))}"
        for workload, stops in chosen[:1]
        for platform in stops
    ]
    return f"Time to ready of {chosen[0][0]}. {'; '.join(parts)}."
