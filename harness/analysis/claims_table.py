"""The claims and what this run says of them, as a table with links to the evidence."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from harness.analysis.answer import find_workload
from harness.analysis.claim_list import Claim
from harness.analysis.claims import NOT_MEASURED, Finding, decide, say_rule
from harness.analysis.elsewhere import Evidence
from harness.analysis.results import Results
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import ABSENT, describe_accelerator, quote
from harness.metrics import METRICS

_HEAD = ("claim", "hypothesis", "verdict", "measured", "decided by")
_TONES = {"supported": "better", "refuted": "worse", "withheld": "doubt"}
_SURE = ("supported", "refuted", "equivalent")
_EMULATED = describe_accelerator("tcg")
_PLACES = {"kernel": "isolation", "calls": "isolation", "bases": "bases"}


def build_claims(
    results: Results,
    claims: Sequence[Claim],
    chapters: Collection[str],
    others: Sequence[Evidence] = (),
) -> Table | None:
    """One row a claim; ``chapters`` are the anchors that a link may lead to.

    What the run did not measure is asked of ``others``, in their order.
    """
    if results.reference is None or not claims:
        return None
    rows = tuple(_build_row(_decide(results, each, others), each, chapters) for each in claims)
    caption = f"Claims, for {quote(find_workload(results))} on this host"
    return Table(caption, _HEAD, rows, say_rule())


def _decide(results: Results, claim: Claim, others: Sequence[Evidence]) -> Finding:
    own = decide(results, claim)
    if own.verdict != NOT_MEASURED:
        return own
    for other in others:
        found = decide(other.results, claim)
        if found.verdict != NOT_MEASURED:
            run = quote(str(other.results.manifest["run_id"]))
            return replace(found, note=f"{found.note}. In run {run}")
    return own


def _build_row(finding: Finding, claim: Claim, chapters: Collection[str]) -> Row:
    anchor = find_place(claim)
    shown = anchor if anchor in chapters and finding.verdict != NOT_MEASURED else ""
    by = quote(claim.metric) if claim.metric else "boot id and host processes"
    cells = (
        Cell(_flatten(claim.hypothesis)),
        _build_verdict(finding, claim),
        Cell(finding.figure or ABSENT, finding.note),
        Cell(by, anchor=shown),
    )
    return Row(_flatten(claim.claim), cells)


def _build_verdict(finding: Finding, claim: Claim) -> Cell:
    """The verdict; with an emulated side it says so, and of what emulation changes it holds on
    this host only and is in no colour."""
    word = finding.verdict
    if not finding.emulated or word == "withheld":
        return Cell(word, tone=_TONES.get(word, ""))
    if word in _SURE and is_changed_by_emulation(claim.metric):
        return Cell(f"{word} on this host only", _EMULATED, "doubt")
    return Cell(word, _EMULATED, _TONES.get(word, ""))


def is_changed_by_emulation(metric: str) -> bool:
    """Whether a guest in software has another figure than under hardware virtualisation: time,
    rates, CPU time and memory have, bytes on disk or on the way and system calls have not."""
    known = METRICS.get(metric)
    return known is not None and (known.unit in ("s", "1/s", "B/s") or known.area == "memory")


def find_place(claim: Claim) -> str:
    """The chapter that has the evidence."""
    return _PLACES.get(claim.by) or METRICS[claim.metric].area


def _flatten(text: str) -> str:
    return " ".join(text.split())
