"""Instances that run in a directory tree on this kernel: what `process` and `namespace` share.

The tree is the image's, under an overlay so that it is never written; the starter does the rest.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroup
from harness.channel import Channel
from harness.drivers.base import InstanceSpec, Packed, PlainInstance, Processes, find_address
from harness.errors import TrialError
from harness.images.model import Image
from harness.model import NO_ACCELERATOR
from harness.process import find_children
from harness.starter import Starter, build_instance_spec, read_clock, start_starter

AGENT = "/.harness/agent"
CHANNEL = "/.harness/run/channel"
_NANOSECONDS = 1_000_000_000
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one instance's root file system; all but ``lower`` are its own."""

    lower: Path
    upper: Path
    work: Path
    merged: Path
    run: Path

    @classmethod
    def of(cls, spec: InstanceSpec) -> "Layout":
        folder = spec.folder
        parts = (folder / name for name in ("upper", "work", "merged", "run"))
        return cls(spec.image.tree, *parts)

    def make(self) -> None:
        """Open to all: the upper folder's mode is that of the instance's root, and the user's umask
        has no part in it."""
        for folder in (self.upper, self.work, self.merged, self.run):
            folder.mkdir()
            folder.chmod(0o755)


def build_prepare_records(spec: InstanceSpec, mode: str) -> list[tuple[str, str]]:
    """What the starter is told before the clock: mounts, groups, first process, network."""
    layout = Layout.of(spec)
    records = [
        ("mode", mode),
        ("lower", str(layout.lower)),
        ("upper", str(layout.upper)),
        ("work", str(layout.work)),
        ("merged", str(layout.merged)),
        ("run", str(layout.run)),
        ("arg", AGENT),
        ("arg", CHANNEL),
        *(("cgroup", str(folder)) for folder in spec.cgroups),
    ]
    if mode == "namespace":
        records.append(("hostname", spec.name[-63:]))
        records += [("gain", "1")] if spec.may_gain else []
        if spec.address and spec.bridge:
            records += [
                ("bridge", spec.bridge),
                ("veth", build_link_name(spec.name)),
                ("address", spec.address),
            ]
            if spec.gateway:
                records.append(("gateway", spec.gateway))
    return records


def build_link_name(instance: str) -> str:
    """The host's end of an instance's link: at most 15 characters (IFNAMSIZ)."""
    return f"v{instance[-14:]}"


@dataclass(slots=True)
class RootedInstance(PlainInstance):
    """A started process tree. Ends when the agent ends; its groups are emptied by force."""

    spec: InstanceSpec
    channel: Channel
    starter: Starter
    layout: Layout
    accelerator: str = NO_ACCELERATOR
    on_host: bool = False
    stopped: bool = field(default=False, init=False)

    @property
    def address(self) -> str | None:
        return "127.0.0.1" if self.on_host else find_address(self.spec)

    @property
    def cgroups(self) -> Sequence[Path]:
        return self.spec.cgroups

    @property
    def milestones(self) -> dict[str, int]:
        return self.channel.milestones

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
        helpers = (self.starter.pid,)
        if self.spec.cgroups:
            return Processes(cgroup.read_processes(self.spec.cgroups), helpers)
        return Processes(find_children(self.starter.pid), helpers)

    def files(self) -> Sequence[Path]:
        return (self.layout.upper,)

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        with contextlib.suppress(TrialError):
            self.starter.send("stop")
            self.channel.wait_end(read_clock() + int(_STOP_S * _NANOSECONDS))
        if self.spec.cgroups:
            cgroup.kill_processes(self.spec.cgroups)


@contextlib.contextmanager
def start_rooted_instance(spec: InstanceSpec, mode: str, program: Path) -> Iterator[RootedInstance]:
    """Prepare, stamp ``request``, start; yields after ``created``."""
    layout = Layout.of(spec)
    layout.make()
    agent_spec = build_instance_spec(spec)
    with start_starter(program) as starter:
        starter.listen(layout.run / "channel", agent_spec)
        starter.prepare(build_prepare_records(spec, mode))
        channel = Channel(starter)
        instance = RootedInstance(spec, channel, starter, layout, on_host=mode == "chroot")
        try:
            due = spec.gate()
            channel.milestones["request"] = max(due, read_clock())
            starter.go(due)
            deadline = channel.milestones["request"] + int(spec.timeout * _NANOSECONDS)
            channel.wait_for("created", deadline)
            yield instance
        except TrialError:
            channel.keep_output(spec.folder / "output.log")
            raise
        finally:
            instance.stop()


@contextlib.contextmanager
def start_limited(spec: InstanceSpec, mode: str, program: Path) -> Iterator[RootedInstance]:
    """The same, in groups that have the limits of the spec."""
    if spec.limits:
        cgroup.set_limits(spec.cgroups, spec.memory, spec.cpus, spec.pids)
    with start_rooted_instance(spec, mode, program) as instance:
        yield instance


def rooted_files(image: Image, program: Path) -> list[Path]:
    """Every regular file of the tree, and the programs that start it."""
    found = [path for path in image.tree.rglob("*") if path.is_file() and not path.is_symlink()]
    return [program, *sorted(found)]


def rooted_packings(image: Image) -> list[Packed]:
    """A container needs the unpacked tree; it travels as OCI layers."""
    names = ("tree", "oci-gzip", "oci-zstd")
    return [Packed(name, (image.packings[name].path,)) for name in names if name in image.packings]


def describe_rooted(spec: InstanceSpec, mode: str) -> Mapping[str, object]:
    """The start as plain values, for --dry-run and the manifest."""
    return {
        "first_process": [AGENT, CHANNEL],
        "command": list(spec.command),
        "starter": [f"{key}={value}" for key, value in build_prepare_records(spec, mode)],
    }
