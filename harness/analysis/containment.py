"""Whether limits held and what a hog did to its neighbour: tables, sentences and JSON."""

from collections.abc import Mapping
from typing import Any, cast

from harness.analysis.results import Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, format_number, quote
from harness.model import Outcome
from harness.units import format_bytes, format_seconds

LIMITS = {
    "cpu": "CPU quota",
    "memory": "memory",
    "processes": "processes",
    "write": "rate of writing",
    "disk": "disk space",
}
HOGS = {
    "cpu": "CPU hog",
    "processes": "fork bomb",
    "disk": "disk filler",
    "memory": "memory hog",
}
LIMITS_NOTE = (
    "`holds`: something went against the limit and was stopped by it; `not reached`: nothing got "
    "as far; `not set`: the platform, or this host, has none; `not tried`: the host's reserve "
    "forbids it; `not told`: the instance ended and the host says nothing of why. Inside is what "
    "the workload got, outside is the limit as the host's kernel or QEMU's command line has it. "
    "CPU time is judged by the host's account, a guest's by its own; the rate of writing is of "
    "writes past the page cache. A machine's CPUs and memory are its size: what goes against them "
    "is bounded by that, nothing is throttled or killed on the host, and the host pays for the "
    "emulator besides. Its processes are limited in its own kernel."
)
NEIGHBOUR_NOTE = (
    "Echo round trips of an idle victim beside the hog, on the same platform and with the same "
    "limits; p99 beside the hog is the interference figure. An answer that was slow enough to keep "
    "others from being asked counts for them too. Each hog has a bound of its own, and the host "
    "keeps its reserve."
)
_MACHINE_MEANS = {
    "cpu": "its size",
    "memory": "its size",
    "processes": "in its own kernel",
    "disk": "size of its disk",
}
_BEFORE, _AFTER, _NOISY = "before", "after", "noisy-victim"
_METRIC = "isolation.latency"
_TONES = {
    "does not hold": "worse",
    "not set": "doubt",
    "not told": "doubt",
    "not reached": "doubt",
    "not tried": "doubt",
}
Details = Mapping[str, Any]


def find_outcomes(results: Results, key: str) -> dict[str, Outcome]:
    """By platform, in the report's order: the task whose details have ``key``."""
    found = {each.platform: each for each in results.outcomes
             if key in each.details and each.status == "ok"}  # fmt: skip
    return {name: found[name] for name in results.platforms if name in found}


# ---- limits ------------------------------------------------------------------------------------


def find_findings(results: Results) -> dict[str, list[Details]]:
    """By platform: what was found of each limit."""
    return {
        name: cast(list[Details], cast(Details, outcome.details["limits"])["findings"])
        for name, outcome in find_outcomes(results, "limits").items()
    }


def build_limits(results: Results) -> Table | None:
    """Platform × limit: asked, seen inside, seen outside, and whether it holds."""
    rows = []
    for platform, findings in find_findings(results).items():
        machine = results.kinds.get(platform) == "vm"
        for number, finding in enumerate(findings):
            cells = (
                Cell(LIMITS[finding["limit"]]),
                Cell(format_amount(finding["limit"], finding["asked"])),
                Cell(format_amount(finding["limit"], finding["inside"])),
                Cell(
                    format_amount(finding["limit"], finding["outside"]),
                    _MACHINE_MEANS.get(finding["limit"], "") if machine else "",
                ),
                Cell(quote(finding["verdict"]), tone=_TONES.get(finding["verdict"], "")),
            )
            name = describe_platform(results, platform, quoted=True)
            rows.append(Row(name, cells, platform, goes_on=number > 0))
    heads = ("platform", "limit", "asked", "inside", "outside", "verdict")
    return Table("Whether limits hold", heads, tuple(rows), LIMITS_NOTE) if rows else None


def format_amount(limit: str, amount: float | None) -> str:
    """An amount of a limit in the words that suit it."""
    if amount is None:
        return ABSENT
    if limit == "cpu":
        return f"{format_number(amount)} CPUs"
    if limit == "processes":
        return f"{amount:.0f}"
    return format_bytes(amount) + ("/s" if limit == "write" else "")


def build_limit_evidence(results: Results) -> tuple[Table, ...]:
    """The raw words behind every verdict, and the groups' files as the kernel showed them."""
    tables = []
    for platform, outcome in find_outcomes(results, "limits").items():
        details = cast(Details, outcome.details["limits"])
        rows = [Row(LIMITS[each["limit"]], (Cell(_quote_lines(each["evidence"])),))
                for each in details["findings"]]  # fmt: skip
        rows.append(Row("control groups", (Cell(_quote_lines(details["files"])),)))
        name = describe_platform(results, platform, quoted=True)
        tables.append(Table(f"{name}: evidence of its limits", ("limit", "words"), tuple(rows)))
    return tuple(tables)


def _quote_lines(lines: list[str]) -> str:
    return ", ".join(map(quote, lines)) or ABSENT


# ---- neighbours --------------------------------------------------------------------------------


def find_latency(outcome: Outcome) -> dict[tuple[str, str], float]:
    """Seconds by what was at work and ``p50`` or ``p99``."""
    found = {}
    for row in outcome.measurements:
        if row.metric == _METRIC:
            name, _, word = row.phase.partition("/")
            found[name, word] = row.value
    return found


def build_neighbours(results: Results) -> Table | None:
    """Platform × hog: what became of it, and the victim's latency with nothing and beside it."""
    rows = []
    for platform, outcome in find_outcomes(results, "containment").items():
        latency = find_latency(outcome)
        hogs = cast(Details, outcome.details["containment"])["hogs"]
        for number, (kind, hog) in enumerate(hogs.items()):
            cells = (
                Cell(HOGS.get(kind, kind), quote(hog["word"])),
                _build_latency(latency, "p99", kind, noisy=_NOISY in outcome.marks),
                _build_latency(latency, "p50", kind),
                Cell(hog["fate"]),
            )
            name = describe_platform(results, platform, quoted=True)
            rows.append(Row(name, cells, platform, goes_on=number > 0))
    heads = ("platform", "hog", "victim's p99", "victim's p50", "what became of it")
    return Table("A hog beside a victim", heads, tuple(rows), NEIGHBOUR_NOTE) if rows else None


def _build_latency(
    latency: Mapping[tuple[str, str], float], word: str, kind: str, *, noisy: bool = False
) -> Cell:
    alone = [latency[name, word] for name in (_BEFORE, _AFTER) if (name, word) in latency]
    note = f"alone {' and '.join(map(format_seconds, alone))}" if alone else ""
    note += ", noisy" if noisy else ""
    if (kind, word) not in latency:
        return Cell(ABSENT, "too few round trips")
    return Cell(format_seconds(latency[kind, word]), note, "doubt" if noisy else "")


# ---- in words and for scripts ------------------------------------------------------------------


def say_limits(results: Results) -> tuple[str, ...]:
    """How many limits held, and those that did not, by name."""
    every = [(platform, each) for platform, found in find_findings(results).items()
             for each in found]  # fmt: skip
    if not every:
        return ()
    held = sum(each["verdict"] == "holds" for _, each in every)
    sentences = [f"{held} of {len(every)} limits hold."]
    for verdict in ("does not hold", "not set"):
        names = [f"{LIMITS[each['limit']]} on {quote(platform)}"
                 for platform, each in every if each["verdict"] == verdict]  # fmt: skip
        if names:
            sentences.append(f"{verdict.capitalize()}: {', '.join(names)}.")
    return tuple(sentences)


def say_neighbours(results: Results) -> tuple[str, ...]:
    """The largest p99 beside a hog on each platform; a noisy victim is said to be one."""
    sentences = []
    for platform, outcome in find_outcomes(results, "containment").items():
        latency = find_latency(outcome)
        beside = [(value, name) for (name, word), value in latency.items()
                  if word == "p99" and name not in (_BEFORE, _AFTER)]  # fmt: skip
        if not beside or (_BEFORE, "p99") not in latency:
            continue
        worst, kind = max(beside)
        sentence = (
            f"On {quote(platform)} the victim's p99 is {format_seconds(worst)} beside the "
            f"{HOGS.get(kind, kind)}, {format_seconds(latency[_BEFORE, 'p99'])} before"
        )
        noisy = _NOISY in outcome.marks
        sentences.append(sentence + (", but it was noisy without one too." if noisy else "."))
    return tuple(sentences)


def build_documents(results: Results) -> dict[str, object]:
    """Limits and containment for scripts, with their evidence."""
    return {
        "limits": {
            platform: outcome.details["limits"]
            for platform, outcome in find_outcomes(results, "limits").items()
        },
        "containment": {
            platform: {
                **cast(Details, outcome.details["containment"]),
                "latency": {f"{name}/{word}": value
                            for (name, word), value in find_latency(outcome).items()},
                "marks": list(outcome.marks),
            }
            for platform, outcome in find_outcomes(results, "containment").items()
        },
    }  # fmt: skip
