"""The latency of a victim: echo round trips with its agent, at a steady pace, from the host."""

import statistics
import time
from collections.abc import Callable, Sequence

from harness.drivers.base import Instance

INTERVAL_S = 0.002
LEAST_TRIPS = 100
"""With fewer round trips there is no p99."""


def fill_omitted(trips: Sequence[float], interval: float = INTERVAL_S) -> list[float]:
    """The round trips, and those that a slow answer kept from being sent.

    One question at a time means that an answer of a second hides the hundreds that should have
    been asked meanwhile; each of them would have waited for the rest of it (Gil Tene's
    «coordinated omission»).
    """
    found = []
    for trip in trips:
        found.append(trip)
        left = trip - interval
        while left > 0:
            found.append(left)
            left -= interval
    return found


def find_percentiles(trips: Sequence[float]) -> dict[str, float]:
    """``p50`` and ``p99`` in seconds; empty with fewer than LEAST_TRIPS."""
    if len(trips) < LEAST_TRIPS:
        return {}
    cuts = statistics.quantiles(trips, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def ask_while(victim: Instance, go_on: Callable[[], bool], heard: Callable[[float], None]) -> None:
    """Ask the victim again and again while ``go_on`` says so; ``heard`` is told each round trip."""
    due = time.monotonic()
    while go_on():
        heard(victim.round_trips(1)[0])
        due = max(due + INTERVAL_S, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def ask_for(victim: Instance, seconds: float) -> list[float]:
    """The round trips of so many seconds."""
    until, found = time.monotonic() + seconds, list[float]()
    ask_while(victim, lambda: time.monotonic() < until, found.append)
    return found
