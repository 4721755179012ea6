"""`bubblewrap`: the namespaces of `bwrap`, which desktop sandboxes are made with.

It sets no limits, so the instance's groups do; and it makes no network but loopback, so services
are measured on it only with the lab's own network (`bubblewrap/host-net`). It mounts no /sys.
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
from harness.drivers.oci_bundle import CAPABILITIES
from harness.drivers.rooted import Layout, rooted_files, rooted_packings
from harness.images.model import Image
from harness.model import Kind

PROGRAM = "bwrap"


class BubblewrapDriver:
    """Bubblewrap, with the capabilities that container engines leave to root."""

    name = "bubblewrap"
    kind: Kind = "container"
    daemon = None

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or self.name

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        return "bubblewrap makes no network of its own; bubblewrap/host-net has the lab's"

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
    """Pure: its status, on descriptor 3, tells when the sandbox's first process is there."""
    layout = Layout.of(spec)
    status = spec.folder / "status.json"
    kept = [word for name in CAPABILITIES for word in ("--cap-add", name)]
    words = [
        find_program(PROGRAM) or PROGRAM,
        *("--unshare-all", "--die-with-parent", "--as-pid-1", "--hostname", spec.name[-63:]),
        *(("--share-net",) if spec.host_network else ()),
        *("--bind", str(layout.merged), "/", "--proc", "/proc", "--dev", "/dev"),
        *("--bind", str(layout.run), RUN_FOLDER, "--chdir", "/"),
        *("--cap-drop", "ALL", *kept, "--json-status-fd", "3"),
    ]
    return Command((*words, *FIRST_PROCESS), watches={"created": status}, status=status)
