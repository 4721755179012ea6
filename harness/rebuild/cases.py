"""What is rebuilt: every change, by every way of building, as plain data in a shuffled order."""

import random
from dataclasses import dataclass
from typing import Literal

from harness.model import Kind

Change = Literal["code", "dependency", "base"]
Way = Literal["good", "bad", "rebuild", "update"]

CHANGES: tuple[Change, ...] = ("code", "dependency", "base")
LAYERED: tuple[Way, ...] = ("good", "bad")
"""A container image by a Containerfile whose instructions stand in good or in bad order."""
DISKS: tuple[Way, ...] = ("rebuild", "update")
"""A disk made anew from the cached base tree, or the old disk with the changed files copied in."""

PLATFORMS: dict[Kind, str] = {"container": "buildah", "vm": "disk-image"}
WORKLOAD = "rebuild"
IMAGE = "python"
"""The base image: Debian with Python, on which the application's dependencies are installed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One change, built one way."""

    change: Change
    way: Way

    @property
    def kind(self) -> Kind:
        return "container" if self.way in LAYERED else "vm"

    @property
    def platform(self) -> str:
        return PLATFORMS[self.kind]

    def phase(self, packing: str) -> str:
        """How its rows are named: ``code/good/oci-gzip``."""
        return f"{self.change}/{self.way}/{packing}"


@dataclass(frozen=True, slots=True)
class ScheduledCase:
    """One rebuild to come; ``order`` is its place in its block."""

    block: int
    trial: int
    order: int
    case: Case


def build_cases() -> tuple[Case, ...]:
    """Every change by every way."""
    return tuple(Case(change, way) for change in CHANGES for way in (*LAYERED, *DISKS))


def build_schedule(repeats: int, seed: int) -> tuple[ScheduledCase, ...]:
    """Complete blocks of all cases, each in an order of the seed."""
    cases = build_cases()
    schedule: list[ScheduledCase] = []
    for block in range(repeats):
        shuffled = list(cases)
        random.Random(f"{seed}:{block}").shuffle(shuffled)
        schedule += (
            ScheduledCase(block, block * len(cases) + order, order, case)
            for order, case in enumerate(shuffled)
        )
    return tuple(schedule)
