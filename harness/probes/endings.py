"""Why a workload was ended before its time: its limits, and tools that its image does not have.

What its groups counted is read while they are there. An engine may take its own away with the
instance, and their counters with them: the host's kernel log still has it then. What happens in a
guest is told by its console and by what the workload printed.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import cgroup
from harness.conditions import find_backing
from harness.drivers.base import UPPER, Instance, InstanceSpec
from harness.errors import TrialError
from harness.isolation.groups import count_refused_forks
from harness.isolation.kernel_log import FORK, KILL
from harness.units import format_seconds, format_size

BY_MEMORY = "memory-limit"
BY_PIDS = "pids-limit"
BY_DISK = "disk-limit"
BY_TIMEOUT = "timeout"

_MISSING = re.compile(r"could not start: exec (?P<tool>.+): (?P<reason>[^:]+)$")
_ENDED = re.compile(r"\bended\b|\bcould not start\b|^not \w+ within\b")
_GUEST_KILL = re.compile(rb"Out of memory: Killed process \d+ \((?P<name>[^)]*)\)")
_FULL = re.compile(r"No space left on device|\bENOSPC\b")
_NO_FORK = re.compile(
    r"(fork|clone|thread).*Resource temporarily unavailable|can't start new thread"
)
_CONSOLE = "console.log"
_LEFT_LEAST = 64 << 10
"""A file system with fewer bytes left is full."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of an end, apart from the instance's own groups and folder: what the workload
    ``printed``, and the host kernel's own words about its groups. ``late`` says that the time for
    the workload was over."""

    printed: str = ""
    log: Sequence[str] = ()
    late: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """A failure explained. ``by`` is the limit that ended the workload, empty for none."""

    error: TrialError
    by: str = ""


def read_printed(instance: Instance | None) -> str:
    """What the workload has printed so far, of an instance that came as far."""
    return "" if instance is None else instance.channel.output.decode(errors="replace")


def explain_end(
    error: TrialError, spec: InstanceSpec, kind: str, seen: Evidence | None = None
) -> Ending:
    """The failure of a trial in the words of what ended it, while its groups are still there.

    An error that no limit explains stays.
    """
    seen = seen or Evidence()
    if what := _find_memory_end(spec, kind, seen):
        message = f"{what} {format_size(spec.memory)}: {error.message}"
        return Ending(TrialError(message, hint="raise the plan's `memory`"), BY_MEMORY)
    met = _find_met(spec, kind, seen) if _ENDED.search(error.message) or seen.late else None
    if seen.late:
        message = f"the workload was ended by its timeout of {format_seconds(spec.timeout)}"
        hint = error.hint or 'give it longer, such as `timeout = "5m"`'
        return Ending(
            TrialError(message, hint=f"it {met[1]}: raise the plan's `{met[2]}`" if met else hint),
            BY_TIMEOUT,
        )
    if met:
        by, what, key = met
        message = f"the workload {what}: {error.message}"
        return Ending(TrialError(message, hint=f"raise the plan's `{key}`"), by)
    if found := _MISSING.search(error.message):
        message = (
            f"the workload could not start: exec {found['tool']} in the image {spec.image.name}: "
            f"{found['reason']}"
        )
        return Ending(TrialError(message, hint="name an image that has it, with all its parts"))
    return Ending(error)


def _find_memory_end(spec: InstanceSpec, kind: str, seen: Evidence) -> str | None:
    if kind == "vm":
        name = find_guest_kill(spec.folder / _CONSOLE)
        return f"the guest's kernel killed {name}: out of its" if name else None
    if cgroup.read_oom_kills(spec.cgroups) or any(KILL in line for line in seen.log):
        return "the workload was killed by its memory limit of"
    return None


def _find_met(spec: InstanceSpec, kind: str, seen: Evidence) -> tuple[str, str, str] | None:
    """The limit that the workload met without being killed for it: what it is called, what the
    workload did, and the plan's key."""
    if spec.pids is not None and _has_refused_fork(spec, kind, seen):
        return BY_PIDS, f"met its limit of {spec.pids} processes and threads", "pids"
    if spec.disk is not None and (how := _find_full(spec, kind, seen)):
        return BY_DISK, f"filled its disk quota of {format_size(spec.disk)} ({how})", "disk"
    return None


def _has_refused_fork(spec: InstanceSpec, kind: str, seen: Evidence) -> bool:
    if kind == "vm":  # the count is the guest's: its kernel's words, and the workload's own
        return FORK in _read(spec.folder / _CONSOLE) or bool(_NO_FORK.search(seen.printed))
    refused = count_refused_forks(spec.cgroups)
    return refused > 0 or any(FORK in line for line in seen.log)


def _find_full(spec: InstanceSpec, kind: str, seen: Evidence) -> str | None:
    """How it is known that the quota is used up; None where it is not, or there is none."""
    if not (spec.folder / UPPER if kind == "vm" else find_backing(spec.folder)).exists():
        return None
    said = [line.strip() for line in seen.printed.splitlines() if _FULL.search(line)]
    if said:
        return f"it printed: {said[-1][-200:]}"
    if kind == "vm":
        return None
    left = os.statvfs(spec.folder)
    return "nothing is left of it" if left.f_bavail * left.f_frsize < _LEFT_LEAST else None


def find_guest_kill(console: Path) -> str | None:
    """What a guest's kernel killed for want of memory, by its console's log; None if nothing."""
    try:
        found = _GUEST_KILL.search(console.read_bytes())
    except OSError:
        return None
    return found["name"].decode(errors="replace") if found else None


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
