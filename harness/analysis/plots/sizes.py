"""Memory and disk: bytes as points with their intervals, on log axes, a panel for each method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from harness.analysis.memory import say_ended
from harness.analysis.plots.data import (
    build_data,
    choose_platforms,
    limit_rows,
    list_figure,
    name_interval,
    name_sheet,
    split_sheets,
)
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import (
    build_note,
    draw_intervals,
    draw_marks,
    label_platforms,
    label_values,
    platforms_height,
    say_blocks,
    say_log,
    say_medians,
    set_log_axis,
    set_title,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_platform, format_figure
from harness.store.names import safe_name

MEMORY = {
    ("memory.pss", ""): "PSS of every process that serves the instance: agent, workload, helpers",
    ("memory.overhead", ""): "overhead: what the host pays beyond the instance's own use",
    ("memory.guest_used", ""): "used as seen from inside the guest",
    ("memory.cgroup", ""): "charged to the instance's cgroup",
    ("memory.cgroup", "anon"): "charged to the cgroup: anonymous memory",
    ("memory.cgroup", "file"): "charged to the cgroup: page cache",
    ("memory.daemon", ""): "PSS of the engine's daemons: once, for all of its instances",
}
DISK = {
    ("disk.image_allocated", ""): "disk space of the image, in the form the platform runs from",
    ("disk.instance_growth", ""): "written by one instance until it has settled",
    ("disk.marginal", ""): "taken by one more running instance",
}
SLOPE = "disk.marginal"
"""What is no median of blocks but a slope over the steps of a density series."""
Chosen = Mapping[tuple[str, str], str]
"""Metric and phase, with the words for them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One axis: what it shows, and its figures by platform; ``metric`` is what they are of."""

    title: str
    rows: Mapping[str, Figure]
    metric: str


def draw_memory(results: Results, workload: str) -> list[Drawing]:
    """The ledger of one workload; each method has an axis of its own, and none is added up."""
    note = "The methods count different things: compare platforms within a panel, add nothing up"
    note += say_ended(results, workload, ". Read ")
    return _draw_panels(
        results, f"memory-{safe_name(workload)}", f"Memory of one instance: {workload}", workload,
        MEMORY, note,
    )  # fmt: skip


def draw_disk(results: Results, workload: str) -> list[Drawing]:
    """Disk space of the image and of one instance."""
    title = f"Disk space: image {results.images[workload]}, workload {workload}"
    note = "A figure of 0 has no place on this axis"
    return _draw_panels(results, f"disk-{safe_name(workload)}", title, workload, DISK, note)


def _draw_panels(
    results: Results, name: str, title: str, workload: str, chosen: Chosen, note: str
) -> list[Drawing]:
    panels, said = _build_panels(results, workload, chosen)
    positive = [
        value
        for panel in panels
        for figure in panel.rows.values()
        for value in (figure.low, figure.high)
        if value > 0
    ]
    data = build_data(
        ("workload", "metric", "phase", "platform", *name_interval("B")),
        [(workload, *each, platform, *list_figure(figure))
         for each in chosen
         for platform in results.first_arms
         if (figure := results.find(platform, workload, *each)) is not None],
    )  # fmt: skip
    inches = [platforms_height(results, list(panel.rows)) for panel in panels]
    ranges = split_sheets(inches)
    made = []
    for part, (first, end) in enumerate(ranges, 1):
        shown = panels[first:end]
        stem, heading = name_sheet(name, title, part, len(ranges))
        with start_sheet(stem, inches[first:end]) as sheet:
            step = 4.0
            for axes, panel in zip(sheet.panels, shown, strict=True):
                _draw_points(axes, results, panel)
                step = set_log_axis(axes, min(positive), max(positive), "B")
            sheet.panels[-1].set_xlabel(f"bytes, {say_log(step)}")
            caption = build_note(results, *_say_counts(shown), note, said)
            alt = f"{heading}. " + "; ".join(
                f"{describe_platform(results, platform)}: {format_figure(row)}"
                for platform, row in shown[0].rows.items()
            )
            made.append(finish(sheet, heading, caption, alt, data, part))
    return made


def _build_panels(results: Results, workload: str, chosen: Chosen) -> tuple[list[Panel], str]:
    panels, said = [], ""
    most = limit_rows(len(results.workloads))
    for (metric, phase), title in chosen.items():
        found = {name: results.find(name, workload, metric, phase) for name in results.first_arms}
        rows = {name: figure for name, figure in found.items() if figure is not None}
        if any(figure.low > 0 for figure in rows.values()):
            middles = {name: figure.median for name, figure in rows.items()}
            kept, words = choose_platforms(results, middles, most)
            panels.append(Panel(title, {name: rows[name] for name in kept}, metric))
            said = said or words
    return panels, said


def _say_counts(panels: Sequence[Panel]) -> Iterator[str]:
    """How many there are of what: a figure is of blocks, or the slope of a density series."""
    slopes = [each for each in panels if each.metric == SLOPE]
    figures = [row for each in panels if each not in slopes for row in each.rows.values()]
    if figures:
        yield f"{say_blocks(figures)}; {say_medians(figures)}"
    if slopes:
        counted = say_blocks([row for each in slopes for row in each.rows.values()], "steps")
        yield f"One more running instance: the Theil–Sen slope over {counted} of a density series"


def _draw_points(axes: Axes, results: Results, panel: Panel) -> None:
    figures = list(panel.rows.values())
    draw_intervals(axes, figures, 0)
    rows = enumerate(panel.rows.items())
    draw_marks(axes, results, [(f.median, row, name) for row, (name, f) in rows if f.low > 0])
    set_title(axes, panel.title, bold=False)
    label_platforms(axes, results, list(panel.rows))
    label_values(axes, [format_figure(each) for each in figures])
