"""What an isolation run asks: its tasks, its limits, its hogs and what the host keeps."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["probe", "limits", "containment"]
TASKS: tuple[Task, ...] = ("probe", "limits", "containment")
IMAGE = "tiny"
MIB = 1 << 20

PLATFORMS = ("process", "namespace", "crun", "runc", "gvisor", "podman", "vm-direct")
"""Asked where nobody names platforms; one that cannot run here is left out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What every instance is given, in the same amount on every platform.

    ``memory`` in bytes, ``cpus`` in cores, ``processes`` in tasks, ``disk`` in bytes that may be
    written, ``write`` in bytes per second that go to the disk.
    """

    memory: int = 128 * MIB
    cpus: int = 1
    processes: int = 256
    disk: int = 64 * MIB
    write: int = 16 * MIB


@dataclass(frozen=True, slots=True)
class Reserve:
    """What the host keeps whatever happens: bytes of memory, processes, bytes of disk."""

    memory: int = 1 << 30
    processes: int = 1000
    disk: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Hog:
    """One bounded load: ``bound`` in its own unit (agent/PROTOCOL.md), ``seconds`` of repeating;
    0 is one round."""

    kind: str
    bound: int
    seconds: float = 0.0

    @property
    def word(self) -> str:
        """What the agent is told."""
        return f"{self.kind}:{self.bound}:{round(self.seconds * 1000)}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a hog said at its end: the most that a round reached, how the last one ended, and for
    how long it went on by its own clock, in seconds."""

    most: int
    end: str
    rounds: int
    seconds: float
