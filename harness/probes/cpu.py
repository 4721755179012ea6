"""Host CPU time of everything that serves an instance: its groups, and its engine's daemons.

The groups are the kernel's exact account. What works for the instance outside of them (a daemon,
a shim that a daemon started) is the daemon's own account over the same span.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Daemon, Instance
from harness.process import read_cpu_clocks

_NOTHING = cgroup.CpuTime(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class CpuAccount:
    """What was used before the start, so that what the start used can be told."""

    groups: Sequence[Path]
    before: cgroup.CpuTime | None
    daemon: Daemon | None
    daemon_before: float | None

    def read(self, instance: Instance) -> dict[str, float]:
        """CPU seconds since the account was opened, by phase: ``""`` is all of it.

        ``daemon`` is the share of an engine's daemons, and part of the total; where it cannot be
        told, neither can the total, and nothing is returned. ``user`` and ``system`` are known
        only where everything is in the instance's groups.
        """
        own = self._read_own(instance)
        if self.daemon is None or not own:
            return own
        after = self.daemon.read_cpu()
        if after is None or self.daemon_before is None:
            return {}
        share = after - self.daemon_before
        return {"": own[""] + share, "daemon": share}

    def _find_outside(self, instance: Instance) -> list[Path]:
        """The instance's groups, if they do not lie below those that the harness made for it."""
        return [
            each
            for each in instance.cgroups
            if not any(each.is_relative_to(group) for group in self.groups)
        ]

    def _read_own(self, instance: Instance) -> dict[str, float]:
        """By the groups if the instance lives in them, else by its processes' CPU clocks.

        A daemon of the host may have made its group elsewhere, for it alone: then all that was
        used in there was used since.
        """
        if outside := self._find_outside(instance):
            used = cgroup.read_cpu_time(outside)
            return used.since(_NOTHING) if used is not None else {}
        after = cgroup.read_cpu_time(self.groups) if instance.cgroups else None
        if self.before is not None and after is not None:
            return after.since(self.before)
        processes = instance.processes()
        if processes.proc != Path("/proc"):
            return {}
        total = read_cpu_clocks(processes.inside)
        return {} if total is None else {"": total}


def open_account(groups: Sequence[Path], daemon: Daemon | None) -> CpuAccount:
    """Read what was used up to now."""
    before = cgroup.read_cpu_time(groups)
    return CpuAccount(groups, before, daemon, daemon.read_cpu() if daemon else None)
