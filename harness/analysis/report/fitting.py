"""A page that stays small, however much was measured: long tables are cut, and whole in files.

Only a page with more than `MOST_CELLS` cells is cut: then every table shows the first rows, as many
in each as fit, and says how many there are and in which file beside the page. Nothing is dropped.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from harness.analysis.plots import Drawing
from harness.analysis.report.page import Page
from harness.analysis.tables import Table

MOST_CELLS = 12_000
"""Cells of a page; with the figures of twenty platforms it stays below 3 MB."""
LEAST_ROWS = 4
"""Rows that a table shows in any case."""
FOLDER = "tables"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A page of bounded size, and the whole tables that it points to, by name of file."""

    page: Page
    files: Mapping[str, Table] = field(default_factory=dict)


def fit_page(page: Page) -> Fitted:
    """The page as it is, or with its tables cut to one number of rows."""
    found: list[Table] = []

    def note(table: Table) -> Table:
        found.append(table)
        return table

    _change_tables(page, note)
    most = find_rows([(len(table.rows), len(table.head)) for table in found])
    if most is None:
        return Fitted(page)
    files: dict[str, Table] = {}

    def cut(table: Table) -> Table:
        return table if len(table.rows) <= most else _cut(table, most, files)

    return Fitted(_change_tables(page, cut), files)


def find_rows(sizes: list[tuple[int, int]]) -> int | None:
    """How many rows each table of (rows, columns) may have for all to fit; None for all of them."""
    if sum(rows * columns for rows, columns in sizes) <= MOST_CELLS:
        return None
    most = LEAST_ROWS
    for rows in sorted({rows for rows, _ in sizes}):
        if sum(min(each, rows) * columns for each, columns in sizes) > MOST_CELLS:
            break
        most = max(most, rows)
    wide = sum(columns for rows, columns in sizes if rows > most)
    left = MOST_CELLS - sum(min(each, most) * columns for each, columns in sizes)
    return most + max(0, left // wide if wide else 0)


def _cut(table: Table, most: int, files: dict[str, Table]) -> Table:
    name = f"{len(files) + 1:03}-{_shorten(table.caption)}.csv"
    files[name] = table
    said = (
        f"The first {most} of {len(table.rows)} rows are shown; all of them are in "
        f"`{FOLDER}/{name}` beside this page."
    )
    return replace(table, rows=table.rows[:most], note=f"{said} {table.note}".strip())


def _shorten(caption: str) -> str:
    """A caption as part of a file name."""
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")
    return words[:40].rstrip("-") or "table"


def _change_tables(value: Any, change: Callable[[Table], Table]) -> Any:
    """The same content with each table changed, in the order of the page."""
    if isinstance(value, Table):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_change_tables(each, change) for each in value)
    if not is_dataclass(value) or isinstance(value, type | Drawing):
        return value
    changed = {
        each.name: _change_tables(getattr(value, each.name), change) for each in fields(value)
    }
    return replace(value, **changed)


def format_table(table: Table) -> bytes:
    """A table as CSV, as the page words it; a cell's note follows its text in brackets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_strip(head) for head in table.head])
    for row in table.rows:
        cells = (f"{cell.text} [{cell.note}]" if cell.note else cell.text for cell in row.cells)
        writer.writerow([_strip(row.head), *map(_strip, cells)])
    return text.getvalue().encode("utf-8", "replace")


def _strip(text: str) -> str:
    return text.replace("`", "")
