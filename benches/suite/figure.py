"""Samples in the form in which asv keeps them, and how many are taken."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from asv_runner.benchmarks.mark import SkipNotImplemented

Figure = Mapping[str, Any]

ROUNDS = "HARNESS_BENCH_ROUNDS"
"""The environment variable that sets the rounds of every benchmark, for a quick look."""


def read_rounds(usual: int) -> int:
    """How many rounds to measure; at least two, or there is no spread."""
    return max(2, int(os.environ.get(ROUNDS, usual)))


def as_figure(samples: Sequence[float]) -> Figure:
    """The samples for asv. None at all is no figure, and not zero."""
    if not samples:
        raise SkipNotImplemented("not measured on this host")
    return {"samples": list(samples), "number": 1}


def divide(samples: Mapping[str, Sequence[float]], name: str, to: str) -> Figure:
    """Ratios of two measures, paired by round; none where one of them was not measured here."""
    if name not in samples or to not in samples:
        return as_figure(())
    return as_figure([a / b for a, b in zip(samples[name], samples[to], strict=True)])
