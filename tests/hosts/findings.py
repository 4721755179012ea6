"""What a platform did on a host: it ran, was left out and why, or failed; and the table of it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from harness.images.workshop import write_text
from harness.model import NO_ACCELERATOR, Outcome, base_platform
from harness.store import read_journal, read_manifest

Verdict = Literal["ran", "left out", "failed"]

_PANIC = "the guest's kernel panicked"
"""An emulated processor, below a guest or below its host's KVM, loses a kernel now and then; that
is told, and is no fault of the platform's as long as others ran."""
_WORDS = {"kvm": "KVM", "tcg": "emulated"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One platform on one host. ``how`` is what its guests ran on; ``reason`` why it did not."""

    host: str
    platform: str
    verdict: Verdict
    how: str = ""
    reason: str = ""

    @property
    def what(self) -> str:
        return self.platform

    @property
    def words(self) -> str:
        """As it stands in the table, without its reason."""
        return f"{self.verdict}, {self.how}" if self.how else self.verdict


@dataclass(frozen=True, slots=True)
class Check:
    """A command, or another promise, on one host. ``reason`` is why it failed or was not tried."""

    host: str
    what: str
    verdict: Verdict
    reason: str = ""

    @property
    def words(self) -> str:
        return self.verdict


Result = Finding | Check


@dataclass(slots=True)
class Book:
    """The newest results of every host, kept in a file as they come: a host that is not visited
    this time keeps what it showed, and an end in the middle loses nothing.

    Format: ``{"version": 1, "rows": [[commit, kind, {…}], …]}``, fields of a `Finding` or `Check`.
    """

    path: Path
    commit: str
    rows: list[tuple[str, Result]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, commit: str) -> "Book":
        """What is in the file, or an empty book."""
        book = cls(path, commit)
        if path.exists():
            kinds = {"Finding": Finding, "Check": Check}
            rows = json.loads(path.read_text())["rows"]
            book.rows = [(commit, kinds[kind](**fields)) for commit, kind, fields in rows]
        return book

    def add(self, result: Result) -> None:
        """Put a result in the place of an older one of the same thing on the same host."""
        place = (result.host, result.what)
        kept = [each for each in self.rows if (each[1].host, each[1].what) != place]
        self.rows = [*kept, (self.commit, result)]
        rows = [[commit, type(each).__name__, asdict(each)] for commit, each in self.rows]
        write_text(self.path, json.dumps({"version": 1, "rows": rows}, indent=1))

    def format(self) -> str:
        """Both tables, and what was tried of which commit."""
        commits = {each.host: commit for commit, each in self.rows}
        tried = (f"- {host}: {commit}" for host, commit in commits.items())
        results = [each for _, each in self.rows]
        tables = (
            f"## {title}\n\n{format_table(chosen)}"
            for title, kind in (("Platforms", Finding), ("Commands and promises", Check))
            if (chosen := [each for each in results if isinstance(each, kind)])
        )
        return "\n".join([*tables, "## Commits that were tried", "", *tried, ""])


def read_findings(host: str, folder: Path) -> list[Finding]:
    """What became of every platform of the run in ``folder``, in the order of its plan.

    A platform that is left out with some workloads only counts by what it ran.
    """
    manifest = read_manifest(folder)
    plan, lines = manifest["plan"], manifest["left_out"]
    assert isinstance(plan, Mapping) and isinstance(lines, Sequence)
    reasons = dict(str(line).split(": ", 1) for line in lines)
    outcomes = read_journal(folder / "journal.jsonl")
    return [
        _judge(host, name, [each for each in outcomes if _is_of(each, name)], reasons.get(name))
        for name in plan["platforms"]
    ]


def _is_of(outcome: Outcome, platform: str) -> bool:
    return base_platform(outcome.platform) == platform


def _judge(host: str, name: str, outcomes: Sequence[Outcome], reason: str | None) -> Finding:
    failed = [each for each in outcomes if each.status == "failed"]
    panicked = [each for each in failed if _PANIC in str(each.error)]
    for each in failed:
        if each not in panicked or len(panicked) == len(outcomes):
            return Finding(host, name, "failed", reason=f"{each.workload}: {each.error}")
    if outcomes:
        accelerators = {each.accelerator for each in outcomes} - {NO_ACCELERATOR}
        how = " and ".join(sorted(_WORDS.get(each, each) for each in accelerators))
        lost = f", {len(panicked)} of {len(outcomes)} guests panicked" if panicked else ""
        return Finding(host, name, "ran", how + lost)
    if not reason:
        return Finding(host, name, "failed", reason="no trial, and no word of why")
    return Finding(host, name, "left out", reason=reason)


def format_table(results: Iterable[Result]) -> str:
    """Markdown: a row for each platform or check, a column for each host, the reasons beneath."""
    rows = list(results)
    hosts = list(dict.fromkeys(each.host for each in rows))
    things = list(dict.fromkeys(each.what for each in rows))
    found = {(each.host, each.what): each for each in rows}
    reasons = list(dict.fromkeys(each.reason for each in rows if each.reason))

    def cell(host: str, thing: str) -> str:
        each = found.get((host, thing))
        if each is None:
            return ""
        return f"{each.words} ({reasons.index(each.reason) + 1})" if each.reason else each.words

    lines = [
        f"| | {' | '.join(hosts)} |",
        f"| --- |{' --- |' * len(hosts)}",
        *(f"| `{name}` | {' | '.join(cell(host, name) for host in hosts)} |" for name in things),
        "",
        *(f"{number}. {' '.join(reason.split())}" for number, reason in enumerate(reasons, 1)),
    ]
    return "\n".join(lines).rstrip() + "\n"
