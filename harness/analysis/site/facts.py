"""What the site's own pages tell of a run, read once and stored beside its report as JSON."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.analysis.answer import build_answer, build_headline
from harness.analysis.compare_sides import load_side
from harness.analysis.compare_traits import Traits
from harness.analysis.method import build_summary_line
from harness.analysis.results import Figure, Results, get_mapping, load_results
from harness.analysis.site.sources import find_kind
from harness.analysis.wording import describe_accelerators, describe_platform
from harness.errors import InputError
from harness.marks import LABELS
from harness.metrics import METRICS

FACTS = "facts.json"


@dataclass(frozen=True, slots=True)
class Point:
    """One headline figure of a run: a median over ``n`` blocks with its 95 % interval in ``unit``.

    ``platform`` is said as readers see it, emulation included; ``kind`` decides on its marker.
    """

    platform: str
    kind: str
    workload: str
    metric: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Facts:
    """A run on the index.

    ``kind`` is what it measured, ``headline`` what its answer opens with. ``traits`` is what a
    comparison holds against another run's; where there is none, ``unfit`` says why. ``marks`` are
    disturbances with the number of measured trials that carry them, ``notes`` sentences that must
    not be overlooked,
    ``cases`` the measured platforms with their workloads.
    """

    run_id: str
    name: str
    created_at: str
    host: str
    machine: str
    emulated: str
    platforms: tuple[str, ...]
    workloads: tuple[str, ...]
    blocks: int
    trials: int
    headline: str
    marks: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    cases: tuple[tuple[str, str], ...]
    points: tuple[Point, ...]
    traits: tuple[tuple[str, str, object], ...]
    unfit: str = ""
    kind: str = "starts"

    @property
    def date(self) -> str:
        """``2026-11-25``; empty where the run did not store it."""
        return self.created_at[:10]

    @property
    def moment(self) -> str:
        """``2026-11-25 20:14``."""
        return self.created_at[:16].replace("T", " ")

    def build_traits(self) -> Traits:
        return {(dimension, subject): value for dimension, subject, value in self.traits}


def build_facts(folder: Path, name: str) -> Facts:
    """The facts of the result folder ``folder``; raises InputError where it is damaged."""
    results = load_results(folder)
    host = get_mapping(results.manifest, "host")
    measured = results.measured
    marks = Counter(mark for each in measured for mark in set(each.marks) if mark not in LABELS)
    notes, traits, unfit = _read_side(folder)
    return Facts(
        run_id=str(results.manifest["run_id"]),
        name=name,
        created_at=str(results.manifest.get("created_at") or ""),
        host=str(host.get("name") or "unknown host"),
        machine=build_summary_line(results).rpartition(" · ")[0],
        emulated=describe_accelerators(results),
        platforms=results.first_arms,
        workloads=results.workloads,
        blocks=len({each.block for each in measured}),
        trials=len(measured),
        headline=_say_first(results),
        marks=tuple(sorted(marks.items())),
        notes=notes,
        cases=tuple(dict.fromkeys((each.platform, each.workload) for each in measured)),
        points=_list_points(results),
        traits=traits,
        unfit=unfit,
        kind=find_kind(results.manifest),
    )


def _say_first(results: Results) -> str:
    """The headline; where it cannot be said, what the answer opens with, such as the reason.

    Of isolation all sentences: who shares the host's kernel means little without who does not.
    """
    if headline := build_headline(results):
        return headline
    said = [each.sentences for each in build_answer(results) if not each.warning]
    count = None if find_kind(results.manifest) == "isolation" else 1
    return " ".join(said[0][:count]) if said else ""


def _read_side(folder: Path) -> tuple[tuple[str, ...], tuple[tuple[str, str, object], ...], str]:
    """Notes and traits; a run that mixes what is never averaged cannot be compared."""
    try:
        side = load_side("This run", folder)
    except InputError as error:
        return (), (), error.message
    traits = json.loads(json.dumps([[*key, value] for key, value in side.traits.items()]))
    return side.notes, tuple((each[0], each[1], each[2]) for each in traits), ""


def _list_points(results: Results) -> tuple[Point, ...]:
    """Headline figures in the order of the report."""
    return tuple(
        Point(
            describe_platform(results, platform), results.kinds[platform], workload, metric, figure
        )
        for metric, entry in METRICS.items()
        if entry.headline
        for workload in results.workloads
        for platform in results.first_arms
        if (figure := results.find(platform, workload, metric)) is not None
    )


def format_facts(facts: Facts) -> bytes:
    return (json.dumps(asdict(facts), indent=1, ensure_ascii=False) + "\n").encode(
        "utf-8", "replace"
    )


def read_facts(folder: Path) -> Facts:
    """What `format_facts` wrote into ``folder``."""
    document: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    points = tuple(_parse_point(each) for each in document.pop("points"))
    lists = {key: _freeze(value) for key, value in document.items() if isinstance(value, list)}
    traits = tuple((each[0], each[1], each[2]) for each in document["traits"])
    return Facts(**{**document, **lists, "traits": traits, "points": points})


def _parse_point(document: Mapping[str, Any]) -> Point:
    return Point(**{**document, "figure": Figure(**document["figure"])})


def _freeze(value: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(each) if isinstance(each, list) else each for each in value)
