"""Turn an instance's events into milestones, output, answers and clear failures.

Shared by all drivers: what ``ready`` means and how a start can fail is the same everywhere.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.drivers.base import Event
from harness.errors import TrialError
from harness.starter import Starter, read_clock
from harness.units import format_seconds

_NANOSECONDS = 1_000_000_000
_ANSWER_S = 10.0
_LAST_WORD_NS = _NANOSECONDS
"""How long a last word may take from a program that has ended."""
_OUTPUT_KEPT = 1 << 20
_REPORT = "3"  # the number of the output that a report is

_MILESTONE_LINES = {
    ("console", "first"): "kernel",
    ("console", "loader"): "loader",
    ("console", "initramfs"): "initramfs",
    ("console", "system"): "system",
    ("console", "init"): "init",
    ("channel", "init"): "init",
    ("channel", "alive"): "init",
    ("channel", "exec"): "exec",
    ("channel", "ready"): "ready",
    ("launch", "created"): "created",
    ("launch", "started"): "started",
}


@dataclass(slots=True)
class Channel:
    """The events of one instance. ``wake`` is a descriptor that interrupts every wait.

    ``ended`` is called when ``wake`` is readable and says why the instance is gone, or None.
    ``program`` is what the starter runs and whose end is the instance's; ``evidence`` is asked for
    what it printed when it ended too early.
    """

    starter: Starter
    milestones: dict[str, int] = field(default_factory=dict)
    output: bytearray = field(default_factory=bytearray)
    pid: int | None = None
    program: str = "the agent"
    evidence: Callable[[], str | None] = lambda: None
    wake: int | None = None
    ended: Callable[[], str | None] = lambda: None
    exit: str | None = None
    kept: int = _OUTPUT_KEPT
    """How many bytes of output are kept, from the first on."""
    report: bytearray = field(default_factory=bytearray)
    """What the guest's own system said of itself when it was asked to ``report``."""
    challenge: str | None = None
    """What a restored guest has to say back; any other answer is a guest of the past."""
    finished: int | None = None
    """When the program that is the instance ended, on the one clock."""
    how: str = ""
    """How it ended: ``code 137``."""
    heard: Callable[[bytes], None] = lambda _: None
    """Told what the workload prints, as it arrives."""
    reached: Callable[[str], None] = lambda _: None
    """Told of each milestone when it is known."""
    streams: dict[str, bytearray] = field(default_factory=dict)
    """The workload's output by its number, 1 or 2; ``output`` has both, as they came."""

    def wait_for(self, milestone: str, deadline: int) -> None:
        """Wait until ``milestone`` is known; TrialError at the deadline or if it cannot be."""
        while milestone not in self.milestones:
            event = self._next(deadline)
            if event is None:
                raise TrialError(self._describe_timeout(milestone, deadline))
            self._take(event)

    def ask(self, question: str, answer: str, seconds: float = _ANSWER_S) -> str:
        """Send ``question``; the line that starts with ``answer``, without that word."""
        self.starter.send(question)
        deadline = read_clock() + int(seconds * _NANOSECONDS)
        while (event := self._next(deadline)) is not None:
            if event.source == "channel" and event.text.split(" ")[0] == answer:
                return event.text.removeprefix(answer).strip()
            self._take(event, starting=False)
            self._require_program()
        raise TrialError(f"the agent did not answer {question!r} within {seconds:g} s")

    def round_trips(self, count: int) -> list[float]:
        """``count`` echo round trips in seconds, sent and stamped by the starter."""
        self.starter.ping(count)
        deadline = read_clock() + int(_ANSWER_S * _NANOSECONDS)
        found: list[float] = []
        while len(found) < count and (event := self._next(deadline)) is not None:
            if event.source == "launch" and event.text.startswith("rtt "):
                found.append(int(event.text[4:]) / _NANOSECONDS)
            else:
                self._take(event, starting=False)
                self._require_program()
        if len(found) < count:
            raise TrialError(f"the agent echoed {len(found)} of {count} bytes")
        return found

    def wait_end(self, deadline: int) -> bool:
        """Wait for the instance's first process to end; whether it did before ``deadline``."""
        while not self.finished:
            event = self._next(deadline)
            if event is None:
                return False
            self._take(event, starting=False)
        return True

    def wait_exit(self, deadline: int) -> None:
        """Wait until the workload has ended and the last byte it printed is here; TrialError at
        the deadline, and where the instance has ended without a word of it."""
        while self.exit is None:
            last = min(deadline, self.finished + _LAST_WORD_NS) if self.finished else deadline
            event = self._next(last)
            if event is None:
                self._require_program()
                raise TrialError("the workload did not end in time")
            self._take(event, starting=False)

    def take_waiting(self) -> None:
        """Take what has arrived already, without waiting for more."""
        with contextlib.suppress(TrialError):
            while (event := self.starter.next_event(read_clock())) is not None:
                self._take(event, starting=False)

    def keep_output(self, path: Path) -> None:
        """Write what the workload printed to a log, for a trial that failed."""
        with contextlib.suppress(OSError):
            path.write_bytes(self.output)

    def _next(self, deadline: int) -> Event | None:
        event = self.starter.next_event(deadline, self.wake)
        if event is None and read_clock() < deadline:
            raise TrialError(self.ended() or "the instance ended by itself")
        return event

    def _take(self, event: Event, *, starting: bool = True) -> None:
        word, _, rest = event.text.partition(" ")
        if event.source == "console" and word == "boot":
            self.milestones.pop("kernel", None)  # what came before were the firmware's bytes
        name = _MILESTONE_LINES.get((event.source, word))
        if name is not None and (word in ("created", "alive") or not rest):
            self.milestones.setdefault(name, event.stamp)
            self.reached(name)
        if event.source == "launch" and word == "request":
            self.milestones["request"] = event.stamp
        if event.source == "launch" and word in ("running", "created") and rest:
            self.pid = int(rest)
        if event.source == "output":
            if event.text != _REPORT:
                self.heard(event.data)
                stream = self.streams.setdefault(event.text, bytearray())
                stream += event.data[: max(0, _OUTPUT_KEPT - len(stream))]
            kept = self.report if event.text == _REPORT else self.output
            kept += event.data[: max(0, self.kept - len(kept))]
        if event.source == "channel" and word == "exit":
            self.exit = rest
        if event.source == "launch" and word == "ended" and rest.split()[0] == str(self.pid):
            self.finished, self.how = event.stamp, rest.partition(" ")[2]
        problem = self._find_problem(event) if starting else None
        if problem is not None:
            raise TrialError(problem, hint=self._hint())

    def _find_problem(self, event: Event) -> str | None:
        """Why this event means that the start has failed; None if it does not."""
        word, _, rest = event.text.partition(" ")
        if word == "fail":
            where = {"launch": "the container could not be set up", "console": "the guest gave up"}
            return f"{where.get(event.source, 'the workload could not start')}: {rest}"
        if word == "alive" and rest != self.challenge:
            return f"the restored guest answered another challenge: {rest[:40]}"
        if word == "panic" and event.source == "console":
            return f"the guest's kernel panicked: {rest}"
        if "ready" in self.milestones:
            return None
        if self.exit is not None and word == "exit":
            return f"the workload ended with {self.exit} before it was ready"
        if self.finished:
            return self._describe_finish("before the workload was ready")
        return None

    def _require_program(self) -> None:
        if self.finished:
            raise TrialError(self._describe_finish("in the midst of the work"))

    def _describe_finish(self, when: str) -> str:
        how = f"{self.program} ended ({self.how}) {when}"
        return f"{how}: {said}" if (said := self.evidence()) else how

    def _describe_timeout(self, milestone: str, deadline: int) -> str:
        request = self.milestones.get("request", deadline)
        seconds = format_seconds((deadline - request) / _NANOSECONDS)
        last = max(self.milestones, key=lambda name: self.milestones[name], default="request")
        return f"not {milestone} within {seconds}; the last milestone was {last}"

    def _hint(self) -> str | None:
        lines = [line for line in self.output.decode(errors="replace").splitlines() if line.strip()]
        return f"it printed: {lines[-1][:200]}" if lines else None
