"""A started virtual machine: what is read of it, and how it ends."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroup
from harness.certificate import KEY, NONE, Condition, build_document
from harness.channel import Channel
from harness.drivers.base import UPPER, InstanceSpec, Processes, find_address
from harness.drivers.domain_xml import read_conditions
from harness.drivers.libvirt_host import Domain as RunningDomain
from harness.drivers.libvirt_host import parse_last_words
from harness.drivers.storage import Storage
from harness.errors import TrialError
from harness.process import find_children
from harness.starter import Starter, read_clock

_NANOSECONDS = 1_000_000_000
SOCKETS = ("channel", "console")
"""What the starter listens at, in an instance's folder."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one instance; those of its disks are in ``folder`` too."""

    folder: Path
    channel: Path
    console: Path
    console_log: Path
    xml: Path
    qemu_log: Path

    @classmethod
    def of(cls, folder: Path) -> "Layout":
        names = (*SOCKETS, "console.log", "domain.xml", "qemu.log")
        return cls(folder, *(folder / name for name in names))


@dataclass(slots=True)
class VmInstance:
    """A started virtual machine. Ends when its guest powers off, else when QEMU is killed.

    ``grace`` is how long a guest may take to shut itself down, in seconds.
    """

    spec: InstanceSpec
    layout: Layout
    storage: Storage
    accelerator: str
    starter: Starter
    channel: Channel
    domain: RunningDomain
    grace: float
    stopped: bool = field(default=False, init=False)
    ends: dict[str, int] = field(default_factory=dict, init=False)

    @property
    def address(self) -> str | None:
        return find_address(self.spec)

    @property
    def cgroups(self) -> Sequence[Path]:
        """The instance's groups if it lives in them: a daemon's guest does not, and an empty
        group's zero would be a wrong number."""
        return self.spec.cgroups if cgroup.read_processes(self.spec.cgroups) else ()

    @property
    def milestones(self) -> dict[str, int]:
        return self.channel.milestones

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self.channel.heard = heard

    def wait_ready(self) -> None:
        deadline = self.milestones["request"] + int(self.spec.timeout * _NANOSECONDS)
        try:
            self.channel.wait_for("ready", deadline)
        except TrialError as error:
            hint = error.hint or find_remedy(error.message) or self._find_last_words()
            raise TrialError(error.message, hint=hint) from error

    def ask(self, question: str) -> str:
        return self.channel.ask(question, question)

    def round_trips(self, count: int) -> Sequence[float]:
        return self.channel.round_trips(count)

    def processes(self) -> Processes:
        """QEMU is the instance; what else is in its groups (virtiofsd) helps it."""
        found = set(cgroup.read_processes(self.spec.cgroups)) if self.spec.cgroups else set()
        inside = found if self.domain.pid is None else {self.domain.pid}
        for pid in self.domain.helpers:
            found |= {pid, *find_children(pid)}
        helpers = (self.starter.pid, *sorted(found - inside))
        return Processes(tuple(sorted(inside)), helpers, elsewhere=self.domain.elsewhere)

    def files(self) -> Sequence[Path] | None:
        return None if self.domain.pumps else self.storage.own

    def stop(self) -> None:
        """Ask the guest to end; only one that cannot, or does not, is ended by force."""
        if self.stopped:
            return
        self.stopped = True
        if "exec" in self.milestones:
            with contextlib.suppress(TrialError):
                self.starter.send("stop")
                self.domain.wait_end(self.grace)
        self.ends["ended"] = self.domain.shut_down or read_clock()
        if not self.domain.ended.is_set():
            self.domain.kill()
            self.ends["destroyed"] = read_clock()
        else:
            self.ends["released"] = self.domain.released

    def describe_end(self) -> str:
        """Why the domain is gone, for a trial that still needed it."""
        last = next(reversed(self.milestones), "request")
        return f"the virtual machine ended after {last}: {self.domain.end or 'it is gone'}"

    def read_evidence(self) -> Mapping[str, object]:
        """What else is worth keeping of a trial, read at the settled point: what libvirt was told
        of its limits and paths."""
        found = {"disk": self._read_size(), **read_conditions(self.layout.xml.read_text())}
        if self.domain.writing is not None:
            found["io"] = Condition(self.domain.writing, "throttled by QEMU")
        return {KEY: build_document(found)}

    def _read_size(self) -> Condition:
        """A disk that is for what the guest writes alone is a quota; others are the image's."""
        upper = self.layout.folder / UPPER
        if upper.exists() and self.spec.disk is not None:
            return Condition(upper.stat().st_size, "a disk of its own for what it writes")
        return Condition(NONE, "its disk has the image's size" if self.spec.disk else "")

    def _find_last_words(self) -> str | None:
        with contextlib.suppress(OSError):
            text = self.layout.console_log.read_text(errors="replace")
            if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                return f"its console's last line: {lines[-1][:200]}"
            words = parse_last_words(self.layout.qemu_log.read_text(errors="replace"))
            return words and f"QEMU's last words: {words}"
        return None


def find_remedy(message: str) -> str | None:
    """What mends a guest that did not come up, where that is known."""
    if "panicked" in message and "memory" in message:
        return 'give the guest more memory, such as `memory = "128MiB"`'
    return None
