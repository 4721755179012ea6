"""Moves to another host as plain data: which ways there are, and their tables."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from harness.analysis.results import Results, get_mapping
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import (
    PACKINGS,
    describe_platform,
    format_figure,
    format_share,
    quote,
    split_figure,
)
from harness.units import parse_bandwidth

SCENARIOS = {
    "first": "to a host that has nothing",
    "shared_base": "to a host that has another application on the same base",
    "update": "to a host that has the release before: one file has changed",
}
"""What is there already, in words."""

_PARTS = ("transfer", "unpack", "start")
_BODIES = {"first": "portability.first_app"}
_READ = "portability.start_read"
_HEAD = ("platform", "packing", "link", "ready after", "share of pull", "transfer", "unpack",
         "start", "sent", "on the link")  # fmt: skip
_SENT = (
    "What moves is the image with a small application on it: sent are both, so more than the image "
    "alone that a host needs «to transfer» above."
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to move: a platform's image in one packing over one link."""

    platform: str
    workload: str
    packing: str
    link: str

    @property
    def phase(self) -> str:
        return f"{self.packing}@{self.link}"

    @property
    def bandwidth(self) -> int:
        """Bits per second."""
        return parse_bandwidth(self.link.partition("+")[0])


def list_ways(results: Results, scenario: str) -> list[Way]:
    """The ways that were measured in a scenario: by platform, packing and bandwidth."""
    metric = f"portability.{scenario}_seconds"
    found = []
    for platform, workload, name, phase in results.figures:
        packing, at, link = phase.partition("@")
        if name == metric and at and "/" not in link:
            found.append(Way(platform, workload, packing, link))
    packings = list(PACKINGS)

    def place(way: Way) -> tuple[int, int, str, int]:
        known = packings.index(way.packing) if way.packing in packings else len(packings)
        return results.platforms.index(way.platform), known, way.packing, way.bandwidth

    return sorted(found, key=place)


def build_tables(results: Results) -> list[Table]:
    """A table for each scenario, and what cold starts read; empty without moves."""
    shares = _read_shares(results)
    found = [_build_scenario(results, each, shares) for each in SCENARIOS]
    found.append(_build_read(results))
    return [table for table in found if table is not None]


def _build_scenario(
    results: Results, scenario: str, shares: Mapping[tuple[str, str, str], float]
) -> Table | None:
    ways = list_ways(results, scenario)
    rows = tuple(_build_row(results, scenario, way, shares) for way in ways)
    note = _SENT if scenario == "first" else ""
    return Table(f"Moved {SCENARIOS[scenario]}", _HEAD, rows, note) if rows else None


def _build_row(
    results: Results, scenario: str, way: Way, shares: Mapping[tuple[str, str, str], float]
) -> Row:
    def find(metric: str, phase: str) -> Cell:
        figure = results.find(way.platform, way.workload, metric, phase)
        if figure is not None and figure.unit == "B":  # noise of the host changes no byte
            return Cell(*split_figure(figure))
        return build_cell(figure)

    seconds = f"portability.{scenario}_seconds"
    whole = find(seconds, way.phase)
    share = shares.get((way.platform, scenario, way.phase))
    cells = (
        Cell(quote(way.packing), PACKINGS.get(way.packing, "")),
        Cell(way.link),
        whole,
        Cell("–" if share is None else format_share(share)),
        *(_say_once(find(seconds, f"{way.phase}/{part}"), whole) for part in _PARTS),
        find(_BODIES.get(scenario, f"portability.{scenario}"), way.packing),
        find(f"portability.{scenario}_link", way.phase),
    )
    return Row(describe_platform(results, way.platform, quoted=True), cells, way.platform)


def _say_once(part: Cell, whole: Cell) -> Cell:
    """A part without the doubt that stands beside the whole already."""
    interval, _, doubt = part.note.rpartition("; ")
    said = whole.note.rpartition("; ")[2]
    return Cell(part.text, interval) if part.tone and doubt == said else part


def _read_shares(results: Results) -> dict[tuple[str, str, str], float]:
    """The median share of transfer and unpacking in a move, by platform, scenario and way."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for outcome in results.outcomes:
        move = get_mapping(outcome.details, "move")
        share = move.get("pull_share")
        if isinstance(share, float):
            way = f"{move.get('packing')}@{move.get('link')}"
            key = (outcome.platform, str(move.get("scenario")), way)
            found.setdefault(key, []).append(share)
    return {key: statistics.median(shares) for key, shares in found.items()}


def _build_read(results: Results) -> Table | None:
    """What a cold start reads of the image, the application included."""
    rows = []
    for (platform, workload, metric, phase), figure in results.figures.items():
        whole = results.find(platform, workload, _READ, "whole")
        if (metric, phase) == (_READ, "") and whole is not None:
            share = figure.median / whole.median if whole.median else 0.0
            cells = (build_cell(figure), Cell(format_figure(whole)), Cell(format_share(share)))
            rows.append(Row(describe_platform(results, platform, quoted=True), cells, platform))
    head = ("platform", "read", "of", "share")
    note = (
        "Pages of the unpacked files in memory after a cold start (mincore), read-ahead included: "
        "the image with the application on it. Holes of a disk are no bytes of the image, and a "
        "machine's kernel, which is a part of its image on disk, is not counted here."
    )
    return Table("What a cold start reads of the image", head, tuple(rows), note) if rows else None
