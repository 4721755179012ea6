"""What must be moved, and how large an image is in each of its forms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D

from harness.analysis.plots.data import (
    MOST_PLATFORMS,
    Data,
    build_data,
    list_figure,
    name_interval,
)
from harness.analysis.plots.layout import Drawing, add_keys, finish, start_sheet
from harness.analysis.plots.style import (
    MUTED,
    build_note,
    draw_intervals,
    draw_marks,
    is_second_arm,
    label_rows,
    label_values,
    rows_height,
    say_blocks,
    say_log,
    say_medians,
    set_linear_axis,
    set_log_axis,
    wrap_label,
)
from harness.analysis.results import Figure, Results
from harness.analysis.wording import (
    PACKINGS,
    describe_accelerator,
    describe_platform,
    format_figure,
)
from harness.model import Kind
from harness.store.names import safe_name


@dataclass(frozen=True, slots=True)
class Shipment:
    """A packing as measured: the platforms that travel in it, of one kind."""

    packing: str
    platforms: tuple[str, ...]
    figure: Figure


def find_shipments(
    results: Results, workload: str, wanted: str = "portability.first"
) -> list[Shipment]:
    """Figures of a metric by packing; platforms that use the same packing share a row."""
    found: dict[tuple[str, float], list[str]] = {}
    figures: dict[tuple[str, float], Figure] = {}
    for (platform, each, metric, phase), figure in results.figures.items():
        if metric == wanted and phase and each == workload:
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
    every = find_shipments(results, workload)
    shown, said = _choose_ends(every)
    if not shown:
        return None
    labels = [_name_shipment(results, each) for each in shown]
    name = f"portability-{safe_name(workload)}"
    with start_sheet(name, [rows_height(labels, 0.36)]) as sheet:
        axes, firsts = sheet.panels[0], _find_firsts(results, shown)
        axes.barh(
            range(len(shown)), [each.figure.median for each in shown], height=0.6, zorder=2,
            color=[results.colours[firsts[_find_kind(results, each)]] for each in shown],
        )  # fmt: skip
        draw_intervals(axes, [each.figure for each in shown])
        label_rows(axes, labels)
        label_values(axes, [format_figure(each.figure) for each in shown])
        axes.set_xlim(0, 1.02 * max(max(each.figure.high for each in shown), 1))
        set_linear_axis(axes, "B")
        axes.set_xlabel("bytes to transfer, linear from zero")
        add_keys(sheet, _build_kind_keys(results, shown))
        caption = build_note(
            results, say_blocks([each.figure for each in shown]),
            "Bytes that a server sent for every file of the packing; "
            f"{say_medians([each.figure for each in shown])}. "
            "A virtual machine's files include its kernel", said,
        )  # fmt: skip
        title = f"To a host that has nothing: image {results.images[workload]}"
        return finish(sheet, title, caption, _say_all(results, shown), _list_all(results, every))


def draw_size_ladder(results: Results, workload: str) -> Drawing | None:
    """Disk space of an image in every form that was made of it, from the largest down."""
    found = find_shipments(results, workload, "disk.image_allocated")
    every = sorted(found, key=lambda each: (-each.figure.median, each.packing))
    shown, said = _choose_ends([each for each in every if each.figure.low > 0])
    if len(shown) < 2:
        return None
    labels = [_name_shipment(results, each) for each in shown]
    name = f"size-ladder-{safe_name(workload)}"
    with start_sheet(name, [rows_height(labels, 0.36)]) as sheet:
        axes = sheet.panels[0]
        figures = [each.figure for each in shown]
        axes.plot([each.median for each in figures], range(len(shown)), drawstyle="steps-pre",
                  lw=1, color=MUTED, zorder=1)  # fmt: skip
        draw_intervals(axes, figures)
        rows = enumerate(shown)
        draw_marks(
            axes, results,
            [(each.figure.median, row, _choose_colour(results, each)) for row, each in rows],
        )  # fmt: skip
        label_rows(axes, labels)
        label_values(axes, [format_figure(each) for each in figures])
        step = set_log_axis(
            axes, min(each.low for each in figures), max(each.high for each in figures), "B"
        )
        axes.set_xlabel(f"bytes on disk, {say_log(step)}")
        caption = build_note(
            results, say_blocks(figures),
            "Allocated blocks of the same tree in each of its forms, with the platforms that use "
            f"it; {say_medians(figures)}", said,
        )  # fmt: skip
        title = f"One image in all of its forms: {results.images[workload]}"
        return finish(sheet, title, caption, _say_all(results, shown), _list_all(results, every))


def _choose_ends(found: list[Shipment]) -> tuple[list[Shipment], str]:
    if len(found) <= MOST_PLATFORMS:
        return found, ""
    half = MOST_PLATFORMS // 2
    by_size = sorted(found, key=lambda each: each.figure.median)
    kept = [*by_size[:half], *by_size[-half:]]
    words = f"{len(kept)} of {len(found)} shown: the {half} smallest and the {half} largest"
    return [each for each in found if each in kept], f"{words}; all are in the CSV"


def _list_all(results: Results, found: Sequence[Shipment]) -> Data:
    head = ("packing", "what it is", "platforms", *name_interval("B"))
    rows = [
        (each.packing, PACKINGS.get(each.packing, ""),
         "; ".join(describe_platform(results, name) for name in each.platforms),
         *list_figure(each.figure))
        for each in found
    ]  # fmt: skip
    return build_data(head, rows)


def _say_all(results: Results, shipments: Sequence[Shipment]) -> str:
    return "; ".join(
        f"{_name_shipment(results, each)}: {format_figure(each.figure)}".replace("\n", ", ")
        for each in shipments
    )


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
