"""Probe × platform as a picture: what a kernel answered, in words and signs. Nothing is rated."""

from matplotlib.axes import Axes

from harness.analysis.isolation import PROBES, Evidence, find_evidence, has_own_kernel
from harness.analysis.plots.data import build_data, name_sheet
from harness.analysis.plots.layout import Drawing, finish, start_sheet
from harness.analysis.plots.style import (
    INK,
    MUTED,
    RULE,
    build_note,
    label_rows,
    wrap_label,
)
from harness.analysis.results import Results
from harness.analysis.wording import describe_platform

_COLUMNS = 4
"""Platforms beside each other on one sheet."""
_SHEETS = 3
_WORDS = 17
"""Characters of an answer that fit in a cell."""


def draw_isolation(results: Results) -> list[Drawing]:
    """Sheets of at most four platforms; none where nothing was probed."""
    found = find_evidence(results)
    names = list(found)
    parts = -(-len(names) // _COLUMNS)
    rows = [
        (probe, name, "its own" if has_own_kernel(found[name]) else "the host's", cell.text,
         cell.note.replace("`", ""))
        for probe, build in PROBES.items()
        for name in names
        for cell in (build(found[name]),)
    ]  # fmt: skip
    data = build_data(("probe", "platform", "kernel that answers", "answer", "note"), rows)
    said = ""
    if parts > _SHEETS:
        said = f"The first {_SHEETS * _COLUMNS} of {len(names)} platforms; all are in the CSV"
    made = []
    for part in range(1, min(parts, _SHEETS) + 1):
        shown = {name: found[name] for name in names[(part - 1) * _COLUMNS : part * _COLUMNS]}
        stem, title = name_sheet("isolation", "What isolates each platform", part, parts)
        with start_sheet(stem, [0.3 * len(PROBES)]) as sheet:
            _draw_matrix(sheet.panels[0], results, shown)
            caption = build_note(
                results, f"n = {len(shown)} platforms, one probe each: answers have no interval",
                "Asked from inside as root. A filled square: the host's kernel answers; an open "
                "one: a kernel of the instance's own. Nothing is rated", said,
            )  # fmt: skip
            alt = "; ".join(
                f"{describe_platform(results, name)}: "
                + ", ".join(f"{probe} {build(each).text}" for probe, build in PROBES.items())
                for name, each in shown.items()
            )
            made.append(finish(sheet, title, caption, alt, data, part))
    return made


def _draw_matrix(axes: Axes, results: Results, shown: dict[str, Evidence]) -> None:
    label_rows(axes, list(PROBES))
    axes.set_xlim(-0.5, len(shown) - 0.5)
    names = [wrap_label(describe_platform(results, name)).replace("/", "/\n") for name in shown]
    axes.set_xticks(range(len(shown)), [_narrow(name) for name in names], color=INK)
    axes.xaxis.tick_top()
    axes.grid(False)
    axes.spines[["bottom", "top"]].set_visible(False)
    for row, build in enumerate(PROBES.values()):
        axes.axhline(row + 0.5, color=RULE, lw=0.6)
        for column, evidence in enumerate(shown.values()):
            own = has_own_kernel(evidence)
            axes.plot(column - 0.44, row, "s", ms=5, mec=MUTED, mfc="none" if own else MUTED, mew=1)
            text = build(evidence).text.replace("`", "")
            if len(text) > _WORDS:
                text = f"{text[: _WORDS - 1]}…"
            axes.text(column - 0.38, row, text, va="center", fontsize=7.5, color=INK)


def _narrow(name: str) -> str:
    return "\n".join(
        line if len(line) <= _WORDS else f"{line[:7]}…{line[-8:]}" for line in name.split("\n")
    )
