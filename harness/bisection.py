"""A bisection over sizes where luck has a say: which is the smallest one that is enough?

Near the edge the same size is enough for one start and too little for the next; so a size is
enough only if two of at most three starts get ready.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import TrialError
from harness.units import format_bytes

STARTS_NEEDED = 2
"""So many starts with one size have to agree: of at most three, as a start has two ends only."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search looks, in bytes: at multiples of ``grain`` below ``most``.

    It ends where too little and enough are ``grain`` apart, or nearer than the share ``ratio``.
    """

    least: int
    most: int
    grain: int
    ratio: float = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """One start: ``seconds`` from its request until it was ready or had failed."""

    memory: int
    ready: bool
    reason: str | None
    seconds: float


@dataclass(slots=True)
class Search:
    """A bisection over sizes. ``attempt`` makes one start; ``steps`` keeps them all."""

    attempt: Callable[[int], Step]
    bounds: Bounds
    steps: list[Step] = field(default_factory=list)

    def find(self) -> int:
        """The smallest size that is enough; TrialError where even the largest is not."""
        low, high = self.bounds.least, self.bounds.most
        if not self._is_enough(high):
            said = next(step.reason for step in reversed(self.steps) if not step.ready)
            raise TrialError(
                f"not ready with the plan's {format_bytes(high)}: {said}",
                hint="give the plan more `memory`",
            )
        while (middle := self._find_middle(low, high)) is not None:
            if self._is_enough(middle):
                high = middle
            else:
                low = middle
        if low == self.bounds.least < high and self._is_enough(low):
            high = low
        self._look_for_holes(high)
        return high

    def _find_middle(self, low: int, high: int) -> int | None:
        """A size halfway by ratio; None where the two are near enough."""
        grain = self.bounds.grain
        if high - low <= grain or high < low * (1 + self.bounds.ratio):
            return None
        middle = round(math.sqrt(low * high) / grain) * grain
        return max(low + grain, min(middle, high - grain))

    def _is_enough(self, memory: int) -> bool:
        ends = Counter[bool]()
        while max(ends.values(), default=0) < STARTS_NEEDED:
            ends[self._start(memory)] += 1
        return ends[True] > ends[False]

    def _look_for_holes(self, found: int) -> None:
        """One start each with half and with twice as much, which bisection may not have seen."""
        grain = self.bounds.grain
        tried = {step.memory for step in self.steps}
        for memory in (found // 2 // grain * grain, found * 2):
            if self.bounds.least <= memory < self.bounds.most and memory not in tried:
                self._start(memory)

    def _start(self, memory: int) -> bool:
        self.steps.append(self.attempt(memory))
        return self.steps[-1].ready


def describe_steps(steps: Sequence[Step], found: int) -> Mapping[str, object]:
    """What the steps say beyond the result: how sure it is, and where memory alone did not decide.

    ``starts`` are those with the result's size; ``undecided`` sizes are those whose starts ended
    differently, ``holes`` those that failed although some smaller size was enough for a start.
    """
    ready = {step.memory for step in steps if step.ready}
    failed = {step.memory for step in steps if not step.ready}
    return {
        "starts": sum(step.memory == found for step in steps),
        "ready": sum(step.memory == found and step.ready for step in steps),
        "too_little": find_too_little(steps, found),
        "undecided": sorted(ready & failed),
        "holes": sorted(size for size in failed - ready if size > min(ready)),
    }


def find_too_little(steps: Sequence[Step], found: int) -> int | None:
    """The largest size below ``found`` with which no start got ready; None if all did."""
    ready = {step.memory for step in steps if step.ready}
    failed = {step.memory for step in steps if not step.ready}
    return max((size for size in failed - ready if size < found), default=None)
