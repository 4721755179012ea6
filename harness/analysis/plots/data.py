"""The numbers of a figure: what is drawn, as rows for its table and its CSV file.

SI base units, named in the headings; what is not known stays empty and is never zero.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis.results import Figure, Results

Value = str | int | float | None

MOST_PLATFORMS = 24
"""Rows of platforms in a panel; of more, those that `choose_platforms` takes are shown."""
LEAST_PLATFORMS = 16
"""Rows that a panel has room for in any case, however many panels there are."""
HIGHEST = 9.2
"""Inches of panels on one sheet: so high, a figure fits on a page of paper at its full width."""
_AROUND = 0.45
"""Inches that a panel's title and axis take."""
MOST_LINES = 16
"""Lines in one panel: more cannot be told apart."""
MOST_WORKLOADS = 12

INTERVAL = ("n", "median", "low", "high")
"""Headings of `list_figure`; the unit comes after them in brackets."""


@dataclass(frozen=True, slots=True)
class Data:
    """Headings and rows; every row has one value for each heading."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def build_data(head: Sequence[str], rows: Sequence[Sequence[Value]]) -> Data:
    return Data(tuple(head), tuple(tuple(row) for row in rows))


def name_interval(unit: str) -> tuple[str, ...]:
    """``n``, ``median (s)``, ``low (s)``, ``high (s)``: a figure with its 95 % interval."""
    return ("n", *(f"{name} ({unit})" for name in INTERVAL[1:]))


def list_figure(figure: Figure | None) -> tuple[Value, ...]:
    return (None,) * 4 if figure is None else (figure.n, figure.median, figure.low, figure.high)


def add_accelerators(results: Results, data: Data) -> Data:
    """The same with what each platform ran on beside its name: an emulated one says so."""
    if "platform" not in data.head:
        return data
    place = data.head.index("platform")

    def insert(row: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
        return (*row[: place + 1], value, *row[place + 1 :])

    rows = (insert(row, results.accelerators.get(str(row[place]), "none")) for row in data.rows)
    return Data(tuple(map(str, insert(data.head, "accelerator"))), tuple(rows))


def format_csv(data: Data) -> bytes:
    """The rows as UTF-8 text with a line of headings; numbers in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(data.head)
    writer.writerows(data.rows)
    return text.getvalue().encode("utf-8", "replace")


def choose_platforms(
    results: Results, values: Mapping[str, float], most: int = MOST_PLATFORMS, rest: str = "the CSV"
) -> tuple[list[str], str]:
    """At most ``most`` of the platforms, in their order, and a sentence where some are left out.

    Of more, what the reader compares stays: the reference and the machine of the headline, and of
    the others those with the smallest and the largest values. ``rest`` is what has all of them.
    """
    if len(values) <= most:
        return list(values), ""
    named = {"the reference": results.reference or "", "the first machine": find_machine(results)}
    named = {words: name for words, name in named.items() if name in values}
    ordered = sorted(values.keys() - named.values(), key=lambda name: (values[name], name))
    room = max(2, most - len(named))
    half = room // 2
    kept = {*named.values(), *ordered[:half], *ordered[-(room - half) :]}
    words = ", ".join([*named, "of the others" if named else ""]).removesuffix(", ")
    words = f"{words} the {half} smallest and the {room - half} largest".strip()
    shown = [name for name in values if name in kept]
    return shown, f"{len(shown)} of {len(values)} platforms shown: {words}; {rest} has all"


def find_machine(results: Results) -> str:
    """The machine that the headline compares with the reference; empty without one."""
    machines = (name for name in results.first_arms if results.kinds[name] == "vm")
    return next((name for name in machines if name != results.reference), "")


def limit_rows(workloads: int) -> int:
    """Platforms in a panel where each of so many workloads has panels of its own."""
    return MOST_PLATFORMS if workloads <= 3 else LEAST_PLATFORMS


def split_sheets(heights: Sequence[float]) -> list[tuple[int, int]]:
    """Panels of so many inches each, as ranges (first, end) of which each fits on a sheet."""
    sheets: list[tuple[int, int]] = []
    first, filled = 0, 0.0
    for place, height in enumerate(heights):
        if place > first and filled + height + _AROUND > HIGHEST:
            sheets.append((first, place))
            first, filled = place, 0.0
        filled += height + _AROUND
    return [*sheets, (first, len(heights))] if heights else []


def name_sheet(name: str, title: str, part: int, parts: int) -> tuple[str, str]:
    """File stem and title of one sheet of several."""
    return (
        (name, title)
        if parts == 1
        else (name if part == 1 else f"{name}-{part}", f"{title} ({part} of {parts})")
    )
