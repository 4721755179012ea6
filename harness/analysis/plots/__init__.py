"""The figures of a report, drawn from summarised results."""

from harness.analysis.plots.break_even import draw_break_even
from harness.analysis.plots.crowd import draw_crowd
from harness.analysis.plots.density import draw_density
from harness.analysis.plots.drift import draw_drift
from harness.analysis.plots.glance import draw_glances
from harness.analysis.plots.moves import draw_moves
from harness.analysis.plots.rebuild import draw_rebuilds
from harness.analysis.plots.sizes import draw_disk, draw_memory, draw_portability
from harness.analysis.plots.spread import draw_ecdf
from harness.analysis.plots.startup import draw_milestones, draw_phases
from harness.analysis.plots.storm import draw_storms
from harness.analysis.plots.style import Drawing
from harness.analysis.results import Results
from harness.store.names import write_atomically

__all__ = ["Drawing", "draw_figures", "write_figures"]


def draw_figures(results: Results) -> dict[str, list[Drawing]]:
    """Every figure that the data allows, by the section of the report it belongs to."""
    workloads = results.workloads
    sections: dict[str, list[Drawing | None]] = {
        "glance": [*draw_glances(results)],
        "startup": [draw_milestones(results), draw_phases(results), draw_ecdf(results)],
        "memory": [*(draw_memory(results, each) for each in workloads), draw_density(results)],
        "disk": [draw_disk(results, each) for each in results.one_per_image],
        "portability": [draw_portability(results, each) for each in results.one_per_image],
        "moves": [draw_moves(results)],
        "density": [draw_crowd(results)],
        "storm": [draw_storms(results)],
        "break-even": [draw_break_even(results)],
        "run": [draw_drift(results)],
        "rebuild": [draw_rebuilds(results)],
    }
    return {
        name: [drawing for drawing in drawings if drawing is not None]
        for name, drawings in sections.items()
    }


def write_figures(results: Results, sections: dict[str, list[Drawing]]) -> None:
    """Write ``plots/<name>.svg`` and ``.png`` into the result folder."""
    folder = results.folder / "plots"
    folder.mkdir(exist_ok=True)
    for drawings in sections.values():
        for drawing in drawings:
            write_atomically(folder / f"{drawing.name}.svg", drawing.svg)
            write_atomically(folder / f"{drawing.name}.png", drawing.png)
