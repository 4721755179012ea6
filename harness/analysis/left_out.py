"""What a run went on without, in a sentence for each reason: nobody is to take it for measured."""

from collections.abc import Mapping

from harness.analysis.results import Results
from harness.analysis.wording import quote

TOPIC = "Left out"
_REASON_MOST = 140
_REMEDY_MOST = 120
_SENTENCES_MOST = 6

Reason = tuple[str, str]
"""Why, and what would mend it; the latter may be empty."""


def say_left_out(results: Results) -> tuple[str, ...]:
    """A sentence for each reason, with the platforms that it keeps out; empty without any.

    Long words are cut here: the report has them whole where it describes the host.
    """
    names: dict[Reason, list[str]] = {}
    for name, reason in _list_reasons(results):
        names.setdefault(reason, []).append(name)
    said = [f"{', '.join(each)}: {_format(*reason)}." for reason, each in names.items()]
    more = len(said) - _SENTENCES_MOST
    if more > 1:
        said = [*said[:_SENTENCES_MOST], f"{more} more reasons are below, with the host."]
    return tuple(said)


def _list_reasons(results: Results) -> list[tuple[str, Reason]]:
    """Every platform that was left out, or was without some workloads, with the reason."""
    told = results.manifest.get("left_out_details")
    if isinstance(told, list):
        return [_read_told(each) for each in told if isinstance(each, Mapping)]
    plan = results.manifest.get("plan")
    platforms = plan.get("platforms") if isinstance(plan, Mapping) else None
    known = set(platforms) if isinstance(platforms, list | tuple) else set()
    lines = results.manifest.get("left_out")
    texts = [each for each in lines if isinstance(each, str)] if isinstance(lines, list) else []
    return [found for text in texts if (found := _parse_line(text, known))]


def _read_told(told: Mapping[object, object]) -> tuple[str, Reason]:
    part = f" {told['part']}" if told.get("part") else ""
    name = f"{quote(str(told.get('platform')))}{part}"
    return name, (str(told.get("reason") or ""), str(told.get("remedy") or ""))


def _parse_line(text: str, known: set[object]) -> tuple[str, Reason] | None:
    """An older run has lines only: ``NAME: REASON``, or ``NAME with WORKLOADS: REASON``."""
    head, _, reason = text.partition(": ")
    name, _, part = head.partition(" ")
    if name not in known or not reason:
        return None
    return f"{quote(name)}{' ' + part if part else ''}", (reason, "")


def _format(reason: str, remedy: str) -> str:
    why = _cut(reason, _REASON_MOST)
    return f"{why} ({_cut(remedy, _REMEDY_MOST)})" if remedy else why


def _cut(text: str, most: int) -> str:
    """One line, cut after a word where it is longer."""
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= most else f"{line[:most].rsplit(' ', 1)[0]} …"
