"""The answer for a terminal: a few sentences, and a table that fits a hundred columns."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.analysis.answer import build_answer, build_headline, build_verdicts, find_workload
from harness.analysis.memory import PSS, has_ended, say_daemon
from harness.analysis.results import Results, load_results
from harness.analysis.tables import Column, Table, choose_glance
from harness.analysis.wording import (
    ABSENT,
    describe_ran,
    split_figure,
    split_ratio,
)

_WIDTH = 100
_SHORTEST = 24
"""Columns of a terminal, and those that a platform's name is left at least."""
_HEADS = {
    "startup.ready": "ready after",
    PSS: "memory",
    "disk.image_allocated": "disk",
    "portability.first": "transfer",
}
_UNSURE = "inconclusive"


def format_summary(folder: Path) -> str:
    """What `run` ends with: the answer's first sentences, its warnings and the headline figures."""
    results = load_results(folder)
    headline = build_headline(results)
    said = build_answer(results)
    shown = [each for each in said if not headline or each.warning or each.first]
    lines = [headline] if headline else []
    lines += [
        f"{each.topic}: {' '.join(each.sentences)}" for each in (*build_verdicts(results), *shown)
    ]
    lines = [_flatten(line) for line in lines]
    table = format_glance(results, find_workload(results))
    return "\n".join(lines).replace("`", "") + (f"\n\n{table}" if table else "")


def format_glance(results: Results, workload: str) -> str:
    """Platforms by headline metrics: medians with their ratios; empty where none was measured."""
    columns = [replace(each, head=_name_column(results, workload, each))
               for each in choose_glance(results, workload)]  # fmt: skip
    if not columns:
        return ""
    cells = {
        name: [_format(results, name, each.workload, each) for each in columns]
        for name in results.first_arms
    }
    heads = [each.head for each in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells.values(), strict=True)]
    room = max(_SHORTEST, _WIDTH - sum(widths) - 2 * len(widths))
    rows = [(_name(results, name, room), *texts) for name, texts in cells.items()]
    head = (_cut(_flatten(workload), room), *heads)
    reference = _cut(_flatten(results.reference or ""), room)
    note = f"×: the ratio to {reference}; ?: no verdict. Intervals are in the report."
    return "\n".join([align([head, *rows]), note, *_note_daemons(results, columns)])


def _name_column(results: Results, workload: str, column: Column) -> str:
    head = _HEADS[column.metric]
    if column.workload != workload:
        return f"{head}, {_cut(_flatten(column.workload), _SHORTEST // 2)}"
    return f"{head}, ended" if column.metric == PSS and has_ended(results, workload) else head


def _note_daemons(results: Results, columns: Sequence[Column]) -> list[str]:
    """A line for each engine with daemons, which are in no column."""
    return [
        f"{_flatten(name)}: memory{daemon}"
        for each in columns
        if each.metric == PSS
        for name in results.first_arms
        if (daemon := say_daemon(results, name, each.workload))
    ]


def _name(results: Results, platform: str, room: int) -> str:
    """A platform in the width of its column; that it is emulated is never cut off."""
    ran = describe_ran(results, platform)
    words = _cut(_flatten(platform), room - len(ran) - 2 if ran else room)
    return f"{words}, {ran}" if ran else words


def _cut(text: str, room: int) -> str:
    """``text``, cut in its middle where it is longer than ``room``."""
    half = (room - 1) // 2
    return text if len(text) <= room else f"{text[: room - 1 - half]}…{text[len(text) - half :]}"


def _flatten(text: str) -> str:
    """One line that moves no cursor and changes no colour, whatever a name holds."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))


def _format(results: Results, platform: str, workload: str, column: Column) -> str:
    figure = results.find(platform, workload, column.metric)
    if figure is None:
        return ABSENT
    if figure.withheld:
        return "withheld"
    median, _ = split_figure(figure)
    ratio = results.find_ratio(platform, workload, column.metric)
    if platform == results.reference or ratio is None or ratio.withheld:
        return median
    unsure = "?" if ratio.verdict == _UNSURE else ""
    return f"{median} ({split_ratio(ratio)[0].replace(' ', '')}{unsure})"


def format_table(table: Table) -> str:
    """A table in plain text, its columns aligned; a cell's note follows in brackets."""
    rows = [table.head] + [
        (
            row.head,
            *(f"{cell.text} [{cell.note}]" if cell.note else cell.text for cell in row.cells),
        )
        for row in table.rows
    ]
    return align([tuple(text.replace("`", "") for text in row) for row in rows])


def align(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
