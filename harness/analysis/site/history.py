"""Headline figures from run to run, of one host under the same conditions."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.colours import assign_colours
from harness.analysis.plots.history import Track, draw_history
from harness.analysis.plots.layout import Drawing
from harness.analysis.results import Figure
from harness.analysis.site.facts import Facts, Point
from harness.analysis.site.pairs import build_lines
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import quote, shorten_reason, split_figure

SHOWN = {
    "startup.ready": "Time to ready of {}, run by run",
    "memory.pss": "Host memory (PSS) of {}, run by run",
}
"""The figures that have a history of their own; the rest is in the table of all headlines."""

_COLUMNS = ("run_id", "created_at", "host", "platform", "workload", "metric", "unit", "n",
            "median", "low", "high", "withheld")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chapter:
    """One workload's metric over a line of runs: the figure and the table of its values."""

    drawing: Drawing
    table: Table


@dataclass(frozen=True, slots=True)
class Line:
    """Runs of one host under the same conditions; ``since`` and ``until`` are dates."""

    title: str
    machine: str
    emulated: str
    since: str
    until: str
    count: int
    chapters: tuple[Chapter, ...]


def build_history(runs: Sequence[Facts]) -> tuple[Line, ...]:
    """Every line of two or more runs, the longest first."""
    lines = [each for each in build_lines(runs) if len(each) > 1]
    lines.sort(key=lambda each: (-len(each), each[0].run_id))
    return tuple(_build_line(number, each) for number, each in enumerate(lines, start=1))


def _build_line(number: int, runs: Sequence[Facts]) -> Line:
    last = runs[-1]
    workloads = dict.fromkeys(name for run in reversed(runs) for name in run.workloads)
    chapters = [
        _build_chapter(f"line{number}-{place}-{metric.replace('.', '-')}", runs, workload, metric)
        for metric in SHOWN
        for place, workload in enumerate(workloads, start=1)
    ]
    return Line(
        title=last.host,
        machine=last.machine,
        emulated=last.emulated,
        since=runs[0].date,
        until=last.date,
        count=len(runs),
        chapters=tuple(each for each in chapters if each is not None),
    )


def _build_chapter(name: str, runs: Sequence[Facts], workload: str, metric: str) -> Chapter | None:
    points = [
        {each.platform: each for each in run.points if _is_of(each, workload, metric)}
        for run in runs
    ]
    labels = list(dict.fromkeys(label for each in reversed(points) for label in each))
    colours = assign_colours([label.partition(", ")[0] for label in labels])
    tracks = [_build_track(label, points, colours) for label in labels]
    title = SHOWN[metric].format(workload)
    drawing = draw_history(name, title, list_dates(runs), tracks)
    if drawing is None:
        return None
    rows = [
        Row(
            f"{run.moment} {quote(run.run_id)}",
            tuple(_build_cell(found[each].figure if each in found else None) for each in labels),
        )
        for run, found in reversed(list(zip(runs, points, strict=True)))
    ]
    return Chapter(drawing, Table(title, ("run", *map(_quote_label, labels)), tuple(rows)))


def list_dates(runs: Sequence[Facts]) -> list[str]:
    """The date of each run; with the time of day where a day has several."""
    days = Counter(each.date for each in runs)
    return [each.moment if days[each.date] > 1 else each.date for each in runs]


def _is_of(point: Point, workload: str, metric: str) -> bool:
    return point.workload == workload and point.metric == metric


def _build_track(label: str, points: Sequence[dict[str, Point]], colours: dict[str, str]) -> Track:
    figures = {at: found[label].figure for at, found in enumerate(points) if label in found}
    kind = next(found[label].kind for found in points if label in found)
    return Track(label, kind, colours[label.partition(", ")[0]], figures)


def _build_cell(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell("–")
    text, interval = split_figure(figure)
    if figure.withheld:
        return Cell(text, f"withheld: {shorten_reason(figure.withheld)}", "doubt")
    return Cell(text, interval)


def _quote_label(label: str) -> str:
    name, comma, rest = label.partition(", ")
    return f"{quote(name)}{comma}{rest}"


def format_headlines(runs: Sequence[Facts]) -> bytes:
    """Every headline figure of every run as CSV, oldest run first; values in ``unit``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for run in runs:
        for each in run.points:
            figure = each.figure
            writer.writerow([
                run.run_id, run.created_at, run.host, each.platform, each.workload, each.metric,
                figure.unit, figure.n, figure.median, figure.low, figure.high, figure.withheld,
            ])  # fmt: skip
    return text.getvalue().encode("utf-8", "replace")
