"""Why a workload was ended before its time: its limits, and tools that its image does not have."""

import re
from dataclasses import dataclass
from pathlib import Path

from harness import cgroup
from harness.drivers.base import InstanceSpec
from harness.errors import TrialError
from harness.units import format_seconds, format_size

BY_MEMORY = "memory-limit"
BY_TIMEOUT = "timeout"

_MISSING = re.compile(r"could not start: exec (?P<tool>.+): (?P<reason>[^:]+)$")
_GUEST_KILL = re.compile(rb"Out of memory: Killed process \d+ \((?P<name>[^)]*)\)")
_CONSOLE = "console.log"


@dataclass(frozen=True, slots=True)
class Ending:
    """A failure explained. ``by`` is the limit that ended the workload, empty for none."""

    error: TrialError
    by: str = ""


def explain_end(error: TrialError, spec: InstanceSpec, kind: str, *, late: bool) -> Ending:
    """The failure of a trial in the words of what ended it, while its groups are still there.

    ``late`` says that the time for the workload was over. An error that no limit explains stays.
    """
    if kind == "vm":
        if name := find_guest_kill(spec.folder / _CONSOLE):
            return _build_memory_end(f"the guest's kernel killed {name}: out of its", spec, error)
    elif cgroup.read_oom_kills(spec.cgroups):
        return _build_memory_end("the workload was killed by its memory limit of", spec, error)
    if late:
        message = f"the workload was ended by its timeout of {format_seconds(spec.timeout)}"
        hint = error.hint or 'give it longer, such as `timeout = "5m"`'
        return Ending(TrialError(message, hint=hint), BY_TIMEOUT)
    if found := _MISSING.search(error.message):
        message = (
            f"the workload could not start: exec {found['tool']} in the image {spec.image.name}: "
            f"{found['reason']}"
        )
        return Ending(TrialError(message, hint="name an image that has it, with all its parts"))
    return Ending(error)


def _build_memory_end(what: str, spec: InstanceSpec, error: TrialError) -> Ending:
    message = f"{what} {format_size(spec.memory)}: {error.message}"
    return Ending(TrialError(message, hint="raise the plan's `memory`"), BY_MEMORY)


def find_guest_kill(console: Path) -> str | None:
    """What a guest's kernel killed for want of memory, by its console's log; None if nothing."""
    try:
        found = _GUEST_KILL.search(console.read_bytes())
    except OSError:
        return None
    return found["name"].decode(errors="replace") if found else None
