"""When a run with a wanted precision ends: the rule, what a look finds, and the ending in words.

The rule. The *half-width* of a ratio's 95 % interval from ``low`` to ``high`` is
``sqrt(high / low) - 1``: how far, as a share, either end lies from the middle on the logarithm, so
that swapping the two platforms changes nothing. The run looks at all its headline ratios after
the numbers of measured blocks in `LOOKS`, and ends where every half-width is at most the wanted
one at two looks in a row.

Its effect on coverage. To stop as soon as an interval looks narrow favours intervals that are
narrow by luck: with a look after every block from the tenth on, intervals that should hold the
truth in 95 of 100 runs held it in 91 to 94 of simulated ones. Few looks, each at twice the blocks
of the last, and a second look of which half is new keep it between 93 and 97, at most two points
below what the same number of blocks gives when it was fixed beforehand; the simulation is in
tests/unit/test_precision.py. The price is up to twice the blocks. Cf. Chow and Robbins, Annals of
Mathematical Statistics 36, 1965.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.units import format_seconds

LOOKS = (10, 20, 40, 80, 160, 320)
"""Measured blocks after which a run with a wanted precision looks at its ratios."""

CONFIRMED_BLOCKS = LOOKS[1]
"""The fewest blocks that can show a precision: those of the first two looks."""

MOST_BLOCKS = LOOKS[-1]
"""The most blocks of a run with a wanted precision, where the plan does not state others."""

FAILED_SHARE = 0.5
"""A combination that fails in at least this share of its trials is not waited for."""

_UNDONE = re.compile(r"the (?P<kind>.+?) of (?P<platform>\S+) with .+", re.DOTALL)
"""A line of what a budget had no time for, as `work.Work` notes it."""
_SEVERAL = {
    "density series": "density series",
    "search for the smallest memory": "searches for the smallest memory",
}
_NAMED = 4
"""So many platforms are named; more are counted."""

Reason = Literal["blocks", "precision", "budget", "nothing"]
"""Why blocks ended: all were run, ratios were narrow, the time was spent, or a look found no
ratio that could still become narrow."""


@dataclass(frozen=True, slots=True)
class Width:
    """The half-width of one ratio's interval, as a share; None where it has too few pairs for
    one."""

    platform: str
    workload: str
    metric: str
    half_width: float | None

    @property
    def reach(self) -> float:
        """The half-width to compare by: without one it is wider than any."""
        return math.inf if self.half_width is None else self.half_width


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look found. ``widest`` is None where there is no ratio to speak of.

    ``narrow`` is whether every ratio that was asked for is as narrow as wanted; ``left_out`` has a
    line for each combination that was not asked because it keeps failing.
    """

    narrow: bool
    widest: Width | None = None
    left_out: tuple[str, ...] = ()
    failed: bool = False
    """Whether the look itself failed, so that nothing is known."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run's blocks ended, and what it left undone; stored in the manifest.

    ``blocks`` counts the measured ones, of ``planned``. ``precision`` and ``budget`` (seconds) are
    what the plan asked. ``undone`` has a line for each series, search or move that the budget had
    no time for.
    """

    reason: Reason
    blocks: int
    planned: int
    precision: float | None = None
    budget: float | None = None
    widest: Width | None = None
    left_out: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()


def find_half_width(low: float, high: float) -> float:
    """The half-width of a ratio's interval, as a share; both ends are above 0."""
    return math.sqrt(high / low) - 1


def find_looks(most: int) -> tuple[int, ...]:
    """The numbers of measured blocks at which a run of at most ``most`` looks; the last is no look
    but the end."""
    return tuple(each for each in LOOKS if each < most)


def find_next_look(blocks: int, most: int) -> int:
    """The look, or the end, that comes after so many measured blocks."""
    return next((each for each in LOOKS if blocks < each < most), most)


def find_last_look(blocks: int) -> int | None:
    """The look before the one at ``blocks``; None if that is the first."""
    return max((each for each in LOOKS if each < blocks), default=None)


def parse_decision(text: str) -> Decision:
    """A decision from its JSON; raises ValueError or TypeError for anything else."""
    found = json.loads(text)
    widest = found["widest"]
    return Decision(
        bool(found["narrow"]), Width(**widest) if widest else None, tuple(found["left_out"])
    )


# ---- in words --------------------------------------------------------------------------------


def describe_ending(manifest: Mapping[str, object]) -> str:
    """Why the run ended, in sentences; empty where all planned blocks ran and nothing was asked.

    ``manifest`` is that of a result folder; one without an ending, or with a damaged one, says
    nothing.
    """
    found = manifest.get("ending")
    try:
        ending = _read_ending(found) if isinstance(found, Mapping) else None
    except (TypeError, ValueError, KeyError):
        return ""
    return "" if ending is None else format_ending(ending)


def _read_ending(found: Mapping[str, object]) -> Ending:
    """The ending as the manifest has it: JSON types."""
    fields: dict[str, object] = {name: found[name] for name in Ending.__slots__ if name in found}
    widest = fields.get("widest")
    if isinstance(widest, Mapping):
        fields["widest"] = Width(**widest)
    for name in ("left_out", "undone"):
        lines = fields.get(name, ())
        fields[name] = tuple(map(str, lines)) if isinstance(lines, list | tuple) else ()
    return Ending(**fields)  # type: ignore[arg-type]


def format_ending(ending: Ending) -> str:
    """An ending in sentences, for the terminal and the report."""
    sentences = [_say_reason(ending), *_say_left_out(ending)]
    if ending.undone:
        undone = "; ".join(group_undone(ending.undone))
        sentences.append(f"The budget had no time for: {undone}.")
    return " ".join(sentence for sentence in sentences if sentence)


def group_undone(lines: Sequence[str]) -> list[str]:
    """``lines`` of the same kind as one: ``66 storms of 11 platforms, 6 each``."""
    platforms: dict[str, Counter[str]] = {}
    said: dict[str, str] = {}
    for line in lines:
        match = _UNDONE.fullmatch(line)
        kind = match["kind"] if match else line
        said.setdefault(kind, line)
        if match:
            platforms.setdefault(kind, Counter())[match["platform"]] += 1
    return [
        _say_many(kind, counts) if (counts := platforms.get(kind)) and counts.total() > 1 else line
        for kind, line in said.items()
    ]


def _say_many(kind: str, counts: Mapping[str, int]) -> str:
    total, most, least = sum(counts.values()), max(counts.values()), min(counts.values())
    several = _SEVERAL.get(kind, f"{kind}s")
    if most != least:
        parts = ", ".join(f"{count} of {name}" for name, count in counts.items())
        return f"{total} {several} ({parts})"
    named = ", ".join(counts) if len(counts) <= _NAMED else f"{len(counts)} platforms"
    each = f", {most} each" if most > 1 and len(counts) > 1 else ""
    return f"{total} {several} of {named}{each}"


def _say_reason(ending: Ending) -> str:
    count = f"{ending.blocks} block{'' if ending.blocks == 1 else 's'}"
    if ending.reason == "precision":
        return (
            f"The run ended after {count}, when the 95 % interval of every headline ratio was "
            f"within {_share(ending.precision)} of its middle at two looks in a row"
            f"{_say_widest(ending.widest)}."
        )
    if ending.reason == "nothing":
        return (
            f"The run ended after {count}: there was no ratio left whose interval could become "
            f"narrow enough ({_share(ending.precision)} was asked)."
        )
    short = "" if ending.precision is None else _say_short(ending)
    if ending.reason == "budget":
        spent = "" if ending.budget is None else f" of {format_seconds(ending.budget)}"
        of = f" of at most {ending.planned}" if ending.precision else f" of {ending.planned}"
        return f"The run ended after {count}{of}, when its budget{spent} was spent{short}."
    return f"The run ended after {count}, the most it was to have{short}." if short else ""


def _say_short(ending: Ending) -> str:
    return (
        f", before the 95 % interval of every headline ratio was within "
        f"{_share(ending.precision)} of its middle at two looks in a row"
        f"{_say_widest(ending.widest)}"
    )


def _say_widest(widest: Width | None) -> str:
    if widest is None:
        return ""
    reach = (
        "cannot be told from so few pairs"
        if widest.half_width is None
        else f"reaches {_share(widest.half_width)}"
    )
    return (
        f"; the widest, that of `{widest.metric}` of `{widest.platform}` with "
        f"`{widest.workload}`, {reach}"
    )


def _say_left_out(ending: Ending) -> Sequence[str]:
    if not ending.left_out:
        return ()
    return (f"Not waited for, because it keeps failing: {'; '.join(ending.left_out)}.",)


def _share(share: float | None) -> str:
    return "?" if share is None else f"{share * 100:.3g} %"
