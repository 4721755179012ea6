"""The parity certificate: under which conditions each platform ran a workload, and what differs.

A condition is one dimension of a platform with a workload: its ``value``, which is compared, and
``how`` the platform does it, which is its own mechanism and only shown. Conditions are read from
started instances (`conditions`), kept with every trial and compared here, two platforms at a time.
What is not known is not equal. A ratio of two platforms that differ is refused, unless the plan
says that this is the point: by its key ``differ``, or by a variant's name, such as
``runc/memory=1GiB``.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.model import AA_SUFFIX, Kind, Outcome
from harness.units import format_bytes

DIMENSIONS: Mapping[str, str] = {
    "image": "digest of the root file system",
    "agent": "digest of the first process",
    "command": "what is run",
    "environment": "its environment",
    "user": "whom it runs as",
    "directory": "where it runs",
    "cache": "state of the page cache before the start",
    "cpu-set": "the host's CPUs that it may run on",
    "cpus": "CPU quota of a container, CPUs of a guest",
    "memory": "memory limit of a container, memory of a guest",
    "pids": "how many processes and threads it may have",
    "disk": "how much it may write",
    "io": "how fast it may write",
    "storage": "what its writable layer lies on: the host's disk (`volatile`: never synced to it), "
    "memory, or nothing",
    "network": "bridge, the host's own, or none",
}
"""Dimensions by the name that the plan's ``differ`` takes, with what they are."""

KEY = "conditions"
"""Where the details of a trial have its conditions."""

DIFFER = "differ"
"""Where the manifest has what may differ: ``plan`` (a list), ``platforms`` (a list for each)."""

UNLIMITED = "unlimited"
"""Where that has the dimensions in which this host can limit nothing but machines."""
UNGROUPED = ("cpus", "memory")
"""These, without control groups."""

NONE = "none"
_SIZES = ("memory", "disk")
_OF_AN_IMAGE = ("image",)
_VARIES = "not the same in every trial"
_SHOWN_MOST = 40

Value = str | int | float | None


@dataclass(frozen=True, slots=True)
class Condition:
    """``value`` is compared: a word, bytes, cores; None is not known. ``how`` is only shown."""

    value: Value
    how: str = ""


Conditions = Mapping[str, Condition]
"""By dimension."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A dimension in which two platforms differ, with both values as text."""

    dimension: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.dimension} {self.one} against {self.other}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The conditions of a run by (platform, workload), and what may differ."""

    conditions: Mapping[tuple[str, str], Conditions]
    allowed: frozenset[str] = frozenset()
    stated: Mapping[str, frozenset[str]] | None = None

    def find_differences(self, one: str, other: str, workload: str) -> list[Difference]:
        """Every dimension in which two platforms differ, those that may included; nothing where
        either has no conditions."""
        pair = (self.conditions.get((name, workload)) for name in (one, other))
        first, second = pair
        return find_differences(first, second) if first and second else []

    def find_allowed(self, one: str, other: str) -> frozenset[str]:
        """The dimensions that are the point of comparing these two."""
        stated = self.stated or {}
        return self.allowed | stated.get(one, frozenset()) | stated.get(other, frozenset())

    def find_refusal(self, one: str, other: str, workload: str, *, of_image: bool = False) -> str:
        """Why there is no ratio of two platforms; empty where there is one. The figures
        ``of_image`` are no matter of limits: they only need the same image."""
        allowed = self.find_allowed(one, other)
        refused = [
            each
            for each in self.find_differences(one, other, workload)
            if each.dimension not in allowed and (not of_image or each.dimension in _OF_AN_IMAGE)
        ]
        return f"not alike: {'; '.join(map(str, refused))}" if refused else ""


def find_reference(platforms: Sequence[str], kinds: Mapping[str, Kind]) -> str | None:
    """What the others are compared with: `namespace`, else a container, else what comes first."""
    arms = [name for name in platforms if not name.endswith(AA_SUFFIX)]
    if "namespace" in arms:
        return "namespace"
    containers = [name for name in arms if kinds.get(name) == "container"]
    return next(iter([*containers, *arms]), None)


def find_differences(one: Conditions, other: Conditions) -> list[Difference]:
    """The dimensions in which two platforms differ, or of which one is not known, in order; not
    those that neither has at all."""
    found = []
    for dimension in (name for name in DIMENSIONS if name in one or name in other):
        pair = [each.get(dimension, Condition(None)) for each in (one, other)]
        values = [each.value for each in pair]
        if None in values or values[0] != values[1]:
            texts = [_format_side(dimension, each) for each in pair]
            found.append(Difference(dimension, *texts))
    return found


def format_condition(dimension: str, value: Value) -> str:
    """A value in words, short enough for a table."""
    if value is None:
        return "not known"
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_MOST else f"{value[: _SHOWN_MOST - 1]}…"
    if dimension == "io":
        return f"{format_bytes(value)}/s"
    return format_bytes(value) if dimension in _SIZES else f"{value:g}"


def _format_side(dimension: str, condition: Condition) -> str:
    """A value in words, and why it is not known where that can be said."""
    text = format_condition(dimension, condition.value)
    return f"{text} ({condition.how})" if condition.value is None and condition.how else text


def build_certificate(outcomes: Iterable[Outcome], manifest: Mapping[str, object]) -> Certificate:
    """The certificate of a run, from what its trials have in their details."""
    found: dict[tuple[str, str], list[Conditions]] = {}
    for outcome in outcomes:
        if conditions := parse_conditions(outcome.details.get(KEY)):
            found.setdefault((outcome.platform, outcome.workload), []).append(conditions)
    differ = manifest.get(DIFFER)
    differ = differ if isinstance(differ, Mapping) else {}
    platforms = differ.get("platforms")
    platforms = platforms if isinstance(platforms, Mapping) else {}
    return Certificate(
        {arm: merge_conditions(each) for arm, each in found.items()},
        _read_names(differ.get("plan")),
        {str(name): _read_names(each) for name, each in platforms.items()},
    )


def _read_names(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list | tuple) else frozenset()


def merge_conditions(trials: Sequence[Conditions]) -> Conditions:
    """One platform's conditions over its trials; what they do not agree in is not known."""
    found = {name: [each[name] for each in trials if name in each] for name in DIMENSIONS}
    return {name: merge_condition(seen) for name, seen in found.items() if seen}


def merge_condition(trials: Sequence[Condition]) -> Condition:
    """One dimension over a platform's trials, which all are started in the same way.

    A value that most of them have is theirs, where the others could not be read: an instance that
    is busy does not answer. Two values are none, however rare one of them is.
    """
    known = [each for each in trials if each.value is not None]
    if len({each.value for each in known}) > 1:
        return Condition(None, _VARIES)
    if not known or len(known) == len(trials):
        return trials[0]
    count = f"read in {len(known)} of {len(trials)} trials"
    if 2 * len(known) > len(trials):
        return Condition(known[0].value, "; ".join(filter(None, [known[0].how, count])))
    return Condition(None, f"{count} only")


def parse_conditions(document: object) -> Conditions:
    """Conditions from the JSON of `build_document`; empty for anything else."""
    if not isinstance(document, Mapping):
        return {}
    return {
        str(name): Condition(each.get("value"), str(each.get("how", "")))
        for name, each in document.items()
        if isinstance(each, Mapping)
    }


def build_document(conditions: Conditions) -> dict[str, object]:
    """Conditions in JSON types, in the order of the dimensions."""
    return {
        name: {"value": each.value, **({"how": each.how} if each.how else {})}
        for name in DIMENSIONS
        if (each := conditions.get(name))
    }


def build_report(certificate: Certificate) -> dict[str, object]:
    """The conditions of every platform by workload, for the manifest."""
    report: dict[str, dict[str, object]] = {}
    for (platform, workload), conditions in certificate.conditions.items():
        report.setdefault(workload, {})[platform] = build_document(conditions)
    return dict(report)


def format_words(words: Sequence[str]) -> str:
    """A command in one line that no other command has."""
    return json.dumps(list(words), ensure_ascii=False)


def find_shared(
    certificate: Certificate, platforms: Collection[str], workload: str
) -> tuple[str, ...]:
    """The dimensions that are known and equal on all of ``platforms``."""
    arms = [certificate.conditions[name, workload] for name in platforms]
    return tuple(
        name
        for name in DIMENSIONS
        if len(values := {each.get(name, Condition(None)).value for each in arms}) == 1
        and None not in values
    )
