"""Figures in the output of a tool: throughput and latency, where they stand, and in which unit.

What a tool prints is read where it stands in its JSON (by JSON Pointer, RFC 6901), in its CSV (by
row and column, RFC 4180) or, where it has neither, by a regular expression.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import TrialError
from harness.metrics import METRICS

Stream = Literal["output", "errors", "load", "load-errors"]
"""Who printed it: the workload (standard output, standard error) or its load generator."""

AREA = "efficiency."
DURATION = "duration"

_RATES = {"1/s": 1.0, "1/min": 1 / 60}
_BYTE_RATES = {
    "B/s": 1.0, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9,
    "KiB/s": 2.0**10, "MiB/s": 2.0**20, "GiB/s": 2.0**30,
    "bit/s": 1 / 8, "kbit/s": 1e3 / 8, "Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8,
}  # fmt: skip
_TIMES = {"s": 1.0, "sec": 1.0, "m": 60.0, "ms": 1e-3, "msec": 1e-3,
          "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "ns": 1e-9, "nsec": 1e-9}  # fmt: skip
_SCALES = {"1/s": _RATES, "B/s": _BYTE_RATES, "s": _TIMES}
AUTO = "auto"
"""The unit stands in the output: it is the second group of the regular expression."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a tool's output. ``metric`` is one of the area's in `METRICS`.

    ``unit`` is the tool's. Exactly one of ``json`` (a pointer), ``csv`` (row and column) and
    ``regex`` (the first group; the last match counts) says where it stands.
    """

    metric: str
    unit: str
    stream: Stream = "output"
    phase: str = ""
    json: str | None = None
    csv: tuple[str, ...] | None = None
    regex: str | None = None


def list_names() -> tuple[str, ...]:
    """What a figure may be: names of the area that a tool prints, without the area."""
    derived = ("cpu", "per_cpu_second", "bytes_per_cpu_second")
    names = (name.removeprefix(AREA) for name in METRICS if name.startswith(AREA))
    return tuple(name for name in names if name not in derived)


def list_units(metric: str) -> tuple[str, ...]:
    """The units in which a tool may give ``metric``; a rate, also as the time of one piece."""
    known = _SCALES[METRICS[metric].unit]
    inverse = _TIMES if METRICS[metric].unit == "1/s" else {}
    return (*known, *inverse, AUTO)


def find_fault(figure: Figure) -> tuple[str, str] | None:
    """(key, reason) why a figure could never be read; None if it can. ``metric`` is known."""
    ways = {name: getattr(figure, name) for name in ("json", "csv", "regex")}
    stated = [name for name, value in ways.items() if value is not None]
    if len(stated) != 1:
        said = " and ".join(stated) or "nothing"
        return "figures", f"one of json, csv and regex says where a figure stands, not {said}"
    if figure.unit not in list_units(figure.metric):
        return "unit", f"{figure.unit!r} is none of {', '.join(list_units(figure.metric))}"
    if figure.regex is not None:
        return _find_regex_fault(figure.regex, 2 if figure.unit == AUTO else 1)
    if figure.unit == AUTO:
        return "unit", "'auto' reads the unit by the second group of a regex"
    if figure.json is not None and figure.json and not figure.json.startswith("/"):
        return "json", f"{figure.json!r} is no JSON pointer: it begins with /"
    if figure.csv is not None and (len(figure.csv) != 2 or not figure.csv[1]):
        return "csv", "it is the first cell of a row, or an empty string, and a column's name"
    return None


def _find_regex_fault(pattern: str, groups: int) -> tuple[str, str] | None:
    try:
        found = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        return "regex", f"{pattern!r} is no regular expression: {error}"
    if found < groups:
        what = "the number, and one around its unit" if groups == 2 else "the number"
        return "regex", f"{pattern!r} has no group around {what}"
    return None


def read_figures(
    figures: Sequence[Figure], printed: Mapping[str, str]
) -> dict[tuple[str, str], float]:
    """Each figure by (metric, phase), in the metric's unit; ``printed`` is text by stream.

    Raises TrialError that names the figure and the reason.
    """
    found = {}
    for figure in figures:
        try:
            value = _scale(figure, *_find_text(figure, printed.get(figure.stream, "")))
        except ValueError as error:
            where = "its load generator" if figure.stream.startswith("load") else "the workload"
            name = describe_figure(figure.metric, figure.phase)
            raise TrialError(
                f"the figure {name} cannot be read from what {where} printed: {error}",
                hint="what was printed is kept in the logs of the trial",
            ) from None
        found[figure.metric, figure.phase] = value
    return found


def describe_figure(metric: str, phase: str) -> str:
    """``throughput`` or ``throughput of set``."""
    name = metric.removeprefix(AREA).replace("_", " ")
    return f"{name} of {phase}" if phase else name


def _find_text(figure: Figure, text: str) -> tuple[str, str]:
    """(number, unit) as they stand in ``text``; raises ValueError with the reason."""
    if not text.strip():
        raise ValueError("there is nothing")
    if figure.regex is not None:
        matches = list(re.finditer(figure.regex, text, re.MULTILINE))
        if not matches:
            raise ValueError(f"nothing matches {figure.regex!r}")
        unit = matches[-1][2] if figure.unit == AUTO else figure.unit
        return matches[-1][1] or "", unit or ""
    if figure.csv is not None:
        return find_in_csv(text, *figure.csv), figure.unit
    return find_in_json(text, figure.json or ""), figure.unit


def find_in_json(text: str, pointer: str) -> str:
    """The number at ``pointer``; what a tool prints before and after its JSON is skipped, also a
    line that could be JSON itself, such as ``[1] warming up``."""
    reason = "it is no JSON"
    for node in _walk_json(text):
        try:
            return _point(node, pointer)
        except ValueError as error:
            reason = str(error)
    raise ValueError(reason)


def _point(node: object, pointer: str) -> str:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isascii() and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            raise ValueError(f"its JSON has nothing at {pointer!r}")
    if isinstance(node, bool) or not isinstance(node, int | float | str):
        raise ValueError(f"its JSON has no number at {pointer!r}")
    return str(node)


def _walk_json(text: str) -> Iterator[object]:
    """Every object or list that stands at the beginning of a line, and in no other one."""
    decoder = json.JSONDecoder()
    end = 0
    for start in re.finditer(r"^\s*(?=[{\[])", text, re.MULTILINE):
        if start.end() < end:
            continue
        try:
            node, end = decoder.raw_decode(text, start.end())
        except (ValueError, RecursionError):
            continue
        yield node


def find_in_csv(text: str, row: str, column: str) -> str:
    """The cell of the row that begins with ``row`` ("": the first) in the column ``column``."""
    lines = [each for each in csv.reader(io.StringIO(text)) if each]
    heads = [place for place, each in enumerate(lines) if column in each]
    if not heads:
        raise ValueError(f"its CSV has no column {column!r}")
    place = lines[heads[0]].index(column)
    for line in lines[heads[0] + 1 :]:
        if row in ("", line[0]) and len(line) > place:
            return line[place]
    raise ValueError(f"its CSV has no row {row!r}")


def _scale(figure: Figure, number: str, unit: str) -> float:
    """The number in the metric's unit; raises ValueError for what is no finite number of zero or
    more, or no rate."""
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{number[:40]!r} is no number") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{number[:40]!r} is no figure")
    wanted = METRICS[figure.metric].unit
    if unit in _SCALES[wanted]:
        return value * _SCALES[wanted][unit]
    if unit not in _TIMES:
        raise ValueError(f"{unit[:20]!r} is no unit of it")
    seconds = value * _TIMES[unit]
    if seconds == 0 or math.isinf(1 / seconds):
        raise ValueError("no time at all is no rate")
    return 1 / seconds
