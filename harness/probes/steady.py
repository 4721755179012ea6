"""Waiting until the host's free memory keeps still, before the cost of instances is read from it.

For seconds after a trial MemAvailable rises by itself, in steps of some MiB: control groups, mounts
and processes that are gone give back what they held when the kernel comes to it. Nothing is dropped
or written to hasten that: it would be the whole host's.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from harness.probes import memory

EVERY_S = 0.25
"""Seconds between two readings."""

READS = 5
"""So many readings in a row, a second's, are compared."""

WITHIN = 1 << 20
"""Bytes within which they lie where memory is steady."""

MOST_S = 10.0
"""Seconds after which it is waited no longer: other work on the host may never let it be."""


@dataclass(frozen=True, slots=True)
class Stillness:
    """How the wait ended: ``spread`` is the highest less the lowest of the last second's readings,
    in bytes."""

    spread: int
    waited_s: float

    @property
    def steady(self) -> bool:
        return self.spread <= WITHIN

    @property
    def drift(self) -> float:
        """The spread in bytes per second."""
        return self.spread / (EVERY_S * (READS - 1))


def wait_steady(
    read: Callable[[], int] = memory.read_available,
    sleep: Callable[[float], None] = time.sleep,
) -> Stillness:
    """Wait until the last readings lie within `WITHIN`, at most `MOST_S`."""
    last = deque([read()], maxlen=READS)
    waited = 0.0
    while True:
        spread = max(last) - min(last)
        if len(last) == READS and (spread <= WITHIN or waited >= MOST_S):
            return Stillness(spread, waited)
        sleep(EVERY_S)
        waited += EVERY_S
        last.append(read())
