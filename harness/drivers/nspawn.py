"""`systemd-nspawn`: systemd's own container, without registering a machine.

Nothing tells from outside when its sandbox is there, so `created` is not known and the time up to
`init` stands under `residual`. It sets no addresses inside; services are measured on it only with
the lab's own network (`systemd-nspawn/host-net`). Limits are those of the instance's groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from harness import cgroup
from harness.drivers.base import InstanceSpec, Packed, Toolbox
from harness.drivers.commanded import (
    FIRST_PROCESS,
    RUN_FOLDER,
    Command,
    CommandedInstance,
    describe_command,
    find_fault,
    find_program,
    start_commanded_instance,
)
from harness.drivers.rooted import Layout, rooted_files, rooted_packings
from harness.images.model import Image
from harness.model import Kind

PROGRAM = "systemd-nspawn"


class NspawnDriver:
    """systemd-nspawn, with its defaults for capabilities and system calls."""

    name = "systemd-nspawn"
    kind: Kind = "container"
    daemon = None

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or self.name

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        return "systemd-nspawn sets no addresses inside; systemd-nspawn/host-net has the lab's"

    def unavailable(self) -> str | None:
        return find_fault(PROGRAM)

    def files(self, image: Image) -> Sequence[Path]:
        found = find_program(PROGRAM)
        own = [Path(found)] if found else []
        return [*own, *rooted_files(image, self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return describe_command(build_command(spec))

    def start_run(self, _images: Sequence[Image], /) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[CommandedInstance]:
        if spec.limits:
            cgroup.set_limits(spec.cgroups, spec.memory, spec.cpus)
        with start_commanded_instance(spec, build_command(spec), self.toolbox.starter) as instance:
            yield instance


def build_command(spec: InstanceSpec) -> Command:
    """Pure. It leaves folders below /run: it is given an empty one."""
    layout = Layout.of(spec)
    words = [
        find_program(PROGRAM) or PROGRAM,
        *("--quiet", "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no"),
        *("--resolv-conf=off", "--timezone=off", f"--machine={spec.name[-63:]}"),
        *(() if spec.host_network else ("--private-network",)),
        *("-D", str(layout.merged), f"--bind={layout.run}:{RUN_FOLDER}"),
    ]
    return Command((*words, *FIRST_PROCESS), hidden=("/run",))
