"""The history of the harness's own figures, from the pages that asv made of it (`make asv`).

asv's pages load scripts from other hosts and their data by requests, which a page opened from a
file may not: so the data is read, and shown by a page of this site. It holds one value a commit.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path, PurePath
from typing import Any

from harness.errors import InputError

_UNITS = {"seconds": "s", "bytes": "B", "ratio": "×"}


@dataclass(frozen=True, slots=True)
class OwnSeries:
    """One benchmark with one set of parameters: values by commit, the oldest first, in ``unit``.

    ``where`` is what asv knows of the machine and the branch. ``places`` count commits.
    """

    benchmark: str
    where: str
    unit: str
    places: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """The last value to the first; None without two values or a positive first one."""
        if len(self.values) < 2 or self.values[0] <= 0:
            return None
        return self.values[-1] / self.values[0]

    @property
    def path(self) -> str:
        """The values as the points of a line in a box of 120 × 28."""
        low, high = min(self.values), max(self.values)
        first, last = min(self.places), max(self.places)
        return " ".join(
            f"{4 + 112 * _share(place, first, last):.1f},{24 - 20 * _share(value, low, high):.1f}"
            for place, value in zip(self.places, self.values, strict=True)
        )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True, slots=True)
class OwnHistory:
    """All of them; ``since`` and ``until`` are the dates of the first and the last commit."""

    since: str
    until: str
    commits: int
    series: tuple[OwnSeries, ...]


def read_own_history(folder: Path) -> OwnHistory:
    """The data of asv's pages in ``folder`` (``html_dir``). Raises InputError where it is none."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        benchmarks = dict(index["benchmarks"])
        dates = sorted(int(each) for each in index["revision_to_date"].values())
        graphs = sorted((folder / "graphs").rglob("*.json"))
        series = [
            each
            for path in graphs
            if path.stem in benchmarks and path.parent.name != "summary"
            for each in _read_graph(path, folder / "graphs", benchmarks[path.stem])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"--asv: {folder} holds no pages of asv ({type(error).__name__})",
            hint="`make asv` makes .asv/html",
        ) from None
    since, until = (_format_date(dates[at]) if dates else "" for at in (0, -1))
    return OwnHistory(since, until, len(dates), tuple(sorted(series, key=_place)))


def _place(series: OwnSeries) -> tuple[str, str]:
    return series.benchmark, series.where


def _format_date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def _read_graph(path: Path, root: Path, benchmark: Mapping[str, Any]) -> list[OwnSeries]:
    """The graph of a benchmark: one series, or one for each combination of its parameters."""
    rows: Sequence[tuple[int, Any]] = json.loads(path.read_bytes())
    names = [f" ({', '.join(each)})" if each else "" for each in product(*benchmark["params"])]
    found = []
    for number, name in enumerate(names):
        columns = [(int(at), each[number] if isinstance(each, list) else each) for at, each in rows]
        known = [(at, float(each)) for at, each in columns if isinstance(each, int | float)]
        if known:
            places, values = zip(*known, strict=True)
            found.append(
                OwnSeries(
                    f"{path.stem}{name}", _say_where(path.parent.relative_to(root)),
                    _UNITS.get(benchmark["unit"], str(benchmark["unit"])), places, values,
                )
            )  # fmt: skip
    return found


def _say_where(conditions: PurePath) -> str:
    """``branch main, machine here``; a Python's path is of the machine that measured alone."""
    words = [part.partition("-") for part in conditions.parts]
    return ", ".join(f"{name} {value}" for name, _, value in words if value and name != "python")
