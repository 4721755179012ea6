"""The tables of a report as plain data: rows of platforms, cells of figures.

Text may hold code spans between backticks; both templates know how to show them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.analysis.location import find_least_p
from harness.analysis.noise_floor import find_share_interval
from harness.analysis.results import Figure, Ratio, Results
from harness.analysis.wording import (
    ABSENT,
    PACKINGS,
    describe_platform,
    format_figure,
    format_p,
    format_ratio,
    format_share,
    quote,
    split_figure,
    split_ratio,
)
from harness.metrics import METRICS
from harness.model import RESIDUAL, STARTUP_MILESTONES


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. ``note`` is a second, smaller line; ``tone`` is `better`, `worse` or `doubt`."""

    text: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its head (with the platform it belongs to, for its colour) and its cells.

    ``goes_on`` marks a row that belongs to the one above it.
    """

    head: str
    cells: tuple[Cell, ...]
    platform: str = ""
    goes_on: bool = False


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
    """A column of figures: its heading and the metric and phase it shows."""

    head: str
    metric: str
    phase: str = ""


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
    columns = _drop_empty(results, workload, GLANCE)
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


def _build_glance_cell(results: Results, platform: str, workload: str, column: Column) -> Cell:
    figure = results.find(platform, workload, column.metric)
    if figure is None:
        failed = any(
            outcome.platform == platform and outcome.workload == workload
            for outcome in results.failed
        )
        return Cell("failed", "no figure", "doubt") if failed else Cell(ABSENT)
    if figure.withheld:
        return Cell("withheld", figure.withheld, "doubt")
    if platform == results.reference:
        return Cell(format_figure(figure), "reference")
    ratio = results.find_ratio(platform, workload, column.metric)
    return Cell(format_figure(figure), _say_ratio(ratio), _find_tone(ratio))


def _say_ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{format_ratio(ratio)}, {ratio.verdict}"


def _find_tone(ratio: Ratio | None) -> str:
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
        note = f"{interval}; no headline: {figure.withheld}".removeprefix("; ")
        return Cell(median, note, "doubt")
    return Cell(median, interval)


def _drop_empty(results: Results, workload: str, columns: Iterable[Column]) -> list[Column]:
    return [
        each
        for each in columns
        if any(results.find(name, workload, each.metric, each.phase) for name in results.platforms)
    ]


def build_verdicts(results: Results, metrics: Sequence[str]) -> Table | None:
    """Every comparison with the reference: ratio, noise floor, corrected p and verdict."""
    rows = [
        _build_verdict(results, platform, workload, metric)
        for platform, workload, metric in _list_comparisons(results, metrics)
    ]
    if not rows or results.reference is None:
        return None
    caption = f"Ratios to {quote(results.reference)}, paired within blocks"
    head = ("platform", "workload", "metric", "ratio", "pairs", "noise floor", "p", "verdict")
    return Table(caption, head, tuple(rows))


def _list_comparisons(results: Results, metrics: Sequence[str]) -> list[tuple[str, str, str]]:
    """Every comparison that has a ratio, or would have one had not every trial failed."""
    return [
        (platform, workload, metric)
        for workload in results.workloads
        for metric in metrics
        for platform in results.first_arms
        if results.find_ratio(platform, workload, metric)
        or _find_failure(results, platform, workload, metric)
    ]


def _find_failure(results: Results, platform: str, workload: str, metric: str) -> str:
    """Why there is no ratio where all trials of a platform, or of the reference, failed."""
    reference = results.reference or ""
    if platform == reference:
        return ""
    pair = (platform, reference)
    for one, other in (pair, pair[::-1]):
        trials = [
            each for each in results.measured if (each.platform, each.workload) == (one, workload)
        ]
        failed = bool(trials) and all(each.status == "failed" for each in trials)
        if failed and results.find(other, workload, metric):
            return f"all {len(trials)} trials of {quote(one)} failed"
    return ""


def _build_verdict(results: Results, platform: str, workload: str, metric: str) -> Row:
    ratio = results.find_ratio(platform, workload, metric)
    head = describe_platform(results, platform, quoted=True)
    names = (Cell(quote(workload)), Cell(quote(metric)))
    if ratio is None:
        reason = _find_failure(results, platform, workload, metric)
        cells = (*(Cell(ABSENT) for _ in range(4)), Cell("withheld", reason, "doubt"))
        return Row(head, (*names, *cells), platform)
    verdict = Cell(ratio.verdict, tone=_find_tone(ratio))
    if ratio.withheld:
        verdict = Cell("withheld", ratio.withheld, "doubt")
    cells = (
        Cell(*split_ratio(ratio)),
        Cell(str(ratio.n)),
        Cell("no A/A arm" if ratio.floor is None else format_share(ratio.floor)),
        Cell(format_p(ratio.p)),
        verdict,
    )
    return Row(head, (*names, *cells), platform)


def build_tests(results: Results, metrics: Sequence[str]) -> Table | None:
    """The same comparisons by other methods, for those who want to see whether they agree."""
    rows = []
    for platform, workload, metric in _list_comparisons(results, metrics):
        ratio = results.find_ratio(platform, workload, metric)
        if ratio is None or ratio.median != ratio.median:
            continue
        shift = replace(ratio, median=ratio.shift, low=ratio.shift_low, high=ratio.shift_high)
        cells = (
            Cell(quote(workload)),
            Cell(quote(metric)),
            Cell(*split_ratio(shift)),
            Cell(format_p(ratio.p_permutation), f"least possible {find_least_p(ratio.n):.2g}"),
            Cell(format_p(ratio.p_equivalence)),
            Cell(format_share(ratio.effect)),
        )
        rows.append(Row(describe_platform(results, platform, quoted=True), cells, platform))
    if not rows or results.reference is None:
        return None
    caption = f"The same ratios to {quote(results.reference)} by other methods"
    head = (
        "platform", "workload", "metric", "Hodges–Lehmann ratio", "p by permutation, uncorrected",
        "p of equivalence", "smallest effect",
    )  # fmt: skip
    return Table(caption, head, tuple(rows))


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
    caption = f"{quote(results.images[workload])} by packing"
    return Table(caption, ("platform", "packing", *heads), tuple(rows))


def build_arms(results: Results) -> Table | None:
    """The A/A arms: a platform against itself, which shows what noise alone can do."""
    rows = [
        Row(
            describe_platform(results, platform, quoted=True),
            (
                Cell(quote(workload)),
                Cell(quote(metric)),
                Cell(*split_ratio(ratio)),
                Cell(str(ratio.n)),
                Cell(format_share(ratio.reach)),
                Cell(format_share(ratio.effect)),
                Cell(format_p(ratio.p)),
            ),
            platform,
        )
        for (platform, workload, metric), ratio in results.arms.items()
    ]
    if not rows:
        return None
    head = (
        "arm", "workload", "metric", "ratio to the first arm", "pairs", "noise floor",
        "smallest effect", "p",
    )  # fmt: skip
    note = (
        "The smallest effect is what one comparison sees at 5 % in 80 % of runs like this one, "
        "from the spread of the arms' ratios; a verdict asks for more."
    )
    return Table("The same platform twice (A/A)", head, tuple(rows), note)


def build_alarms(results: Results) -> Table | None:
    """How often the procedure of the verdicts called a platform different from itself."""
    alarms = results.alarms
    if not alarms.compared:
        return None
    counts = (
        ("A/A comparisons, as measured", alarms.called, alarms.compared),
        ("whole tables, arms swapped at random within blocks", alarms.tables, alarms.relabelled),
    )
    rows = tuple(
        Row(name, (Cell(f"{count} of {total}"), Cell(*_split_share(count, total))))
        for name, count, total in counts
    )
    head = ("looked at", "called different", "share")
    note = (
        "The interval of the first row takes its comparisons for independent, which those of one "
        "trial are not. The second counts a table once, however many false differences it holds."
    )
    return Table("How often a platform was called different from itself", head, rows, note)


def _split_share(count: int, total: int) -> tuple[str, str]:
    low, high = find_share_interval(count, total)
    return format_share(count / total), f"{format_share(low)} to {format_share(high)}"
