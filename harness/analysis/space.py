"""The report's tables of disk space: what an image and its instances take, share and give back."""

from dataclasses import replace

from harness.analysis.results import Results
from harness.analysis.tables import Column, Table, build_matrix
from harness.analysis.wording import quote

SPACE = (
    Column("image, apparent", "disk.image_apparent"),
    Column("image, allocated", "disk.image_allocated"),
    Column("of it shared", "disk.image_shared"),
    Column("taken by an instance", "disk.instance_growth"),
    Column("of that shared", "disk.instance_shared"),
    Column("one more instance", "disk.marginal"),
    Column("free again after delete", "disk.reclaimed"),
)
_GROWTH = "disk.instance_growth"
_SHARED = ("disk.image_shared", "disk.instance_shared")
_MARKS = {"written": "all written", "kept": "half of it deleted"}
"""What the marks of the workload `writer` mean; those of others are shown as they are."""


def build_space(results: Results, workload: str) -> Table | None:
    """What the image takes, and what an instance adds; nothing shared is said below, not shown."""
    figures = [
        figure
        for (_, each, metric, _), figure in results.figures.items()
        if metric in _SHARED and each == workload
    ]
    nothing = bool(figures) and not any(figure.high for figure in figures)
    columns = [each for each in SPACE if not (nothing and each.metric in _SHARED)]
    table = build_matrix(results, workload, f"{quote(workload)}: disk space", columns)
    if table is None or not nothing:
        return table
    return replace(table, note="No block of these files belongs to another file too (FIEMAP).")


def build_growth(results: Results, workload: str) -> Table | None:
    """What an instance took at each moment that its workload marked; None without such marks."""
    marks = [
        phase
        for (_, each, metric, phase) in results.figures
        if metric == _GROWTH and phase and each == workload
    ]
    known = [name for name in _MARKS if name in marks]
    names = [*known, *sorted(set(marks) - set(known))]
    if not names:
        return None
    columns = [Column(_MARKS.get(name, quote(name)), _GROWTH, name) for name in names]
    columns.append(Column("settled", _GROWTH))
    note = (
        "Space that is deleted inside comes back to the host at once where instances write to its "
        "file system; a virtual machine's disk gives it back with `/discard` alone."
    )
    caption = f"{quote(workload)}: what an instance takes while it runs"
    table = build_matrix(results, workload, caption, columns)
    return None if table is None else replace(table, note=note if "kept" in names else "")
