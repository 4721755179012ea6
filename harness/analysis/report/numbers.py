"""The numbers of a figure as a table of the page; a long one ends with where the rest is."""

import re

from harness.analysis.plots import Drawing
from harness.analysis.plots.data import Value
from harness.analysis.results import Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, quote

MOST_ROWS = 40
"""Rows that a page shows of a figure's numbers."""


def build_numbers(results: Results, drawing: Drawing) -> Table:
    """Every number drawn, in SI base units as the headings say, up to `MOST_ROWS` rows.

    ``drawing`` is the first sheet of its figure, which names the file.
    """
    data = drawing.data
    shown = data.rows[:MOST_ROWS]
    rows = tuple(_build_row(results, data.head, row) for row in shown)
    count = len(data.rows)
    some = f"The first {len(shown)} of {count} rows; all are" if count > len(shown) else "Also"
    note = f"{some} in `plots/{drawing.name}.csv`, with all of their digits."
    title = re.sub(r" \(1 of \d+\)$", "", drawing.title)
    return Table(f"Numbers of the figure: {quote(title)}", data.head, rows, note)


def _build_row(results: Results, heads: tuple[str, ...], values: tuple[Value, ...]) -> Row:
    words = [_say(results, head, value) for head, value in zip(heads, values, strict=True)]
    return Row(words[0], tuple(Cell(each) for each in words[1:]))


def _say(results: Results, head: str, value: Value) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, str):
        known = head in ("platform", "reference") and value in results.kinds
        return describe_platform(results, value, quoted=True) if known else quote(value)
    whole = isinstance(value, int) or (value.is_integer() and abs(value) < 1e15)
    return str(int(value)) if whole else f"{value:.6g}"
