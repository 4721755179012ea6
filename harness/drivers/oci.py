"""`crun`, `runc` and `gvisor`: OCI runtimes, started by their own command line on a bundle.

One class for all: they take the same words. The bundle is made before the clock (oci_bundle.py);
`RUNTIME run` is what is timed, with the overlay of its root.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.base import InstanceSpec, Packed, Toolbox
from harness.drivers.commanded import (
    Command,
    CommandedInstance,
    describe_command,
    find_fault,
    find_program,
    start_commanded_instance,
)
from harness.drivers.oci_bundle import GROUP, build_config
from harness.drivers.rooted import rooted_files, rooted_packings
from harness.drivers.runsc import build_socket_option, find_netstack_fault
from harness.drivers.seccomp import find_filter_fault
from harness.images.model import Image
from harness.model import Kind


@dataclass(frozen=True, slots=True)
class Runtime:
    """What differs between OCI runtimes: the program, its own options, and its state's file."""

    program: str
    options: tuple[str, ...] = ()
    state: str = "{id}/state.json"


class OciDriver:
    """What all OCI runtimes share."""

    name = ""
    kind: Kind = "container"
    daemon = None
    runtime: Runtime

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or self.name

    @property
    def no_network(self) -> str | None:
        return None

    def unavailable(self) -> str | None:
        return find_fault(self.runtime.program) or find_filter_fault(self.toolbox.options)

    def files(self, image: Image) -> Sequence[Path]:
        return [Path(self._program()), *rooted_files(image, self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        config = build_config(spec, self.toolbox)
        return {**describe_command(self.build_command(spec)), "config": config}

    def start_run(self, _images: Sequence[Image], /) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[CommandedInstance]:
        config = json.dumps(build_config(spec, self.toolbox), indent=1)
        (spec.folder / "config.json").write_text(config)
        command = self.build_command(spec)
        with start_commanded_instance(spec, command, self.toolbox.starter) as instance:
            yield instance

    def build_command(self, spec: InstanceSpec) -> Command:
        root = spec.folder / "state"
        head = (self._program(), "--root", str(root), *self.build_options(spec))
        return Command(
            argv=(*head, "run", "--bundle", str(spec.folder), spec.name),
            watches={"created": root / self.runtime.state.format(id=spec.name)},
            group=GROUP,
            cleanup=((*head, "delete", "--force", spec.name),),
        )

    def build_options(self, _spec: InstanceSpec) -> tuple[str, ...]:
        """The runtime's own options for one instance."""
        return self.runtime.options

    def _program(self) -> str:
        return find_program(self.runtime.program) or self.runtime.program


class CrunDriver(OciDriver):
    name = "crun"
    runtime = Runtime("crun", ("--cgroup-manager=cgroupfs",), "{id}/status")


class RuncDriver(OciDriver):
    name = "runc"
    runtime = Runtime("runc")


class GvisorDriver(OciDriver):
    """gVisor's runsc: a user-space kernel between the workload and the host's.

    Its network stack takes over the addresses of the namespace that it is started in, so it runs
    without one where the workload needs none.
    """

    name = "gvisor"
    kind: Kind = "sandbox"
    runtime = Runtime("runsc", ("--platform=ptrace",), "{id}_sandbox:{id}.state")

    @property
    def no_network(self) -> str | None:
        return None if self.toolbox.options.network == "host" else find_netstack_fault()

    def build_options(self, spec: InstanceSpec) -> tuple[str, ...]:
        bridged = "sandbox" if spec.address else "none"
        network = "host" if spec.host_network else bridged
        return (*self.runtime.options, f"--network={network}", build_socket_option())
