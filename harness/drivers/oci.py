"""`crun`, `runc` and `gvisor`: OCI runtimes, started by their own command line on a bundle.

One class for all: they take the same words. The bundle is made before the clock (oci_bundle.py);
`RUNTIME run` is what is timed, with the overlay of its root.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.drivers.base import InstanceSpec
from harness.drivers.commanded import Command
from harness.drivers.commanded_driver import CommandedDriver
from harness.drivers.oci_bundle import GROUP, build_config
from harness.drivers.runsc import (
    build_socket_option,
    describe_platform,
    find_netstack_fault,
    find_platform_fault,
    find_used,
    require_platform,
)
from harness.drivers.seccomp import find_filter_fault
from harness.model import Kind


@dataclass(frozen=True, slots=True)
class Runtime:
    """What differs between OCI runtimes: their own options, and the file of their state."""

    options: tuple[str, ...] = ()
    state: str = "{id}/state.json"


class OciDriver(CommandedDriver):
    """What all OCI runtimes share."""

    runtime: Runtime

    def unavailable(self) -> str | None:
        return super().unavailable() or find_filter_fault(self.toolbox.options)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return {**super().describe(spec), "config": build_config(spec, self.toolbox)}

    def prepare(self, spec: InstanceSpec) -> None:
        """The bundle. The runtime sets the limits that it states."""
        config = json.dumps(build_config(spec, self.toolbox), indent=1)
        (spec.folder / "config.json").write_text(config)

    def build_command(self, spec: InstanceSpec) -> Command:
        root = spec.folder / "state"
        head = (self.path, "--root", str(root), *self.build_options(spec))
        return Command(
            argv=(*head, "run", "--bundle", str(spec.folder), spec.name),
            watches={"created": root / self.runtime.state.format(id=spec.name)},
            group=GROUP,
            cleanup=((*head, "delete", "--force", spec.name),),
        )

    def build_options(self, _spec: InstanceSpec) -> tuple[str, ...]:
        """The runtime's own options for one instance."""
        return self.runtime.options


class CrunDriver(OciDriver):
    """crun, the one written in C."""

    name = program = "crun"
    runtime = Runtime(("--cgroup-manager=cgroupfs",), "{id}/status")


class RuncDriver(OciDriver):
    """runc, which most engines use."""

    name = program = "runc"
    runtime = Runtime()


class GvisorDriver(OciDriver):
    """gVisor's runsc: a user-space kernel between the workload and the host's.

    Its network stack takes over the addresses of the namespace that it is started in, so it runs
    without one where the workload needs none.
    """

    name = "gvisor"
    kind: Kind = "sandbox"
    program = "runsc"
    runtime = Runtime((), "{id}_sandbox:{id}.state")

    @property
    def no_network(self) -> str | None:
        return None if self.toolbox.options.network == "host" else find_netstack_fault()

    def build_options(self, spec: InstanceSpec) -> tuple[str, ...]:
        bridged = "sandbox" if spec.address else "none"
        network = "host" if spec.host_network else bridged
        asked = self.toolbox.options.sentry
        chosen = (f"--platform={asked}",) if asked else ()
        return (*chosen, f"--network={network}", build_socket_option())

    def unavailable(self) -> str | None:
        return super().unavailable() or find_platform_fault(self.toolbox.options.sentry)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return {**super().describe(spec), **describe_platform(self.toolbox.options.sentry)}

    @contextmanager
    def start_run(self, _specs: Sequence[InstanceSpec], /) -> Iterator[None]:
        require_platform(self.toolbox.options.sentry, self.toolbox.scratch or Path("/run"))
        yield

    def build_command(self, spec: InstanceSpec) -> Command:
        return replace(super().build_command(spec), find_accelerator=find_used)
