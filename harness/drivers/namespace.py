"""`namespace`: the project's own container.

New mount, pid, uts, ipc, net and cgroup namespaces, the image under overlayfs, pivot_root, own
/proc, /sys and /dev, a veth pair to the lab's bridge, limits by cgroup, the engines' default set
of capabilities and no_new_privs. What is done in which order stands in agent/container.h.
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

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


class NamespaceDriver(PlainDriver):
    """Linux namespaces without an engine."""

    name = "namespace"
    kind: Kind = "container"

    daemon = None
    no_network = None

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox

    def unavailable(self) -> str | None:
        missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
        if missing:
            return f"this kernel has no {', '.join(missing)} namespaces"
        return find_overlay_fault()

    def files(self, image: Image) -> Sequence[Path]:
        return rooted_files(image, self.toolbox.starter)

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        asked = {"memory": spec.memory, "cpus": spec.cpus, "pids": spec.pids}
        limits = {key: each for key, each in asked.items() if spec.cgroups and each is not None}
        return {
            **describe_rooted(spec, "namespace"),
            "namespaces": list(_NAMESPACES),
            "limits": limits,
        }

    def start_run(self, _specs: Sequence[InstanceSpec], /) -> AbstractContextManager[None]:
        return nullcontext()

    def start_instance(self, spec: InstanceSpec) -> AbstractContextManager[RootedInstance]:
        return start_limited(spec, "namespace", self.toolbox.starter)
