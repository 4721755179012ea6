"""What running the work costs: the tool's figures, and the host CPU time that they took.

The host's clock and account say how long the work took and what it used; how much was done is the
tool's word. A tool that says it worked for longer than the host saw it run has another clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.drivers.base import Instance, InstanceSpec
from harness.errors import TrialError
from harness.figures import AREA, read_figures
from harness.load import MARK, SATURATED, run_load
from harness.model import Measurement
from harness.probes.cpu import CpuAccount
from harness.starter import read_clock
from harness.workloads import Workload

CLOCK_MARK = "tool-clock"

_NANOSECONDS = 1_000_000_000
_CLOCK_SHARE = 1.01
_CLOCK_S = 0.01
_PER_CPU = {
    f"{AREA}throughput": f"{AREA}per_cpu_second",
    f"{AREA}bandwidth": f"{AREA}bytes_per_cpu_second",
}


@dataclass(frozen=True, slots=True)
class Span:
    """The work from begin to end: host seconds, and host CPU seconds where there is an account."""

    seconds: float
    cpu: float | None


@dataclass(slots=True)
class WorkMeter:
    """Measures the work of one trial. ``marks`` and ``details`` are the trial's own.

    Where the workload ends by itself, the work is all that it does: from `exec`, or from `ready`
    if that comes first. A service's work is its load.
    """

    workload: Workload
    instance: Instance
    account: CpuAccount
    spec: InstanceSpec
    marks: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    used: dict[str, float | None] = field(default_factory=dict, init=False)

    def watch(self) -> None:
        """Read the account at `exec` and `ready`, the moment that they arrive."""
        if self.workload.figures:
            self.instance.channel.reached = self._read_at

    @property
    def _deadline(self) -> int:
        return self.instance.milestones["request"] + int(self.spec.timeout * _NANOSECONDS)

    def is_late(self) -> bool:
        """Whether the workload is still at its work, and the time for it is over."""
        if not self.workload.figures or "exec" not in self.instance.milestones:
            return False
        waiting = "ready" not in self.instance.milestones or not self.workload.load
        return waiting and self.instance.channel.exit is None and read_clock() >= self._deadline

    def _read_at(self, milestone: str) -> None:
        if milestone in ("exec", "ready"):
            self.used[milestone] = self._read_cpu()

    def _read_cpu(self) -> float | None:
        """CPU seconds since the account was opened; None where processes that have ended, or run
        elsewhere, cannot be accounted for."""
        if not self.instance.cgroups and self.instance.accelerator not in ("kvm", "tcg"):
            return None
        return self.account.read(self.instance).get("")

    def measure(self) -> list[Measurement]:
        """Wait for the work's end, or load the service; rows of the figures.

        Raises TrialError where the work fails or what was printed cannot be read.
        """
        if not self.workload.figures:
            return []
        printed: dict[str, str] = {}
        span = self._load(printed) if self.workload.load else self._wait()
        printed.update(self._read_printed())
        found = read_figures(self.workload.figures, printed)
        tool = found.get((f"{AREA}duration", "tool"))
        if tool is not None and tool > span.seconds * _CLOCK_SHARE + _CLOCK_S:
            self.marks.append(CLOCK_MARK)
        return build_rows(found, span)

    def _load(self, printed: dict[str, str]) -> Span:
        before = self._read_cpu()
        load = run_load(self.workload, self.instance.address, self.spec.folder)
        span = Span(load.seconds, subtract(self._read_cpu(), before))
        printed.update(load.printed)
        self.details["load"] = load.describe()
        if load.share > SATURATED:
            self.marks.append(MARK)
        self.instance.channel.take_waiting()
        return span

    def _wait(self) -> Span:
        """Until the workload has ended and its last byte is here."""
        channel, milestones = self.instance.channel, self.instance.milestones
        channel.wait_exit(self._deadline)
        if channel.exit != "0":
            raise TrialError(f"the workload ended with {channel.exit} in the midst of its work")
        if self.workload.ready == "exit":
            first, end, used = "exec", milestones["ready"], self.used.get("ready")
        else:
            first, end, used = "ready", read_clock(), self._read_cpu()
        seconds = (end - milestones[first]) / _NANOSECONDS
        return Span(seconds, subtract(used, self.used.get(first)))

    def _read_printed(self) -> dict[str, str]:
        streams = self.instance.channel.streams
        numbers = {"output": "1", "errors": "2"}
        return {
            name: streams.get(number, b"").decode(errors="replace")
            for name, number in numbers.items()
        }


def subtract(after: float | None, before: float | None) -> float | None:
    """The difference of two readings, where there are two."""
    return None if after is None or before is None else after - before


def build_rows(found: Mapping[tuple[str, str], float], span: Span) -> list[Measurement]:
    """The figures, how long the work took, what it used, and the work for each CPU second.

    The last is left out where the workload does several things one after the other, and where
    nothing was accounted: nothing is known of it then.
    """
    rows = [Measurement(metric, value, phase) for (metric, phase), value in found.items()]
    rows.append(Measurement(f"{AREA}duration", span.seconds))
    if not span.cpu:
        return rows
    rows.append(Measurement(f"{AREA}cpu", span.cpu))
    seconds = found.get((f"{AREA}duration", "tool"), span.seconds)
    for metric, derived in _PER_CPU.items():
        rates = [(phase, value) for (name, phase), value in found.items() if name == metric]
        if len(rates) == 1:
            phase, rate = rates[0]
            rows.append(Measurement(derived, rate * seconds / span.cpu, phase))
    return rows
