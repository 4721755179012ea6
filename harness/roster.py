"""The platforms of a run that still take part, and those that it goes on without, with reasons.

One platform's trouble is its own: whatever fails for it before its trials, while something is built
or while it is asked, started or described, leaves it out and no other. Where it was asked for by
name that is an error instead.
"""

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from harness.drivers.base import Driver
from harness.errors import HostError
from harness.handover import Handover
from harness.paths import format_outside
from harness.runner import describe_error, find_remedy, is_expected

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A platform that does not take part, or only without ``part``: «with httpd»."""

    platform: str
    reason: str
    remedy: str | None = None
    part: str = ""

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{' '.join(filter(None, [self.platform, self.part]))}: {self.reason}{remedy}"


@dataclass(slots=True)
class Roster:
    """``told`` is shared by all processes of a run, so that what one leaves out is out for all;
    ``logs`` is where the traces go of what nobody expected; None where nothing is kept."""

    strict: bool
    logs: Path | None
    told: Handover = field(default_factory=Handover)

    @property
    def left_out(self) -> list[LeftOut]:
        """Everything that was left out so far, in its order."""
        found = self.told.get()
        return [LeftOut(**each) for each in found] if isinstance(found, list) else []

    def is_out(self, platform: str) -> bool:
        """Whether a platform takes no part at all."""
        return any(each.platform == platform and not each.part for each in self.left_out)

    def leave_out(self, platform: str, reason: str, remedy: str | None = None) -> None:
        """Go on without a platform; raises HostError where it was asked for by name."""
        if self.strict:
            raise HostError(f"{platform} cannot run here: {reason}", hint=remedy)
        self.note(LeftOut(platform, reason, remedy))

    def note(self, *left_out: LeftOut) -> None:
        """Keep what is left out, by name or not."""
        own = [replace(each, reason=format_outside(each.reason)) for each in left_out]
        self.told.put([asdict(each) for each in (*self.left_out, *own)])

    @contextlib.contextmanager
    def trying(self, platform: str) -> Iterator[None]:
        """What fails in here leaves out the platform. Only an interrupt of the user gets out."""
        try:
            yield
        except Exception as error:
            self.leave_out(platform, describe_error(error), self.find_remedy(platform, error))

    def go_through(
        self, drivers: dict[str, Driver], step: Callable[[str, Driver], Found]
    ) -> dict[str, Found]:
        """What ``step`` gives for each platform. One that it fails for is left out, and no longer
        among ``drivers``; raises HostError where none is left."""
        found: dict[str, Found] = {}
        for name, driver in tuple(drivers.items()):
            with self.trying(name):
                found[name] = step(name, driver)
            if name not in found:
                del drivers[name]
        self.require_any(drivers)
        return found

    def require_any(self, platforms: Iterable[str]) -> None:
        """Raise HostError, with all reasons, where no platform is left."""
        if all(self.is_out(name) for name in platforms):
            reasons = "; ".join(map(str, self.left_out))
            raise HostError("no platform of the plan can run here", hint=reasons or None)

    def find_remedy(self, platform: str, error: BaseException) -> str | None:
        """What mends an error, or shows where it happened if nobody expected it."""
        if isinstance(error, Exception) and is_expected(error):
            return find_remedy(error)
        if self.logs is None:
            return format_rerun(platform)
        return _keep_trace(self.logs, platform, error)


def format_rerun(platform: str) -> str:
    """How to get at the trace of a platform's fault where nothing was kept of it, as the remedy."""
    return f"a fault of the harness: `python -m harness run --platform {platform}` keeps its trace"


def _keep_trace(logs: Path, platform: str, error: BaseException) -> str:
    """Write down where it happened; how to get at it, as the remedy."""
    path = logs / f"left-out-{platform.replace('/', '-')}.log"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)))
        return f"a fault of the harness: {path.parent.name}/{path.name} shows where"
    return "a fault of the harness"
