"""Instances that a command of the host starts: what OCI runtimes, Podman and the like share.

The command (``crun run …``) is prepared before the clock and stays in the foreground for as long
as its container lives. Where it wants a root folder, the image's overlay is mounted for it inside
the timed window, as for the `namespace` platform. The command and whatever it starts outside the
container live in a group of their own below the instance's: the helpers of the process tree.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroup, lab
from harness.channel import Channel
from harness.drivers.base import InstanceSpec, PlainInstance, Processes, find_address
from harness.drivers.rooted import AGENT, CHANNEL, Layout
from harness.errors import HostError, TrialError
from harness.limits import limit_writing
from harness.model import NO_ACCELERATOR
from harness.process import find_children, run_command
from harness.starter import Starter, build_instance_spec, read_clock, start_starter

FIRST_PROCESS = (AGENT, CHANNEL)
RUN_FOLDER = "/.harness/run"
HELPERS = "helpers"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
"""All that an engine or runtime is told of its surroundings: no bus, no service, no language; a
locale for its helpers, some of which take no other path than one of ASCII without (conmon)."""

_ERROR = re.compile(r"error|fail|fatal|panic|cannot|unable|denied|not permitted|no such", re.I)
_WARNING = re.compile(r"\bWARN\b|\bINFO\b|\bDEBUG\b|level=(warn|info|debug)|^warning:", re.I)
_LOGRUS = re.compile(r'level=\w+ msg="((?:[^"\\]|\\.)*)"')
"""As Docker's, containerd's and runc's loggers write it."""
_LXC = re.compile(r"^lxc-\S+( \S+)? \d+\.\d+ ERROR +\S+ - \S+:\d+ - ")
"""As LXC writes it: program, container, time, level, part, file and line."""

_NANOSECONDS = 1_000_000_000
_STOP_S = 10.0
_CLEANUP_S = 20.0


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one instance, as plain data.

    ``argv[0]`` is an absolute path. ``watches`` are files whose appearance is a milestone
    (`Starter.watch`). ``root`` says whether the command wants the overlay mounted at
    ``Layout.merged``. ``status`` is opened as its descriptor 3. ``group`` is the name, below each
    of the instance's groups, of the container's own group (a pattern, where the engine makes it
    up); None where it makes none, and the container is told from its helpers by its pid
    namespace. ``cleanup`` are commands that remove what a container leaves that did not end by
    itself; they may fail.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    watches: Mapping[str, Path] = field(default_factory=dict)
    root: bool = True
    status: Path | None = None
    group: str | None = None
    cleanup: tuple[tuple[str, ...], ...] = ()
    stays: bool = False
    """Whether ``cleanup`` is needed for a container that has ended by itself, too."""
    log: Path | None = None
    """The command's own log, where it says more there than on its output."""
    find_accelerator: Callable[[Processes], str] | None = None
    """What a sandbox runs on, as its processes tell; for those that run on something."""
    find_upper: Callable[[], Path | None] | None = None
    """Where what the container writes is, if the command has it in a store of its own."""


def build_command_records(
    spec: InstanceSpec, command: Command, helpers: Sequence[Path]
) -> list[tuple[str, str]]:
    """What the starter is told before the clock."""
    layout = Layout.of(spec)
    records = [("mode", "command"), ("output", str(output_of(spec)))]
    if command.root:
        folders = {name: getattr(layout, name) for name in ("lower", "upper", "work", "merged")}
        records += [(name, str(path)) for name, path in folders.items()]
    if command.status is not None:
        records.append(("status", str(command.status)))
    records += [("arg", word) for word in command.argv]
    records += [("env", f"{name}={value}") for name, value in command.environment.items()]
    return records + [("cgroup", str(folder)) for folder in helpers]


def output_of(spec: InstanceSpec) -> Path:
    """Where the command's own words go; kept with the logs of a trial that failed."""
    return spec.folder / "engine.log"


@dataclass(slots=True)
class CommandedInstance(PlainInstance):
    """A container that a command runs. It ends when its agent is told to, and the command then."""

    spec: InstanceSpec
    command: Command
    channel: Channel
    starter: Starter
    stopped: bool = field(default=False, init=False)
    found: str | None = field(default=None, init=False)

    @property
    def milestones(self) -> dict[str, int]:
        return self.channel.milestones

    @property
    def accelerator(self) -> str:
        if self.command.find_accelerator is None or "ready" not in self.milestones:
            return NO_ACCELERATOR
        if self.found is None:
            self.found = self.command.find_accelerator(self.processes())
        return self.found

    @property
    def address(self) -> str | None:
        return find_address(self.spec)

    @property
    def cgroups(self) -> Sequence[Path]:
        if self.command.group is None:
            return self.spec.cgroups
        found = (folder.glob(self.command.group) for folder in self.spec.cgroups)
        return tuple(folder for each in found for folder in sorted(each)[:1])

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self.channel.heard = heard

    def wait_ready(self) -> None:
        deadline = self.milestones["request"] + int(self.spec.timeout * _NANOSECONDS)
        self.channel.wait_for("ready", deadline)

    def ask(self, question: str) -> str:
        return self.channel.ask(question, question)

    def round_trips(self, count: int) -> Sequence[float]:
        return self.channel.round_trips(count)

    def processes(self) -> Processes:
        if self.spec.cgroups:
            everything = set(cgroup.read_processes(self.spec.cgroups))
        else:
            everything = set(find_children(self.starter.pid))
        if self.command.group is not None and self.spec.cgroups:
            inside = set(cgroup.read_processes(self.cgroups))
        else:
            inside = {pid for pid in everything if is_contained(pid)}
        return Processes(tuple(sorted(inside)), tuple(sorted(everything - inside)))

    def files(self) -> Sequence[Path] | None:
        if self.command.find_upper is None:
            return (Layout.of(self.spec).upper,)
        upper = self.command.find_upper()
        return None if upper is None else (upper,)

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        ended = False
        with contextlib.suppress(TrialError):
            self.starter.send("stop")
            ended = self.channel.wait_end(read_clock() + int(_STOP_S * _NANOSECONDS))
        if not ended or self.command.stays:
            for words in self.command.cleanup:
                with contextlib.suppress(HostError):
                    run_command(words, timeout=_CLEANUP_S, check=False,
                                env=self.command.environment, only=True)  # fmt: skip
        cgroup.kill_processes(self.spec.cgroups)


def find_program(name: str) -> str | None:
    """The path of an engine's program, looked for where administrators' tools are too."""
    return shutil.which(name) or shutil.which(name, path=PATH)


def find_fault(program: str) -> str | None:
    """Why an engine that needs root and a program cannot run here; None if it can."""
    if find_program(program) is None:
        return f"{program} is not installed"
    if not lab.is_privileged():
        return f"{program} is measured as root only: run the harness as root"
    return None


def is_contained(pid: int) -> bool:
    """Whether a process lives in a pid namespace other than this one's."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    except OSError:  # it has ended
        return False


@contextlib.contextmanager
def start_commanded_instance(
    spec: InstanceSpec, command: Command, program: Path
) -> Iterator[CommandedInstance]:
    """Prepare, stamp ``request``, start the command; yields at once, with ``request`` known."""
    layout = Layout.of(spec)
    layout.make()
    helpers = cgroup.start_child(spec.cgroups, HELPERS)
    if command.group is None and spec.limits and spec.io is not None:  # the container is in there
        limit_writing(helpers, [spec.folder.parent, spec.folder], spec.io)
    agent_spec = build_instance_spec(spec)
    with start_starter(program) as starter:
        starter.listen(layout.run / "channel", agent_spec)
        starter.prepare(build_command_records(spec, command, helpers))
        for name, path in command.watches.items():
            starter.watch(name, path)
        channel = Channel(
            starter,
            program=Path(command.argv[0]).name,
            evidence=lambda: read_complaint(command.log, output_of(spec)),
        )
        instance = CommandedInstance(spec, command, channel, starter)
        try:
            due = spec.gate()
            channel.milestones["request"] = max(due, read_clock())
            starter.go(due)
            yield instance
        except TrialError:
            channel.keep_output(spec.folder / "output.log")
            raise
        finally:
            instance.stop()


def read_complaint(*logs: Path | None) -> str | None:
    """What a command complained of, by the first of its logs that has a complaint; else the last
    thing that one of them says. None if none says anything."""
    texts = [_read_lines(log) for log in logs if log is not None]
    complaints = (find_complaint(lines) for lines in texts)
    said = [lines[-1] for lines in texts if lines]
    found = next(filter(None, complaints), said[-1] if said else None)
    return found[-300:] if found else None


def _read_lines(log: Path) -> list[str]:
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        return [line for line in lines if line]
    return []


def find_complaint(lines: Sequence[str]) -> str | None:
    """The first error in a command's words, without what goes before it in a log: it is the cause,
    and what follows is what came of it («additional information can be obtained by…»)."""
    for line in lines:
        if not _WARNING.search(line) and _ERROR.search(line):
            kept = _LOGRUS.search(line)
            words = kept[1].replace('\\"', '"') if kept else _LXC.sub("", line)
            return words.strip()
    return None


def describe_command(command: Command) -> Mapping[str, object]:
    """The start as plain values, for --dry-run and the manifest."""
    return {
        "first_process": list(FIRST_PROCESS),
        "argv": list(command.argv),
        "watched": {name: str(path) for name, path in command.watches.items()},
        "root": "overlay on the image's tree, mounted in the timed window" if command.root else
        "the engine's own",
    }  # fmt: skip
