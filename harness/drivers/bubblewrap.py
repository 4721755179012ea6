"""`bubblewrap`: the namespaces of `bwrap`, which desktop sandboxes are made with.

It sets no limits, so the instance's groups do; and it makes no network but loopback, so services
are measured on it only with the lab's own network (`bubblewrap/host-net`). It mounts no /sys.
"""

from harness.drivers.base import InstanceSpec
from harness.drivers.commanded import FIRST_PROCESS, RUN_FOLDER, Command
from harness.drivers.commanded_driver import CommandedDriver
from harness.drivers.oci_bundle import CAPABILITIES
from harness.drivers.rooted import Layout


class BubblewrapDriver(CommandedDriver):
    """Bubblewrap, with the capabilities that container engines leave to root."""

    name = "bubblewrap"
    program = "bwrap"

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        return "bubblewrap makes no network of its own; bubblewrap/host-net has the lab's"

    def build_command(self, spec: InstanceSpec) -> Command:
        """Its status, on descriptor 3, tells when the sandbox's first process is there."""
        layout = Layout.of(spec)
        status = spec.folder / "status.json"
        kept = [word for name in CAPABILITIES for word in ("--cap-add", name)]
        words = [
            *(self.path, "--unshare-all", "--die-with-parent", "--as-pid-1"),
            *("--hostname", spec.name[-63:]),
            *(("--share-net",) if spec.host_network else ()),
            *("--bind", str(layout.merged), "/", "--proc", "/proc", "--dev", "/dev"),
            *("--bind", str(layout.run), RUN_FOLDER, "--chdir", "/"),
            *("--cap-drop", "ALL", *kept, "--json-status-fd", "3"),
        ]
        return Command((*words, *FIRST_PROCESS), watches={"created": status}, status=status)
