"""Starts in a storm against starts alone: the share of them that were ready by a given time."""

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.plots.data import build_data
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    INK,
    MUTED,
    build_note,
    say_counts,
    say_log,
    set_log_axis,
)
from harness.analysis.results import Results
from harness.analysis.storm import BURST, Storms, describe_kind, list_storms
from harness.analysis.wording import describe_platform

_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
_ALONE = ":"


def draw_storms(results: Results) -> Drawing | None:
    """One panel a platform: its starts alone, in bursts, and at each rate of arrivals."""
    shown = [each for each in list_storms(results) if _list_ready(each)]
    platforms = [name for name in results.platforms if any(s.platform == name for s in shown)]
    if not platforms:
        return None
    name = "storm-ecdf"
    kinds = list(dict.fromkeys(each.kind for each in shown))
    keys = _build_keys(kinds)
    with start_sheet(name, [1.3] * len(platforms)) as sheet:
        panels = sheet.panels
        times = [time for each in shown for time in _list_ready(each)]
        times += [time for each in shown for time in _list_alone(results, each)]
        step = 10.0
        for axes, platform in zip(panels, platforms, strict=True):
            step = set_log_axis(axes, min(times), max(times), "s")
            _draw_panel(axes, results, [s for s in shown if s.platform == platform], kinds)
        panels[-1].set_xlabel(f"time from the intended start to ready, {say_log(step)}")
        add_keys(sheet, keys)
        counted = say_counts({len(_list_ready(each)) for each in shown}, "starts a line")
        note = build_note(
            results, counted,
            "Share of all starts that were asked for; a line that ends below 100 % has starts that "
            "failed. Disturbed storms are in it too",
        )  # fmt: skip
        alt = "; ".join(
            f"{describe_platform(results, each.platform)}, {describe_kind(each)}: "
            f"{len(_list_ready(each))} starts"
            for each in shown
        )
        rows = [
            (each.workload, each.platform, each.kind, time)
            for each in shown
            for time in sorted(_list_ready(each))
        ]
        rows += [
            (each.workload, each.platform, "alone", time)
            for each in {each.platform: each for each in reversed(shown)}.values()
            for time in sorted(_list_alone(results, each))
        ]
        data = build_data(("workload", "platform", "kind", "ready after (s)"), rows)
        return finish(sheet, "Starts in a storm, and alone", note, alt, data)


def _list_ready(storms: Storms) -> list[float]:
    return [time for each in storms.storms for time in each.ready if 0 < time < np.inf]


def _list_alone(results: Results, storms: Storms) -> list[float]:
    rows = results.samples
    chosen = rows[
        (rows["metric"] == "startup.ready")
        & (rows["phase"] == "")
        & (rows["platform"] == storms.platform)
        & (rows["workload"] == storms.workload)
    ]
    return [float(each) for each in chosen["value"] if each > 0]


def _draw_panel(axes: Axes, results: Results, storms: list[Storms], kinds: list[str]) -> None:
    first = storms[0]
    colour = results.colours[first.platform]
    _draw_line(axes, _list_alone(results, first), 0, MUTED, _ALONE)
    for each in storms:
        dashes = _DASHES[kinds.index(each.kind) % len(_DASHES)]
        _draw_line(axes, _list_ready(each), each.failed, colour, dashes)
    title = f"{describe_platform(results, first.platform)}, {first.workload}"
    axes.set_title(title, color=INK, fontweight="normal")
    axes.set_ylabel("share of starts", color=MUTED)
    axes.set_xlabel("")
    axes.set_ylim(0.0, 1.02)
    axes.set_yticks(np.linspace(0, 1, 5), ["0", "25 %", "50 %", "75 %", "100 %"])


def _draw_line(axes: Axes, values: list[float], failed: int, colour: str, dashes: object) -> None:
    if not values:
        return
    share = len(values) / (len(values) + failed)
    sns.ecdfplot(x=values, ax=axes, color=colour, lw=2, ls=dashes)
    line = axes.lines[-1]
    times = np.array(line.get_xdata(), dtype=float)
    times[0] = times[1]  # else the line comes from minus infinity
    line.set_data(times, share * np.asarray(line.get_ydata(), dtype=float))


def _build_keys(kinds: list[str]) -> list[Line2D]:
    words = {kind: "all at once" if kind == BURST else f"{kind} at random" for kind in kinds}
    found = [Line2D([], [], lw=2, color=MUTED, ls=_ALONE, label="alone")]
    return found + [
        Line2D([], [], lw=2, color=INK, ls=_DASHES[number % len(_DASHES)], label=words[kind])
        for number, kind in enumerate(kinds)
    ]
