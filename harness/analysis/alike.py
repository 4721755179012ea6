"""The parity certificate in the report: under which conditions platforms ran, and what that means
for their ratios to the reference.
"""

from collections.abc import Sequence

from harness.analysis import isolation, rebuild
from harness.analysis.results import Results, get_list, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_platform, quote
from harness.certificate import (
    DIFFER,
    DIMENSIONS,
    UNLIMITED,
    Certificate,
    Condition,
    find_shared,
    format_condition,
)

SHOWN = ("cpus", "memory", "storage", "network")
"""Dimensions that have a column also where all platforms are alike: each has its own means."""

NOT_RECORDED = (
    "Parity certificate: not recorded. This run does not say under which limits and on which paths "
    "each platform ran, so no ratio could be refused for them."
)
UNGROUPED = (
    "This host gave the run no control groups: containers and processes ran without limits of CPU "
    "and memory, machines with theirs. They are compared all the same."
)
_NOTE = (
    "Read from the started instances. Values are compared; how a platform does it, the smaller "
    "line, is what is measured. A ratio is refused where a value differs, unless that is the "
    "point: by the plan's `differ`, by the platform's name, or for the baseline's network, which "
    "is the host's."
)


def build_sentences(results: Results) -> list[str]:
    """What has to be said where a run has no certificate."""
    if rebuild.is_alone(results) or isolation.is_alone(results):
        return []
    if results.measured and not results.certificate.conditions:
        return [NOT_RECORDED]
    missing = say_missing_groups(results)
    return [UNGROUPED, *([missing] if missing else [])] if is_unlimited(results) else []


def say_missing_groups(results: Results) -> str:
    """Why there were none, and what would give some; empty where the run does not say."""
    why = str(results.manifest.get("cgroups_missing") or "")
    return f"The reason: {why}." if why else ""


def is_unlimited(results: Results) -> bool:
    """Whether the host gave the run no control groups, so that only machines had limits."""
    return bool(list_unlimited(results))


def list_unlimited(results: Results) -> list[str]:
    """The dimensions in which nothing but machines had limits."""
    return [str(name) for name in get_list(get_mapping(results.manifest, DIFFER), UNLIMITED)]


def build_tables(results: Results) -> list[Table]:
    """Platforms × dimensions of each workload, those that are equal everywhere in one sentence."""
    tables = (build_table(results, workload) for workload in results.workloads)
    return [table for table in tables if table]


def build_table(results: Results, workload: str) -> Table | None:
    """The certificate of one workload; None where none was recorded."""
    certificate = results.certificate
    platforms = [name for name in results.first_arms if (name, workload) in certificate.conditions]
    if not platforms:
        return None
    equal = find_shared(certificate, platforms, workload)
    shown = (*SHOWN, *_find_profiled(certificate, platforms, workload))
    columns = [name for name in DIMENSIONS if name not in equal or name in shown]
    rows = [_build_row(results, platform, workload, columns) for platform in platforms]
    head = ("platform", *columns, "ratio")
    note = f"{_say_equal(results, platforms[0], workload, equal)} {_NOTE}".strip()
    return Table(f"{quote(workload)}: parity certificate", head, tuple(rows), note)


def _find_profiled(
    certificate: Certificate, platforms: Sequence[str], workload: str
) -> Sequence[str]:
    """The user, where something is known of what confines it: equal, it may be confined or not."""
    found = (certificate.conditions[name, workload].get("user") for name in platforms)
    return ["user"] if any(each is not None and each.how for each in found) else []


def _build_row(results: Results, platform: str, workload: str, columns: Sequence[str]) -> Row:
    conditions = results.certificate.conditions[platform, workload]
    reference = results.reference or ""
    differing = {
        each.dimension
        for each in results.certificate.find_differences(platform, reference, workload)
    }
    cells = []
    for name in columns:
        found = conditions.get(name, Condition(None))
        doubt = "doubt" if name in differing or found.value is None else ""
        cells.append(Cell(format_condition(name, found.value), found.how, doubt))
    head = describe_platform(results, platform, quoted=True)
    return Row(head, (*cells, _build_verdict(results, platform, workload)), platform)


def _build_verdict(results: Results, platform: str, workload: str) -> Cell:
    """What the certificate means for the ratio."""
    reference = results.reference
    if platform == reference:
        return Cell("reference")
    if reference is None or (reference, workload) not in results.certificate.conditions:
        return Cell(ABSENT)
    found = results.certificate.find_differences(platform, reference, workload)
    if results.certificate.find_refusal(platform, reference, workload):
        allowed = results.certificate.find_allowed(platform, reference)
        refused = ", ".join(each.dimension for each in found if each.dimension not in allowed)
        return Cell("refused", f"not alike in {refused}", "doubt")
    return Cell("given", _say_allowed(results, [each.dimension for each in found], platform))


def _say_allowed(results: Results, differing: Sequence[str], platform: str) -> str:
    """Why there is a ratio though these dimensions differ."""
    stated = (results.certificate.stated or {}).get(platform, frozenset())
    forced = {name for name in list_unlimited(results) if name not in stated}
    reasons = {
        "which is the point": [name for name in differing if name not in forced],
        "for want of control groups": [name for name in differing if name in forced],
    }
    said = [
        f"{', '.join(names)} differ{'s' if len(names) == 1 else ''}, {why}"
        for why, names in reasons.items()
        if names
    ]
    return "; ".join(said) or "all alike"


def _say_equal(results: Results, platform: str, workload: str, equal: Sequence[str]) -> str:
    """The dimensions in which all platforms are the same, with their values."""
    conditions = results.certificate.conditions[platform, workload]
    said = [
        f"{name} {format_condition(name, conditions[name].value)}"
        for name in equal
        if name not in SHOWN
    ]
    return f"The same on all: {'; '.join(said)}." if said else ""
