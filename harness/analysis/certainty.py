"""How sure a run is, in tables: verdicts, the same by other methods, and what noise alone does."""

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.location import find_least_p
from harness.analysis.memory import PSS, say_ended
from harness.analysis.noise_floor import find_share_interval
from harness.analysis.results import Ratio, Results
from harness.analysis.tables import Cell, Row, Table, find_tone
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    format_p,
    format_share,
    quote,
    shorten_reason,
    split_ratio,
)


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
    """Why there is no ratio where the parity certificate refuses it, or where all trials of a
    platform, or of the reference, failed."""
    reference = results.reference or ""
    if platform == reference:
        return ""
    both = results.find(platform, workload, metric) and results.find(reference, workload, metric)
    if both and (refusal := results.find_refusal(platform, workload, metric)):
        return refusal
    pair = (platform, reference)
    for one, other in (pair, pair[::-1]):
        trials = results.find_trials(one, workload)
        failed = bool(trials) and all(each.status == "failed" for each in trials)
        if failed and results.find(other, workload, metric):
            return f"all {len(trials)} trials of {quote(one)} failed"
    return ""


def _build_verdict(results: Results, platform: str, workload: str, metric: str) -> Row:
    ratio = results.find_ratio(platform, workload, metric)
    head = describe_platform(results, platform, quoted=True)
    names = (Cell(quote(workload)), _name_metric(results, workload, metric))
    if ratio is None:
        reason = _find_failure(results, platform, workload, metric)
        cells = (*(Cell(ABSENT) for _ in range(4)), Cell("withheld", reason, "doubt"))
        return Row(head, (*names, *cells), platform)
    verdict = Cell(ratio.verdict, tone=find_tone(ratio))
    if ratio.withheld:
        verdict = Cell("withheld", shorten_reason(ratio.withheld), "doubt")
    cells = (
        Cell(*split_ratio(ratio)),
        Cell(str(ratio.n)),
        Cell("no A/A arm" if ratio.floor is None else format_share(ratio.floor)),
        Cell(format_p(ratio.p)),
        verdict,
    )
    return Row(head, (*names, *cells), platform)


def _name_metric(results: Results, workload: str, metric: str) -> Cell:
    """A metric; one of memory says so where it was read after the workload had ended."""
    return Cell(quote(metric), say_ended(results, workload, "") if metric == PSS else "")


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
            _name_metric(results, workload, metric),
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


def build_arms(results: Results) -> Table | None:
    """The A/A arms: a platform against itself, which shows what noise alone can do."""
    rows = [
        Row(
            describe_platform(results, platform, quoted=True),
            (
                Cell(quote(workload)),
                _name_metric(results, workload, metric),
                _build_arm_ratio(ratio),
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


def _build_arm_ratio(ratio: Ratio) -> Cell:
    text, interval = split_ratio(ratio)
    return (
        Cell(text, shorten_reason(ratio.withheld), "doubt")
        if ratio.withheld
        else Cell(text, interval)
    )


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
