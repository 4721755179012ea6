"""Published figures beside a run's own, in tables of their own: the same milestone and method."""

from harness.analysis.published import (
    NEEDS,
    Beside,
    Published,
    convert_value,
    read_published,
)
from harness.analysis.results import Figure, Results
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import ABSENT, describe_platform, quote, split_figure
from harness.metrics import METRICS

GREY = "published"
_HEAD = ("platform", "figure", "taken from", "conditions", "certainty")
_NOTE = (
    "Grey rows are others' figures from other hosts: they are in no average, ratio or verdict of "
    "this report. `list published` has all of them, with those that have no equal here."
)


def build_published(results: Results, area: str) -> tuple[Table, ...]:
    """The tables for the chapter of an ``area``; empty where nothing of the run has an equal."""
    found = [
        _build_table(results, each)
        for each in read_published().beside
        if METRICS[each.metric].area == area
    ]
    return tuple(table for table in found if table is not None)


def _build_table(results: Results, beside: Beside) -> Table | None:
    own = tuple(
        _build_own(results, beside, platform, workload)
        for workload in results.workloads
        if not beside.workloads or workload.partition("@")[0] in beside.workloads
        for platform in results.first_arms
        if find_base(platform) in beside.platforms
        and results.find(platform, workload, beside.metric, beside.phase)
    )
    if not own:
        return None
    others = [each for each in read_published().figures if each.metric == beside.published]
    name = f"{beside.metric}, {beside.phase}" if beside.phase else beside.metric
    note = f"Alike: {beside.why}. Different: {beside.differs}. {_NOTE}"
    rows = (*own, *(_build_other(results, each, own) for each in others))
    return Table(f"Published figures beside {quote(name)}", _HEAD, rows, note)


def find_base(platform: str) -> str:
    """``podman`` of ``podman+crun/host-net``."""
    return platform.partition("/")[0].partition("+")[0]


def _build_own(results: Results, beside: Beside, platform: str, workload: str) -> Row:
    figure = results.find(platform, workload, beside.metric, beside.phase)
    slope = beside.metric.endswith(".marginal")
    what = "slope over steps, n" if slope else "median, n"
    n = "" if figure is None else f"{what} {figure.n}"
    cells = (
        build_cell(figure),
        Cell("this run", n),
        Cell(f"{quote(workload)} in {quote(results.images[workload])}"),
        Cell("measured"),
    )
    return Row(describe_platform(results, platform, quoted=True), cells, platform)


def _build_other(results: Results, each: Published, own: tuple[Row, ...]) -> Row:
    emulated = any(results.is_emulated(row.platform) for row in own)
    other = "hardware virtualisation there, emulated (TCG) here" if each.needs == "kvm" else ""
    cells = (
        Cell(format_published(each), each.stat),
        Cell(f"{each.source}, {each.year}", each.where),
        Cell(each.conditions or ABSENT, other if emulated else ""),
        Cell(each.certainty, f"needs {NEEDS.get(each.needs, each.needs)}"),
    )
    return Row(each.platform, cells, tone=GREY)


def format_published(each: Published) -> str:
    """In our units where there are any, else as it was published."""
    converted = convert_value(each)
    if converted is None:
        values = each.value if isinstance(each.value, tuple) else (each.value,)
        return f"{'–'.join(f'{value:g}' for value in values)} {each.unit}"
    unit, found = converted
    words = [split_figure(Figure(1, value, value, value, unit))[0] for value in found]
    return " to ".join(words)
