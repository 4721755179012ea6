"""`podman`: its own command line, in the foreground, on a store of the run's own.

`created` is when Podman has written the container's id, `started` when its runtime has built the
sandbox; so the engine's share stands beside its runtime's.

A container is started without ``--rm`` and removed by ``podman rm`` as a part of its stop. With
``--rm`` Podman mounts its root ``volatile``: what the container writes is then never synced to the
disk (overlayfs.rst, «Volatile mount»), as it is on every other platform.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness import cgroup
from harness.drivers.base import InstanceSpec, Packed, PlainDriver, Toolbox, list_images
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
from harness.drivers.podman_store import (
    PROGRAMS,
    PodmanStore,
    build_reference,
    find_layer,
    start_store,
)
from harness.drivers.rooted import Layout, rooted_files, rooted_packings
from harness.drivers.runsc import (
    build_socket_option,
    describe_platform,
    find_netstack_fault,
    find_platform_fault,
    find_used,
    require_platform,
)
from harness.drivers.shared import start_shared
from harness.errors import HostError
from harness.images.model import Image
from harness.limits import find_device_file
from harness.model import Kind

_SHARED = "podman"
_STATES = {"runc": "state.json", "crun": "status"}


class PodmanDriver(PlainDriver):
    """Podman, with crun, runc or gVisor below it."""

    daemon = None
    kind: Kind = "container"

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or "podman"
        self.runtime = toolbox.options.runtime or "runc"
        self.kind = "sandbox" if self.runtime == "gvisor" else "container"

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        if self.runtime == "gvisor" and (fault := find_netstack_fault()):
            return fault
        store = self.toolbox.shared.get(_SHARED)
        return store.network_fault if isinstance(store, PodmanStore) else None

    @property
    def own_store(self) -> bool:
        return True

    def unavailable(self) -> str | None:
        fault = find_fault("podman") or find_fault("conmon")
        program = PROGRAMS[self.runtime]
        if fault is None and find_program(program) is None:
            return f"its runtime {program} is not installed"
        return fault or find_platform_fault(self.toolbox.options.sentry)

    def files(self, image: Image) -> Sequence[Path]:
        programs = ("podman", "conmon", PROGRAMS[self.runtime])
        found = [Path(path) for name in programs if (path := find_program(name))]
        return [*found, *rooted_files(image, self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        described = describe_command(self.build_command(spec, self._imagine_store()))
        if self.runtime != "gvisor":
            return described
        return {**described, **describe_platform(self.toolbox.options.sentry)}

    @contextmanager
    def start_run(self, specs: Sequence[InstanceSpec], /) -> Iterator[None]:
        """The first variant of a run makes the store, and takes it away again."""
        if self.toolbox.scratch is None:
            raise HostError("podman needs a scratch folder for its store")
        start = functools.partial(
            start_store, self.toolbox.scratch / "podman", self.toolbox.run_id, list_images(specs)
        )
        require_platform(self.toolbox.options.sentry, self.toolbox.scratch)
        with start_shared(self.toolbox.shared, _SHARED, start):
            yield

    def start_instance(self, spec: InstanceSpec) -> AbstractContextManager[CommandedInstance]:
        store = self.toolbox.shared[_SHARED]
        assert isinstance(store, PodmanStore)
        command = self.build_command(spec, store)
        return start_commanded_instance(spec, command, self.toolbox.starter)

    def build_command(self, spec: InstanceSpec, store: PodmanStore) -> Command:
        """Pure: ``podman run`` with everything that the variant asks for."""
        root = spec.folder / "runtime"
        identity = spec.folder / "id"
        flags = (f"root={root}", *self._build_runtime_flags(spec))
        head = (*store.build_words(), "--runtime", self.runtime)
        head += tuple(word for flag in flags for word in ("--runtime-flag", flag))
        watches = {"created": identity}
        if self.runtime in _STATES:
            watches["started"] = root / "*" / _STATES[self.runtime]
        return Command(
            argv=(*head, *self._build_run(spec, identity, store.network), *FIRST_PROCESS),
            environment=store.environment,
            watches=watches,
            root=False,
            group="libpod-*",
            find_accelerator=find_used if self.runtime == "gvisor" else None,
            find_upper=functools.partial(find_layer, store.folder / "store", spec.name),
            cleanup=((*head, "rm", "--force", "--time", "0", spec.name),),
            stays=True,
        )

    def _build_run(self, spec: InstanceSpec, identity: Path, network: str) -> tuple[str, ...]:
        options = self.toolbox.options
        words = [
            *("run", "--pull=never", "--cidfile", str(identity), "--name", spec.name),
            *("--label", f"harness.run={self.toolbox.run_id}", "--hostname", spec.name[-63:]),
            *("--volume", f"{Layout.of(spec).run}:{RUN_FOLDER}"),
            *_build_network(spec, network),
        ]
        if parent := cgroup.build_path(spec.cgroups):
            words += ["--cgroup-parent", parent]
        if spec.limits:
            words += [f"--memory={spec.memory}b", f"--memory-swap={spec.memory}b"]
            words += [f"--cpus={spec.cpus}"]
        words += [f"--pids-limit={spec.pids if spec.pids is not None and spec.limits else -1}"]
        if spec.limits and spec.io is not None and (disk := find_device_file(spec.folder)):
            words += [f"--device-write-bps={disk}:{spec.io}"]
        words += ["--security-opt", "seccomp=unconfined"] if options.seccomp is False else []
        words += ["--read-only"] if options.read_only else []
        return (*words, build_reference(spec.image))

    def _build_runtime_flags(self, spec: InstanceSpec) -> tuple[str, ...]:
        if self.runtime != "gvisor":
            return ()
        bridged = "sandbox" if spec.address else "none"
        network = "host" if spec.host_network else bridged
        asked = self.toolbox.options.sentry
        chosen = (f"platform={asked}",) if asked else ()
        return (*chosen, f"network={network}", build_socket_option().removeprefix("--"))

    def _imagine_store(self) -> PodmanStore:
        folder = (self.toolbox.scratch or Path("scratch")) / "podman"
        return PodmanStore(folder, self.toolbox.run_id)


def _build_network(spec: InstanceSpec, network: str) -> tuple[str, ...]:
    if spec.host_network:
        return ("--network", "host")
    if spec.address:
        return ("--network", network, "--ip", spec.address.split("/")[0])
    return ("--network", "none")
