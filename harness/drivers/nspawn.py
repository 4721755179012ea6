"""`systemd-nspawn`: systemd's own container, without registering a machine.

Nothing tells from outside when its sandbox is there, so `created` is not known and the time up to
`init` stands under `residual`. It sets no addresses inside; services are measured on it only with
the lab's own network (`systemd-nspawn/host-net`). Limits are those of the instance's groups.
"""

from harness.drivers.base import InstanceSpec
from harness.drivers.commanded import FIRST_PROCESS, RUN_FOLDER, Command
from harness.drivers.commanded_driver import CommandedDriver
from harness.drivers.rooted import Layout


class NspawnDriver(CommandedDriver):
    """systemd-nspawn, with its defaults for capabilities and system calls."""

    name = "systemd-nspawn"
    program = "systemd-nspawn"

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        return "systemd-nspawn sets no addresses inside; systemd-nspawn/host-net has the lab's"

    def build_command(self, spec: InstanceSpec) -> Command:
        layout = Layout.of(spec)
        words = [
            *(self.path, "--quiet", "--register=no", "--keep-unit", "--console=pipe"),
            *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *(f"--machine={spec.name[-63:]}",),
            *(() if spec.host_network else ("--private-network",)),
            *("-D", str(layout.merged), f"--bind={layout.run}:{RUN_FOLDER}"),
        ]
        return Command((*words, *FIRST_PROCESS))
