"""The tables of a report as plain data: rows of platforms, cells of figures.

Text may hold code spans between backticks; both templates know how to show them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.memory import PSS, find_memory_workload, say_daemon, say_ended
from harness.analysis.results import Figure, Ratio, Results
from harness.analysis.wording import (
    ABSENT,
    PACKINGS,
    describe_platform,
    format_figure,
    format_ratio,
    quote,
    shorten_reason,
    split_figure,
)
from harness.metrics import METRICS
from harness.model import RESIDUAL, STARTUP_MILESTONES


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. ``note`` is a second, smaller line; ``tone`` is `better`, `worse` or `doubt`.

    ``anchor`` names the chapter of the page that the text leads to.
    """

    text: str
    note: str = ""
    tone: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its head (with the platform it belongs to, for its colour) and its cells.

    ``goes_on`` marks a row that belongs to the one above it; ``tone`` is `published` for figures
    that are not the run's.
    """

    head: str
    cells: tuple[Cell, ...]
    platform: str = ""
    goes_on: bool = False
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; ``head`` has one word more than a row has cells.

    ``note`` is said below it.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures: its heading and the metric and phase it shows, of a ``workload`` of its
    own if it names one."""

    head: str
    metric: str
    phase: str = ""
    workload: str = ""


GLANCE = (
    Column("ready after", "startup.ready"),
    Column("memory on the host", "memory.pss"),
    Column("image on disk", "disk.image_allocated"),
    Column("to transfer", "portability.first"),
)

_PHASES = tuple(Column(f"to {name}", "startup.phase", name) for name in STARTUP_MILESTONES[1:])
STARTUP = (
    *_PHASES,
    Column(RESIDUAL, "startup.phase", RESIDUAL),
    Column("ready", "startup.ready"),
    Column("to response", "startup.phase", "response"),
    Column("response", "startup.response"),
)
COST = (
    Column("CPU time", "startup.cpu"),
    Column("of it user", "startup.cpu", "user"),
    Column("of it system", "startup.cpu", "system"),
    Column("of it the engine's daemons", "startup.cpu", "daemon"),
    Column("teardown", "startup.stopped"),
)
MEMORY = (
    Column("PSS", "memory.pss"),
    Column("guest used", "memory.guest_used"),
    Column("overhead", "memory.overhead"),
    Column("cgroup", "memory.cgroup"),
    Column("anon", "memory.cgroup", "anon"),
    Column("file", "memory.cgroup", "file"),
    Column("kernel", "memory.cgroup", "kernel"),
    Column("peak", "memory.cgroup", "peak"),
    Column("engine's daemons, once", "memory.daemon"),
    Column("host delta", "memory.host_delta"),
    Column("one more instance", "memory.marginal"),
    Column("smallest that does", "memory.minimum"),
)


def build_glance(results: Results, workload: str) -> Table | None:
    """The answer as one table: headline figures with their ratios to the reference."""
    columns = choose_glance(results, workload)
    if not columns:
        return None
    rows = [
        Row(
            describe_platform(results, platform, quoted=True),
            tuple(_build_glance_cell(results, platform, workload, each) for each in columns),
            platform,
        )
        for platform in results.first_arms
        if any(outcome.platform == platform and outcome.workload == workload
               for outcome in results.outcomes)
    ]  # fmt: skip
    heads = ("platform", *(column.head for column in columns))
    return Table(f"{quote(workload)} at a glance", heads, tuple(rows))


def choose_glance(results: Results, workload: str) -> list[Column]:
    """The headline columns that were measured, each with its workload.

    Memory is that of a workload that still runs, where there is one, and says whose it is.
    """
    running = find_memory_workload(results, workload)
    other = f", {quote(running)}" if running != workload else say_ended(results, workload)
    columns = [
        replace(each, head=f"{each.head}{other}", workload=running)
        if each.metric == PSS
        else replace(each, workload=workload)
        for each in GLANCE
    ]
    return [each for each in columns if _drop_empty(results, each.workload, [each])]


def _build_glance_cell(results: Results, platform: str, workload: str, column: Column) -> Cell:
    workload = column.workload or workload
    figure = results.find(platform, workload, column.metric)
    if figure is None:
        failed = any(
            outcome.platform == platform and outcome.workload == workload
            for outcome in results.failed
        )
        return Cell("failed", "no figure", "doubt") if failed else Cell(ABSENT)
    if figure.withheld:
        return Cell("withheld", shorten_reason(figure.withheld), "doubt")
    daemon = say_daemon(results, platform, workload) if column.metric == PSS else ""
    text = f"{format_figure(figure)}{daemon}"
    if platform == results.reference:
        return Cell(text, "reference")
    ratio = results.find_ratio(platform, workload, column.metric)
    if refusal := results.find_refusal(platform, workload, column.metric):
        return Cell(text, f"no ratio: {shorten_reason(refusal)}", "doubt")
    return Cell(text, _say_ratio(ratio), find_tone(ratio))


def _say_ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    if ratio.withheld:
        return f"no verdict: {shorten_reason(ratio.withheld)}"
    return f"{format_ratio(ratio)}, {ratio.verdict}"


def find_tone(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    tones = {"faster": "better", "smaller": "better", "slower": "worse", "larger": "worse"}
    return tones.get(ratio.verdict, "")


def build_matrix(
    results: Results, workload: str, caption: str, columns: Sequence[Column]
) -> Table | None:
    """Platforms by ``columns``; columns without any figure are left out, missing ones show –."""
    kept = _drop_empty(results, workload, columns)
    rows = []
    for platform in results.platforms:
        found = [results.find(platform, workload, each.metric, each.phase) for each in kept]
        if any(found):
            head = describe_platform(results, platform, quoted=True)
            rows.append(Row(head, tuple(map(build_cell, found)), platform))
    if not rows:
        return None
    return Table(caption, ("platform", *(each.head for each in kept)), tuple(rows))


def build_cell(figure: Figure | None) -> Cell:
    """A figure; one that is no headline says so."""
    if figure is None:
        return Cell(ABSENT)
    median, interval = split_figure(figure)
    if figure.withheld:
        note = f"{interval}; {shorten_reason(figure.withheld)}".removeprefix("; ")
        return Cell(median, note, "doubt")
    return Cell(median, interval)


def _drop_empty(results: Results, workload: str, columns: Iterable[Column]) -> list[Column]:
    return [
        each
        for each in columns
        if any(results.find(name, workload, each.metric, each.phase) for name in results.platforms)
    ]


def build_packings(results: Results, workload: str, metrics: Sequence[str]) -> Table | None:
    """Bytes by packing: one row per platform and packing, one column per metric."""
    rows = []
    for platform in results.first_arms:
        phases = dict.fromkeys(
            phase
            for name, each, metric, phase in results.figures
            if name == platform and each == workload and metric in metrics and phase
        )
        for phase in sorted(phases):
            found = [results.find(platform, workload, metric, phase) for metric in metrics]
            head = describe_platform(results, platform, quoted=True)
            cells = (Cell(quote(phase), PACKINGS.get(phase, "")), *map(build_cell, found))
            rows.append(Row(head, cells, platform))
    if not rows:
        return None
    heads = tuple(METRICS[metric].name.replace(".", ", ").replace("_", " ") for metric in metrics)
    area = METRICS[metrics[0]].area
    caption = f"{quote(results.images[workload])} by packing: {area}"
    return Table(caption, ("platform", "packing", *heads), tuple(rows))
