"""What a platform is to the rest of the harness: a driver that starts instances.

Adding a platform is one file with a class that has these methods, and one line in
``harness.drivers.PLATFORMS``.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.images.model import GuestKernel, Image
from harness.model import Kind
from harness.variants import Options

if TYPE_CHECKING:
    from harness.channel import Channel


UPPER = "upper.raw"
"""The disk of a machine's own above a root that is read-only, in its folder: its disk quota."""


def _go_at_once() -> int:
    """A start that waits for nothing else."""
    return 0


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One instance to start, as plain data; everything in it was made before the clock starts.

    ``folder`` is the instance's own scratch folder, empty; the driver puts its upper layer,
    overlay disk and sockets there. ``cgroups`` are the instance's cgroup folders (one per v1
    controller, or one for v2; empty where the host gives none). ``memory`` (bytes) is the guest's
    memory and the container's limit. ``address`` is set where the workload needs a network:
    the instance's address with prefix on the lab's bridge; None means loopback only, or the lab's
    own network where ``host_network`` is set. Without ``limits`` a container gets none.
    ``user`` is ``UID:GID[,GROUP…]``; None is the agent's own, root. ``gate`` is called when all is
    prepared, just before ``request``, and says at which moment of the clock (ns) that is to be: a
    start among many waits there for the others; 0 is now.
    ``pids`` (processes and
    threads), ``disk`` (bytes that may be written) and ``io`` (bytes per second that may be written
    to the disk) are limits as ``memory`` is; None is none.
    """

    name: str
    folder: Path
    image: Image
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: str
    memory: int
    cpus: int = 1
    timeout: float = 60.0
    cgroups: tuple[Path, ...] = ()
    address: str | None = None
    gateway: str | None = None
    bridge: str | None = None
    host_network: bool = False
    limits: bool = True
    directory: str = "/"
    user: str | None = None
    gate: Callable[[], int] = _go_at_once
    pids: int | None = None
    disk: int | None = None
    io: int | None = None

    @property
    def may_gain(self) -> bool:
        """Whether setuid programs and file capabilities have their effect, as engines leave it to
        an image: one that was imported may need them. Those of the harness do without."""
        return self.image.imported


@dataclass(frozen=True, slots=True)
class Event:
    """One line from an instance. ``stamp`` is host CLOCK_MONOTONIC nanoseconds.

    ``source`` is ``channel``, ``console``, ``launch`` (what the starter did) or ``output``.
    """

    stamp: int
    source: str
    text: str
    data: bytes = b""


class Instance(Protocol):
    """A started instance, from ``created`` to ``stopped``."""

    milestones: dict[str, int]
    """``request`` and ``created`` when handed out; grows as ``wait_ready`` sees events."""

    @property
    def accelerator(self) -> str:
        """What it runs on: ``kvm`` or ``tcg``, a sandbox's platform, or ``none``. A sandbox tells
        by its processes, which are looked at when this is first asked after ``ready``; before that
        it is ``none``, so that nothing is read in the timed window."""

    @property
    def channel(self) -> "Channel":
        """What its agent has said, the workload's output too."""

    @property
    def ends(self) -> Mapping[str, int]:
        """Stamps of a teardown in steps, once it is over: ``ended`` (by itself, or given up),
        ``released`` (its manager has cleaned up), ``destroyed`` (it was ended by force)."""

    @property
    def address(self) -> str | None:
        """Where its services are reached from the lab, without prefix; None without a network."""

    @property
    def cgroups(self) -> Sequence[Path]:
        """The groups whose charge is this instance's memory, helpers left out where they can be;
        empty where the kernel keeps no account of it."""

    def listen(self, heard: Callable[[bytes], None]) -> None:
        """Have ``heard`` told what the workload prints, while its start is waited for."""

    def wait_ready(self) -> None:
        """Wait for ``ready`` within the spec's timeout; raises TrialError with the reason."""

    def ask(self, question: str) -> str:
        """Send one line to the agent (``memory``) and return its answer."""

    def round_trips(self, count: int) -> Sequence[float]:
        """``count`` echo round trips over the channel, in seconds, stamped by the starter."""

    def processes(self) -> "Processes":
        """Host process ids that serve this instance now."""

    def read_evidence(self) -> Mapping[str, object]:
        """What else this platform can say of the trial, in JSON types; at the settled point.
        Under ``conditions``: those that only it knows (`certificate.build_document`)."""

    def files(self) -> Sequence[Path] | None:
        """Files and folders that hold what this instance wrote (upper layer, overlay disk); None
        where they cannot be seen from here."""

    def stop(self) -> None:
        """Tear down and return when nothing is left; loses no error. Safe to call twice."""


class PlainInstance:
    """For instances that end in one step and have nothing more to say."""

    __slots__ = ()

    @property
    def ends(self) -> Mapping[str, int]:
        return {}

    def read_evidence(self) -> Mapping[str, object]:
        return {}


@dataclass(frozen=True, slots=True)
class Processes:
    """Host pids of an instance: ``inside`` it (agent, workload, guest), and ``helpers`` of it.

    For a VM the virtual machine monitor is ``inside``, for a sandbox its user-space kernel.
    Helpers are what serves this instance alone (runtime, shim, conmon, gofer). ``proc`` is the
    /proc in which these numbers hold: an engine outside the lab counts by the host's. ``elsewhere``
    are those of another host, of which nothing can be read here.
    """

    inside: tuple[int, ...]
    helpers: tuple[int, ...] = ()
    proc: Path = Path("/proc")
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """Files of the image that a platform needs: ``packing`` is the name METRICS rows carry."""

    packing: str
    paths: tuple[Path, ...]


class Daemon(Protocol):
    """An engine's daemons: one fixed cost, shared by all its instances."""

    def processes(self) -> Processes:
        """The daemons' pids, all of them as ``inside``; nothing that serves one instance."""

    def read_cpu(self) -> float | None:
        """CPU seconds used so far by the daemons and by what they started and reaped, or what
        serves an instance outside its groups (shims); None where that cannot be told."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a driver may use besides the spec: programs built once, and the guest's kernel.

    ``platform`` is the full name of the variant, with ``options`` what it means. ``shared`` holds
    what several platforms of one run use together (a daemon), by a name of the driver's choice.
    """

    starter: Path
    kernel: GuestKernel | None = None
    accelerator: str = "auto"
    connection: str | None = None
    logs: Path | None = None
    scratch: Path | None = None
    """The run's scratch folder; what is put there is gone when the run ends."""
    run_id: str = ""
    platform: str = ""
    options: Options = field(default_factory=Options)
    start_engines: bool = False
    """Whether an engine's daemon is to be one of the run's own, where none is named."""
    docker_host: str | None = None
    shared: dict[str, object] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None
    """Where a driver says what it makes before the trials."""


def list_images(specs: Sequence[InstanceSpec]) -> list[Image]:
    """The images of some instances, each once."""
    return list({spec.image.name: spec.image for spec in specs}.values())


def find_address(spec: InstanceSpec) -> str | None:
    """Where an instance is reached that has just what its spec asks for."""
    if spec.host_network:
        return "127.0.0.1"
    return spec.address.split("/")[0] if spec.address else None


class PlainDriver:
    """For drivers whose instances write to their folders, are limited in the run's own groups, and
    leave the page cache alone."""

    @property
    def own_store(self) -> bool:
        return False

    @property
    def sets_limits(self) -> bool:
        return False

    def list_dropped(self, _image: Image, /) -> Sequence[Path]:
        return ()


class Driver(Protocol):
    """One way of running a workload."""

    name: str
    kind: Kind
    daemon: Daemon | None
    """The engine's daemons, known once ``start_run`` was entered; None for all without."""

    @property
    def no_network(self) -> str | None:
        """Why services on it cannot be reached over the lab's bridge; None if they can.

        Known once ``start_run`` was entered. Workloads that need it are then left out.
        """

    @property
    def own_store(self) -> bool:
        """Whether what an instance writes lies in a store of its engine's, and not in its folder:
        then no quota on the folder holds it back."""

    @property
    def sets_limits(self) -> bool:
        """Whether limits have to be asked of the engine, in groups that nobody else may set one.

        Known once ``start_run`` was entered.
        """

    def list_dropped(self, image: Image, /) -> Sequence[Path]:
        """Those of ``files`` that a start itself drops from the page cache once it has read them:
        no disturbance where they are gone."""

    def unavailable(self) -> str | None:
        """Why this platform cannot run here and the command that mends it; None if it can."""

    def files(self, image: Image) -> Sequence[Path]:
        """Every file whose pages decide cold or warm: image, kernel and programs started."""

    def packed(self, image: Image) -> Sequence[Packed]:
        """The packings of ``image`` that count as this platform's disk and portability."""

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        """Pure: argv, mounts, domain XML, kernel command line, as JSON types (for --dry-run)."""

    def start_run(self, specs: Sequence[InstanceSpec], /) -> AbstractContextManager[None]:
        """What comes once before all trials: a daemon, images loaded into a store; undone on exit.

        ``specs`` has an instance of every workload. Raises HostError where it cannot be had.
        """

    def start_instance(self, spec: InstanceSpec) -> AbstractContextManager[Instance]:
        """Prepare (untimed), stamp ``request``, start, yield after ``created``; stop on exit."""
