"""`process`, the baseline: the same tree by chroot, nothing else.

No namespace; the overlay that keeps the image unwritten is mounted before the clock. Its limits
are those of its control group, as everywhere: a limit is no isolation, and without it a ratio
would compare what had a limit with what had none.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.drivers.base import InstanceSpec, Packed, PlainDriver, Toolbox
from harness.drivers.rooted import (
    RootedInstance,
    describe_rooted,
    rooted_files,
    rooted_packings,
    start_limited,
)
from harness.images.model import Image
from harness.model import Kind
from harness.overlay import find_overlay_fault


class ProcessDriver(PlainDriver):
    """The agent and the workload as ordinary processes in a chroot."""

    name = "process"
    kind: Kind = "process"

    daemon = None
    no_network = None

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox

    def unavailable(self) -> str | None:
        return find_overlay_fault()

    def files(self, image: Image) -> Sequence[Path]:
        return rooted_files(image, self.toolbox.starter)

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return describe_rooted(spec, "chroot")

    def start_run(self, _specs: Sequence[InstanceSpec], /) -> AbstractContextManager[None]:
        return nullcontext()

    def start_instance(self, spec: InstanceSpec) -> AbstractContextManager[RootedInstance]:
        return start_limited(spec, "chroot", self.toolbox.starter)
