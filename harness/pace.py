"""How long a run goes on: blocks until its ratios are narrow enough or its time is spent.

Which trial comes where is the plan's alone; this only says where they end. A run that goes on
after an interruption therefore finds the same order, and the same looks.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from harness.model import Outcome
from harness.plan import Plan, ScheduledTrial
from harness.precision import (
    Decision,
    Ending,
    Reason,
    find_last_look,
    find_looks,
    find_next_look,
)

Judge = Callable[[int], Decision]
"""Looks at so many measured blocks, all of them stored."""

Block = tuple[ScheduledTrial, ...]


@dataclass(slots=True)
class Budget:
    """The time of a run, in seconds from now; None for no end.

    What begins has to end in time too, as far as that can be known: by the longest of its kind.
    """

    seconds: float | None
    clock: Callable[[], float] = time.monotonic
    longest: dict[str, float] = field(default_factory=dict)
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    def allows(self, kind: str, likely: float = 0.0) -> bool:
        """Whether one more of a ``kind`` may begin, that is likely to take so many seconds."""
        if self.seconds is None:
            return True
        spent = self.clock() - self._start
        needed = max(self.longest.get(kind, 0.0), likely)
        return spent < self.seconds and spent + needed <= self.seconds

    def watch(self, kind: str, parts: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield the parts of one of a ``kind``, and remember how long they took together."""
        begun = self.clock()
        yield from parts
        self.longest[kind] = max(self.longest.get(kind, 0.0), self.clock() - begun)


@dataclass(slots=True)
class Pace:
    """Where the blocks of a run end. ``judge`` is None where the plan asks for no precision.

    ``told`` hears how many measured blocks there will be, each time that is known better.
    """

    plan: Plan
    budget: Budget
    judge: Judge | None = None
    told: Callable[[int], None] = lambda _: None
    reason: Reason = "blocks"
    blocks: int = 0
    last: Decision | None = None
    undone: list[str] = field(default_factory=list)

    def choose_blocks(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks to run, of those that have trials left, each when the last is stored.

        An empty block was finished before: it is counted and not looked at again.
        """
        for number, block in enumerate(blocks):
            self.blocks = max(0, number - self.plan.warmup)
            if block:
                if reason := self._look():
                    self.reason = reason
                    return
                if not self.budget.allows("block"):
                    self.reason = "budget"
                    return
                yield block
        self.blocks = self.plan.blocks

    def conclude(self) -> Ending:
        """Why the blocks ended; looks once more where the last look was earlier."""
        if self.judge is not None and self.reason in ("blocks", "budget") and self.blocks > 0:
            self.last = self.judge(self.blocks)
            if self._is_confirmed(self.blocks):
                self.reason = "precision"
        last = self.last or Decision(narrow=False)
        return Ending(
            reason=self.reason,
            blocks=self.blocks,
            planned=self.plan.blocks,
            precision=self.plan.precision,
            budget=self.plan.budget,
            widest=last.widest,
            left_out=last.left_out,
            undone=tuple(self.undone),
        )

    def _look(self) -> Reason | None:
        """Why the blocks end here, if this is the place of a look; None to go on."""
        if self.judge is None or self.blocks not in find_looks(self.plan.blocks):
            return None
        self.last = self.judge(self.blocks)
        if self.last.widest is None and not self.last.failed:
            return "nothing"
        if self._is_confirmed(self.blocks):
            return "precision"
        self.told(find_next_look(self.blocks, self.plan.blocks))
        return None

    def _is_confirmed(self, blocks: int) -> bool:
        """Whether the last look, at so many blocks, and the look before it were both narrow."""
        before = find_last_look(blocks)
        if self.judge is None or self.last is None or not self.last.narrow or before is None:
            return False
        at_end = blocks == self.plan.blocks or blocks in find_looks(self.plan.blocks)
        return at_end and self.judge(before).narrow
