"""Figures that others have published, with their sources, and which of ours each may stand beside.

The data is `published.toml`. A published figure is never part of an average, a ratio or a verdict.
"""

from functools import cache
from pathlib import Path

import msgspec

_FILE = Path(__file__).with_name("published.toml")
_SAME = ("same", "same mail")

_UNITS = {
    "s": ("s", 1.0), "ms": ("s", 1e-3), "us": ("s", 1e-6),
    "B": ("B", 1.0), "MB": ("B", 1e6), "MiB": ("B", 2.0**20),
    "Gb/s": ("B/s", 1e9 / 8), "GB/s": ("B/s", 1e9),
    "1/s": ("1/s", 1.0), "req/s": ("1/s", 1.0), "kreq/s": ("1/s", 1e3), "IOPS": ("1/s", 1.0),
}  # fmt: skip

NEEDS = {
    "container": "containers",
    "kvm": "hardware virtualisation",
    "net": "two hosts",
    "none": "what this harness does not run",
}
"""What a host needs to measure the like."""


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published figure as its source has it. A ``value`` of two numbers is a range."""

    id: str
    source: str
    year: int
    metric: str
    platform: str
    value: float | tuple[float, float]
    unit: str
    certainty: str
    where: str
    needs: str
    conditions: str = ""
    stat: str = ""


class Beside(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which figure of a run has the milestone and the method of a ``published`` metric.

    Empty ``workloads`` means every one. ``why`` they are alike, and in what the conditions differ.
    """

    published: str
    metric: str
    platforms: tuple[str, ...]
    why: str
    differs: str
    phase: str = ""
    workloads: tuple[str, ...] = ()


class Apart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published metric that has no equal here, and why."""

    published: str
    why: str


class Collection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    schema: str
    compiled: str
    figures: tuple[Published, ...]
    beside: tuple[Beside, ...]
    apart: tuple[Apart, ...]


@cache
def read_published() -> Collection:
    """The package's collection; conditions that say «same» are spelled out."""
    found = msgspec.toml.decode(_FILE.read_bytes(), type=Collection)
    return msgspec.structs.replace(found, figures=_spell_out(found.figures))


def _spell_out(figures: tuple[Published, ...]) -> tuple[Published, ...]:
    """«same» and «same; more» mean the last row that says something of its own, whole.

    So a note such as «mapped not resident» goes on to the rows below, and what a row adds does not.
    """
    told = {"conditions": "", "where": ""}
    spelled = []
    for each in figures:
        changes = {}
        for name in told:
            text = getattr(each, name)
            first, semicolon, rest = text.partition("; ")
            if first in _SAME or first.startswith("same as "):
                changes[name] = told[name] + semicolon + rest
            else:
                told[name] = text
        spelled.append(msgspec.structs.replace(each, **changes))
    return tuple(spelled)


def convert_value(figure: Published) -> tuple[str, tuple[float, ...]] | None:
    """SI unit and value (or both ends of a range); None for a unit that no metric here has."""
    if figure.unit not in _UNITS:
        return None
    unit, factor = _UNITS[figure.unit]
    values = figure.value if isinstance(figure.value, tuple) else (figure.value,)
    return unit, tuple(value * factor for value in values)


def find_partner(metric: str) -> Beside | None:
    """The figure here that a published metric may stand beside, if there is one."""
    return next((each for each in read_published().beside if each.published == metric), None)


def list_rows() -> list[dict[str, object]]:
    """One row a figure for `list published`: every field, and what it stands beside or why not."""
    reasons = {each.published: each.why for each in read_published().apart}
    rows = []
    for each in read_published().figures:
        partner = find_partner(each.metric)
        beside = f"{partner.metric} {partner.phase}".strip() if partner else None
        why = partner.differs if partner else reasons[each.metric]
        rows.append({**msgspec.structs.asdict(each), "beside": beside, "difference": why})
    return rows
