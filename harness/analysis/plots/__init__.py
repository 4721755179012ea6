"""The figures of a report, drawn from summarised results."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

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
from harness.analysis.plots.workers import count_processes, run_jobs
from harness.analysis.results import Results
from harness.store.names import write_atomically

__all__ = ["Data", "Drawing", "count_processes", "draw_figures", "write_figures"]

SECTIONS = (
    "glance", "startup", "memory", "disk", "sizes", "portability", "moves", "density", "storm",
    "break-even", "ratios", "isolation", "run", "rebuild",
)  # fmt: skip
"""Sections of the report that may have figures; a run without any has them too, all empty."""

Draw = Callable[[Results], Drawing | Iterable[Drawing] | None]


def draw_figures(results: Results, processes: int = 1) -> dict[str, list[Drawing]]:
    """Every figure that the data allows, by the section of the report it belongs to.

    ``processes`` draw at once; the bytes are the same for any number of them.
    """
    sections = _list_figures(results)
    jobs = [partial(_draw, results, draw) for _, draw in sections]
    found: dict[str, list[Drawing]] = {name: [] for name in SECTIONS}
    for (name, _), drawings in zip(sections, run_jobs(jobs, processes), strict=True):
        found[name] += drawings
    return found


def _list_figures(results: Results) -> list[tuple[str, Draw]]:
    """Sections, each once for every kind of figure that it may have."""
    workloads = results.workloads[:MOST_WORKLOADS]
    images = results.one_per_image[:MOST_WORKLOADS]
    return [
        ("glance", draw_glances),
        ("startup", draw_startup),
        ("startup", draw_ecdf),
        *(("memory", partial(draw_memory, workload=each)) for each in workloads),
        ("memory", draw_density),
        *(("disk", partial(draw_disk, workload=each)) for each in images),
        *(("sizes", partial(draw_size_ladder, workload=each)) for each in images),
        *(("portability", partial(draw_portability, workload=each)) for each in images),
        ("moves", draw_moves),
        ("density", draw_crowd),
        ("storm", draw_storms),
        ("break-even", draw_break_even),
        ("ratios", draw_ratios),
        ("isolation", draw_isolation),
        ("run", draw_drift),
        ("rebuild", draw_rebuilds),
    ]


def _draw(results: Results, draw: Draw) -> list[Drawing]:
    drawn = draw(results)
    each_one = [drawn] if drawn is None or isinstance(drawn, Drawing) else list(drawn)
    return [replace(each, data=add_accelerators(results, each.data)) for each in each_one if each]


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
