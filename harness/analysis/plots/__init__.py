"""The figures of a report, drawn from summarised results."""

from collections.abc import Iterable
from dataclasses import replace

from harness.analysis.plots.break_even import draw_break_even
from harness.analysis.plots.crowd import draw_crowd
from harness.analysis.plots.data import MOST_WORKLOADS, Data, add_accelerators, format_csv
from harness.analysis.plots.density import draw_density
from harness.analysis.plots.drift import draw_drift
from harness.analysis.plots.glance import draw_glances
from harness.analysis.plots.isolation import draw_isolation
from harness.analysis.plots.layout import Drawing
from harness.analysis.plots.moves import draw_moves
from harness.analysis.plots.ratios import draw_ratios
from harness.analysis.plots.rebuild import draw_rebuilds
from harness.analysis.plots.shipping import draw_portability, draw_size_ladder
from harness.analysis.plots.sizes import draw_disk, draw_memory
from harness.analysis.plots.spread import draw_ecdf
from harness.analysis.plots.startup import draw_startup
from harness.analysis.plots.storm import draw_storms
from harness.analysis.results import Results
from harness.store.names import write_atomically

__all__ = ["Data", "Drawing", "draw_figures", "write_figures"]

Drawn = Drawing | None | Iterable[Drawing]


def draw_figures(results: Results) -> dict[str, list[Drawing]]:
    """Every figure that the data allows, by the section of the report it belongs to."""
    workloads = results.workloads[:MOST_WORKLOADS]
    images = results.one_per_image[:MOST_WORKLOADS]
    sections: dict[str, list[Drawn]] = {
        "glance": [draw_glances(results)],
        "startup": [draw_startup(results), draw_ecdf(results)],
        "memory": [*(draw_memory(results, each) for each in workloads), draw_density(results)],
        "disk": [draw_disk(results, each) for each in images],
        "sizes": [draw_size_ladder(results, each) for each in images],
        "portability": [draw_portability(results, each) for each in images],
        "moves": [draw_moves(results)],
        "density": [draw_crowd(results)],
        "storm": [draw_storms(results)],
        "break-even": [draw_break_even(results)],
        "ratios": [draw_ratios(results)],
        "isolation": [draw_isolation(results)],
        "run": [draw_drift(results)],
        "rebuild": [draw_rebuilds(results)],
    }
    return {
        name: [replace(each, data=add_accelerators(results, each.data)) for each in _flatten(drawn)]
        for name, drawn in sections.items()
    }


def _flatten(drawn: Iterable[Drawn]) -> Iterable[Drawing]:
    for each in drawn:
        if isinstance(each, Drawing):
            yield each
        elif each is not None:
            yield from each


def write_figures(results: Results, sections: dict[str, list[Drawing]]) -> None:
    """Write ``plots/<name>.svg``, ``.png`` and ``.csv`` into the result folder.

    The sheets of one figure share their CSV file, named by the first.
    """
    folder = results.folder / "plots"
    folder.mkdir(exist_ok=True)
    for drawings in sections.values():
        for drawing in drawings:
            write_atomically(folder / f"{drawing.name}.svg", drawing.svg)
            write_atomically(folder / f"{drawing.name}.png", drawing.png)
            if drawing.part == 1:
                write_atomically(folder / f"{drawing.name}.csv", format_csv(drawing.data))
