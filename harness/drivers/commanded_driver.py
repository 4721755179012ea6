"""What drivers share whose instances are started by one command of the host (commanded.py)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from harness import cgroup
from harness.drivers.base import InstanceSpec, Packed, PlainDriver, Toolbox
from harness.drivers.commanded import (
    Command,
    CommandedInstance,
    describe_command,
    find_fault,
    find_program,
    start_commanded_instance,
)
from harness.drivers.rooted import rooted_files, rooted_packings
from harness.images.model import Image
from harness.model import Kind


class CommandedDriver(PlainDriver):
    """A driver has to say its ``program`` and to build the command; the rest may stay."""

    name = ""
    kind: Kind = "container"
    daemon = None
    program = ""

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or self.name

    @property
    def path(self) -> str:
        """Where the program is; its bare name where it is not installed."""
        return find_program(self.program) or self.program

    @property
    def no_network(self) -> str | None:
        return None

    def unavailable(self) -> str | None:
        return find_fault(self.program)

    def files(self, image: Image) -> Sequence[Path]:
        return [Path(self.path), *rooted_files(image, self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return describe_command(self.build_command(spec))

    def start_run(self, _specs: Sequence[InstanceSpec], /) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[CommandedInstance]:
        self.prepare(spec)
        command = self.build_command(spec)
        with start_commanded_instance(spec, command, self.toolbox.starter) as instance:
            yield instance

    def prepare(self, spec: InstanceSpec) -> None:
        """What has to be there before the command: here the limits, for those that set none."""
        if spec.limits:
            cgroup.set_limits(spec.cgroups, spec.memory, spec.cpus, spec.pids)

    def build_command(self, spec: InstanceSpec) -> Command:
        """Pure: how one instance is started."""
        raise NotImplementedError
