"""Memory, disk and what must be moved: bytes as points with their intervals, on log axes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.analysis.plots.startup import draw_interval
from harness.analysis.plots.style import (
    INK,
    PAPER,
    Drawing,
    find_marker,
    finish,
    is_second_arm,
    label_platforms,
    row_height,
    say_log,
    set_log_axis,
    start_figure,
    wrap_label,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import (
    describe_accelerator,
    describe_accelerators,
    describe_platform,
    format_figure,
)
from harness.model import Kind
from harness.store.names import safe_name

MEMORY = {
    "memory.pss": "PSS of every process that serves the instance",
    "memory.cgroup": "charged to the instance's cgroup",
    "memory.guest_used": "used as seen from inside the guest",
    "memory.overhead": "overhead: what the host pays beyond the instance's own use",
}
DISK = {
    "disk.image_allocated": "disk space of the image, in the form the platform runs from",
    "disk.instance_growth": "written by one instance until it has settled",
    "disk.marginal": "taken by one more running instance",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One axis: what it shows, and its figures by platform."""

    title: str
    rows: Mapping[str, Figure]


def draw_memory(results: Results, workload: str) -> Drawing | None:
    """The ledger of one workload; each method has an axis of its own."""
    note = "The methods count different things: compare platforms within a panel only."
    return _draw_panels(
        results, f"memory-{safe_name(workload)}", f"Memory of one instance: {workload}",
        _build_panels(results, workload, MEMORY), note,
    )  # fmt: skip


def draw_disk(results: Results, workload: str) -> Drawing | None:
    """Disk space of the image and of one instance."""
    title = f"Disk space: image {results.images[workload]}, workload {workload}"
    return _draw_panels(
        results, f"disk-{safe_name(workload)}", title,
        _build_panels(results, workload, DISK), "A figure of 0 has no place on this axis.",
    )  # fmt: skip


def _build_panels(results: Results, workload: str, metrics: Mapping[str, str]) -> list[Panel]:
    panels = []
    for metric, title in metrics.items():
        found = {name: results.find(name, workload, metric) for name in results.first_arms}
        rows = {name: figure for name, figure in found.items() if figure is not None}
        if any(figure.low > 0 for figure in rows.values()):
            panels.append(Panel(title, rows))
    return panels


def _draw_panels(
    results: Results, name: str, title: str, panels: Sequence[Panel], note: str
) -> Drawing | None:
    if not panels:
        return None
    shares = [_panel_height(results, panel) for panel in panels]
    positive = [
        value
        for panel in panels
        for figure in panel.rows.values()
        for value in (figure.low, figure.high)
        if value > 0
    ]
    with start_figure(name, len(panels), 1.1 + sum(shares), shares) as (figure, axes):
        step = 4.0
        for each, panel in zip(axes, panels, strict=True):
            _draw_points(each, results, panel, min(positive))
            step = set_log_axis(each, min(positive), max(positive) * 8, "B")
        axes[-1].set_xlabel(f"bytes, {say_log(step)}")
        most = max(row.n for panel in panels for row in panel.rows.values())
        machines = describe_accelerators(results)
        head = f"{machines}. " if machines else ""
        return finish(
            figure, name, title,
            f"{head}Up to {most} blocks; medians with 95 % intervals. {note}",
            f"{title}. " + "; ".join(
                f"{describe_platform(results, platform)}: {format_figure(row)}"
                for platform, row in panels[0].rows.items()
            ),
        )  # fmt: skip


def _panel_height(results: Results, panel: Panel) -> float:
    return 0.62 + max(row_height(results, name, 0.34) for name in panel.rows) * len(panel.rows)


def _draw_points(axes: Axes, results: Results, panel: Panel, left: float) -> None:
    for row, (platform, figure) in enumerate(panel.rows.items()):
        if figure.low > 0:
            draw_interval(axes, figure, row)
            axes.plot(
                figure.median, row, find_marker(results, platform), ms=8, zorder=5,
                color=results.colours[platform], mec=PAPER, mew=1,
                alpha=0.6 if is_second_arm(platform) else 1.0,
            )  # fmt: skip
        axes.annotate(
            format_figure(figure), (max(figure.high, left), row), xytext=(9, 0),
            textcoords="offset points", va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.set_title(panel.title, color=INK, fontweight="normal")
    label_platforms(axes, results, list(panel.rows))


@dataclass(frozen=True, slots=True)
class Shipment:
    """A packing as measured: the platforms that travel in it, of one kind."""

    packing: str
    platforms: tuple[str, ...]
    figure: Figure


def find_shipments(results: Results, workload: str) -> list[Shipment]:
    """`portability.first` by packing; platforms that use the same packing share a row."""
    found: dict[tuple[str, float], list[str]] = {}
    figures: dict[tuple[str, float], Figure] = {}
    for (platform, each, metric, phase), figure in results.figures.items():
        if metric == "portability.first" and phase and each == workload:
            if is_second_arm(platform):
                continue
            key = (phase, figure.median)
            found.setdefault(key, []).append(platform)
            figures[key] = figure
    place = {name: number for number, name in enumerate(results.platforms)}
    shipments = [
        Shipment(key[0], tuple(sorted(names, key=lambda name: place[name])), figures[key])
        for key, names in found.items()
    ]
    return sorted(shipments, key=lambda each: (place[each.platforms[0]], each.figure.median))


def draw_portability(results: Results, workload: str) -> Drawing | None:
    """Bytes that must reach a host that has nothing, by packing: bars from zero."""
    shipments = find_shipments(results, workload)
    if not shipments:
        return None
    name = f"portability-{safe_name(workload)}"
    labels = [_name_shipment(results, each) for each in shipments]
    heights = [max(0.42, 0.155 * (label.count("\n") + 1) + 0.06) for label in labels]
    with start_figure(name, 1, 1.35 + max(heights) * len(shipments)) as (figure, panels):
        axes, firsts = panels[0], _find_firsts(results, shipments)
        for row, each in enumerate(shipments):
            colour = results.colours[firsts[_find_kind(results, each)]]
            axes.barh(row, each.figure.median / 2**20, height=0.58, color=colour, zorder=2)
            axes.annotate(
                format_figure(each.figure), (each.figure.median / 2**20, row), xytext=(7, 0),
                textcoords="offset points", va="center", fontsize=8.5, color=INK,
            )  # fmt: skip
        axes.set_yticks(range(len(shipments)), labels)
        axes.set_ylim(len(shipments) - 0.4, -0.6)
        axes.set_xlim(0, 1.28 * max(each.figure.median for each in shipments) / 2**20)
        axes.set_xlabel("MiB to transfer, linear from zero")
        machines = describe_accelerators(results)
        head = f"{machines}. " if machines else ""
        keys = _build_kind_keys(results, shipments)
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
        return finish(
            figure, name, f"To a host that has nothing: image {results.images[workload]}",
            f"{head}Bytes that a server sent for every file of the packing; the same in every "
            "block. A virtual machine's files include its kernel.",
            "; ".join(
                f"{_name_shipment(results, each)}: {format_figure(each.figure)}".replace("\n", ", ")
                for each in shipments
            ),
        )  # fmt: skip


def _choose_colour(results: Results, shipment: Shipment) -> str:
    """The platform whose colour stands for all that share a packing, rather a container's."""
    others = [name for name in shipment.platforms if results.kinds[name] != "process"]
    return next(iter([*others, *shipment.platforms]))


def _find_kind(results: Results, shipment: Shipment) -> Kind:
    return results.kinds[_choose_colour(results, shipment)]


def _find_firsts(results: Results, shipments: Sequence[Shipment]) -> dict[Kind, str]:
    """The platform whose colour stands for a kind in this figure: the first of it."""
    firsts: dict[Kind, str] = {}
    for each in shipments:
        firsts.setdefault(_find_kind(results, each), _choose_colour(results, each))
    return firsts


def _build_kind_keys(results: Results, shipments: Sequence[Shipment]) -> list[Line2D]:
    return [
        Line2D(
            [], [], ls="", marker="s", ms=8, color=results.colours[first],
            label=_name_kind(results, kind, shipments),
        )
        for kind, first in _find_firsts(results, shipments).items()
    ]  # fmt: skip


def _name_shipment(results: Results, shipment: Shipment) -> str:
    """A packing above those that travel in it, and what they ran on."""
    first, *others = shipment.platforms
    names = f"{' + '.join(shipment.platforms)}"
    if len(names) > 40 and others:
        names = f"{first} + {len(others)} more"
    words = _describe_all(results, shipment.platforms)
    return wrap_label(", ".join(filter(None, [shipment.packing, names, words])))


def _describe_all(results: Results, platforms: Iterable[str]) -> str:
    """``emulated (TCG)``, or ``KVM; emulated (TCG)`` where they differ."""
    found = {describe_accelerator(results.accelerators.get(name, "")) for name in platforms}
    return "; ".join(sorted(found - {""}))


def _name_kind(results: Results, kind: Kind, shipments: Sequence[Shipment]) -> str:
    kinds = {"vm": "virtual machines", "container": "containers", "sandbox": "sandboxes"}
    shown = [each for each in shipments if _find_kind(results, each) == kind]
    accelerators = _describe_all(results, [name for each in shown for name in each.platforms])
    words = kinds.get(kind, "plain processes")
    return f"{words}, {accelerators}" if accelerators else words
