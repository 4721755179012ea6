"""`docker`: containers of a Docker daemon, through the Docker SDK for Python.

The daemon is the one that runs on this host, one that is named, or one of the run's own. Phases:
`created` is when the daemon has answered the request to create, `started` when its runtime has
built the sandbox; so the engine's share stands beside its runtime's. The end of a container comes
by the daemon's event stream.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import cgroup, lab
from harness.certificate import KEY, build_document
from harness.channel import Channel
from harness.drivers.base import (
    Daemon,
    InstanceSpec,
    Packed,
    PlainDriver,
    PlainInstance,
    Processes,
    Toolbox,
    list_images,
)
from harness.drivers.commanded import FIRST_PROCESS, HELPERS, RUN_FOLDER, find_program
from harness.drivers.docker_answers import (
    build_conditions,
    find_container_address,
    find_store,
    find_upper,
)
from harness.drivers.docker_api import (
    LABEL,
    EndWatch,
    build_reference,
    find_daemon_fault,
    find_host,
    find_runtime_fault,
    is_named,
    load_image,
    open_api,
    read_cgroup_driver,
    remove_run,
    start_end_watch,
    translated,
)
from harness.drivers.dockerd import (
    DockerDaemon,
    build_address,
    find_user_daemon,
    name_runsc,
    start_private_daemon,
)
from harness.drivers.rooted import Layout, rooted_files, rooted_packings
from harness.drivers.runsc import (
    describe_platform,
    find_netstack_fault,
    find_platform_fault,
    find_used,
    require_platform,
)
from harness.drivers.shared import start_shared
from harness.errors import HarnessError, HostError, TrialError
from harness.images.model import Image
from harness.limits import find_device_file
from harness.model import NO_ACCELERATOR, UNKNOWN_ACCELERATOR, Kind
from harness.paths import find_outside
from harness.starter import Starter, build_instance_spec, read_clock, sleep_until, start_starter

_SHARED = "docker"
_FOLDER = "docker"
"""Of a daemon of the run's own, in its scratch."""
_NANOSECONDS = 1_000_000_000
_STOP_S = 10
_LIMITS = ("cpus", "memory", "pids", "io")
"""Dimensions of the parity certificate that control groups tell of."""
_STATES = {"runc": "state.json", "crun": "status"}
_PROGRAMS = {"runc": "runc", "crun": "crun", "gvisor": "runsc"}


@dataclass(slots=True)
class DockerInstance(PlainInstance):
    """A container of a daemon. It ends when its agent is told to, and is then removed."""

    spec: InstanceSpec
    channel: Channel
    starter: Starter
    daemon: DockerDaemon
    api: Any
    container: str = ""
    groups: tuple[Path, ...] = ()
    sandboxed: bool = False
    stopped: bool = field(default=False, init=False)
    found: str | None = field(default=None, init=False)

    @property
    def milestones(self) -> dict[str, int]:
        return self.channel.milestones

    @property
    def accelerator(self) -> str:
        if not self.sandboxed or "ready" not in self.milestones:
            return NO_ACCELERATOR
        if self.found is None:
            self.found = UNKNOWN_ACCELERATOR
            with contextlib.suppress(TrialError):  # the container is gone meanwhile
                self.found = find_used(self.processes())
        return self.found

    @property
    def address(self) -> str | None:
        """Asked after ``ready``: on its own bridge the daemon chooses the address."""
        if self.spec.host_network or not self.spec.address:
            return "127.0.0.1" if self.spec.host_network else None
        with translated():
            return find_container_address(self.api.inspect_container(self.container))

    @property
    def cgroups(self) -> Sequence[Path]:
        """Below those of the spec, or, where systemd makes them, wherever its first process is."""
        if not self.daemon.places_groups:
            return self._find_groups()
        folders = [folder / self.container for folder in self.spec.cgroups]
        return tuple(folder for folder in folders if folder.is_dir())

    def _find_groups(self) -> Sequence[Path]:
        if not self.groups and self.container:
            with contextlib.suppress(TrialError), translated():
                pid = self.api.inspect_container(self.container)["State"]["Pid"]
                self.groups = cgroup.find_groups_of(self.daemon.proc / str(pid)) if pid else ()
        return [each for each in self.groups if each.is_dir()]

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self.channel.heard = heard

    def wait_ready(self) -> None:
        deadline = self.milestones["request"] + int(self.spec.timeout * _NANOSECONDS)
        self.channel.wait_for("ready", deadline)

    def ask(self, question: str) -> str:
        return self.channel.ask(question, question)

    def round_trips(self, count: int) -> Sequence[float]:
        return self.channel.round_trips(count)

    def processes(self) -> Processes:
        """A private daemon's container by its group, another's by what the daemon lists."""
        shims = self.daemon.find_shims(self.container)
        if self.daemon.private and self.cgroups:
            return Processes(cgroup.read_processes(self.cgroups), shims)
        with translated():
            listed = self.api.top(self.container)
        column = listed["Titles"].index("PID")
        inside = tuple(sorted(int(row[column]) for row in listed["Processes"]))
        return Processes(inside, shims, self.daemon.proc)

    def read_evidence(self) -> Mapping[str, object]:
        """What the daemon says of a container whose groups or files cannot be seen from here."""
        grouped, seen = bool(self.cgroups), self.files() is not None
        if grouped and seen:
            return {}
        with translated():
            found = self.api.inspect_container(self.container)
        own = build_conditions(found["HostConfig"], find_store(found), self.spec)
        told = {} if grouped else {name: own[name] for name in own if name in _LIMITS}
        told |= {} if seen else {name: own[name] for name in own if name not in _LIMITS}
        return {KEY: build_document(told)}

    def files(self) -> Sequence[Path] | None:
        """The upper layer of a private daemon's container; another's is not ours to read, and one
        in containerd's store has no folder that the daemon names."""
        if not self.daemon.private:
            return None
        with contextlib.suppress(TrialError), translated():
            upper = find_upper(self.api.inspect_container(self.container))
            return None if upper is None else (upper,)
        return None

    def describe_end(self) -> str:
        """Why the container is gone, as the daemon tells it."""
        with contextlib.suppress(TrialError), translated():
            state = self.api.inspect_container(self.container)["State"]
            said = state["Error"] or self._read_last_line() or "it printed nothing"
            return f"the container ended (code {state['ExitCode']}) before it was ready: {said}"
        return "the Docker daemon is gone"

    def _read_last_line(self) -> str | None:
        text = self.api.logs(self.container, tail=5).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1][-200:] if lines else None

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        if not self.container:
            return
        with contextlib.suppress(HarnessError), translated():
            with contextlib.suppress(TrialError):
                self.starter.send("stop")
            self.api.wait(self.container, timeout=_STOP_S)
            self.channel.take_waiting()
        with contextlib.suppress(HarnessError), translated():
            self.api.remove_container(self.container, force=True, v=True)
        self.daemon.serving.discard(self.container)


class DockerDriver(PlainDriver):
    """Docker, with runc, crun or gVisor below it."""

    kind: Kind = "container"

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.name = toolbox.platform or "docker"
        self.runtime = toolbox.options.runtime or "runc"
        self.kind = "sandbox" if self.runtime == "gvisor" else "container"

    @property
    def daemon(self) -> Daemon | None:
        found = self.toolbox.shared.get(_SHARED)
        return found if isinstance(found, DockerDaemon) else None

    @property
    def no_network(self) -> str | None:
        if self.toolbox.options.network == "host":
            return None
        daemon = self.toolbox.shared.get(_SHARED)
        if isinstance(daemon, DockerDaemon) and not daemon.private:
            return f"a daemon that runs already is not on the lab's bridge: {self._advise()}"
        return find_netstack_fault() if self.runtime == "gvisor" else None

    @property
    def sets_limits(self) -> bool:
        """Whether limits have to be asked of the engine: in groups that systemd makes nobody else
        may set one."""
        daemon = self.toolbox.shared.get(_SHARED)
        return isinstance(daemon, DockerDaemon) and not daemon.places_groups

    def _advise(self) -> str:
        """How to have a daemon of the run's own instead."""
        named = " and no --docker-host" if is_named(self.toolbox.docker_host) else ""
        return f"say --start-engines{named} for one of the run's own"

    def unavailable(self) -> str | None:
        program, platform = _PROGRAMS[self.runtime], self.toolbox.options.sentry
        if self._starts_own():
            if fault := _find_own_fault() or find_platform_fault(platform):
                return fault
            return None if find_program(program) else f"its runtime {program} is not installed"
        host = find_host(self.toolbox.docker_host)
        if silent := find_daemon_fault(host):
            return f"{silent[0]}: {silent[1]}"
        if fault := find_runtime_fault(host, program):
            return f"{fault}, or {self._advise()}"
        if platform is not None:
            why = "a daemon that runs already has gVisor's platform in its own configuration"
            return f"{why}: {self._advise()}"
        return None

    def _starts_own(self) -> bool:
        """Whether a daemon of the run's own is used: where that is asked for, and no daemon that
        answers is named, or, where there is none that could be started, runs here."""
        if not self.toolbox.start_engines:
            return False
        wanted = not is_named(self.toolbox.docker_host) and _find_own_fault() is None
        return wanted or find_daemon_fault(find_host(self.toolbox.docker_host)) is not None

    def files(self, image: Image) -> Sequence[Path]:
        names = ("dockerd", "containerd", "containerd-shim-runc-v2", _PROGRAMS[self.runtime])
        found = [Path(path) for name in names if (path := find_program(name))]
        return [*found, *rooted_files(image, self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        return rooted_packings(image)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        host, private = self._find_daemon()
        platform = describe_platform(self.toolbox.options.sentry, known=private)
        return {
            "first_process": list(FIRST_PROCESS),
            "daemon": host,
            "private": private,
            "image": build_reference(spec.image, self.toolbox.run_id),
            "host_config": self.build_options(spec),
            **(platform if self.kind == "sandbox" else {}),
        }

    def _find_daemon(self) -> tuple[str, bool]:
        """Where the run's daemon is, or will be, and whether it is one of its own."""
        if isinstance(daemon := self.toolbox.shared.get(_SHARED), DockerDaemon):
            return daemon.host, daemon.private
        if self._starts_own():
            folder = self.toolbox.scratch or Path("scratch")
            return build_address(folder / _FOLDER), True
        return find_host(self.toolbox.docker_host), False

    @contextmanager
    def start_run(self, specs: Sequence[InstanceSpec], /) -> Iterator[None]:
        """The first variant of a run finds or starts the daemon and loads the images."""
        require_platform(self.toolbox.options.sentry, self.toolbox.scratch or Path("/run"))
        with start_shared(self.toolbox.shared, _SHARED, lambda: self._start_daemon(specs)):
            yield

    @contextmanager
    def _start_daemon(self, specs: Sequence[InstanceSpec]) -> Iterator[DockerDaemon]:
        scratch = self.toolbox.scratch
        if scratch is None:
            raise HostError("docker needs a scratch folder")
        with self._open_daemon(scratch / _FOLDER) as daemon:
            try:
                with open_api(daemon.host) as api:
                    for image in list_images(specs):
                        load_image(api, image, self.toolbox.run_id, scratch)
                yield daemon
            finally:
                remove_run(daemon.host, self.toolbox.run_id)

    @contextmanager
    def _open_daemon(self, folder: Path) -> Iterator[DockerDaemon]:
        host = find_host(self.toolbox.docker_host)
        if not self._starts_own():
            lab.note_engine(self.toolbox.run_id, host)
            yield find_user_daemon(host, read_cgroup_driver(host))
            return
        logs = self.toolbox.logs or folder.parent
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / "dockerd.log"
        with start_private_daemon(folder, self.toolbox.run_id, log) as daemon:
            yield daemon

    @contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[DockerInstance]:
        daemon = self.toolbox.shared[_SHARED]
        assert isinstance(daemon, DockerDaemon)
        layout = Layout.of(spec)
        layout.run.mkdir()
        layout.run.chmod(0o755)
        agent_spec = build_instance_spec(spec)
        with (
            translated(),
            open_api(daemon.host) as api,
            start_end_watch(daemon.host, spec.name) as watch,
            start_starter(self.toolbox.starter) as starter,
        ):
            starter.listen(layout.run / "channel", agent_spec)
            instance = self._prepare(spec, daemon, api, starter, watch)
            options = api.create_host_config(**self.build_options(spec))
            image = build_reference(spec.image, self.toolbox.run_id)
            api.ping()
            _warm_groups(spec)
            try:
                self._start(instance, image, options)
                yield instance
            except TrialError:
                instance.channel.keep_output(spec.folder / "output.log")
                raise
            finally:
                instance.stop()

    def _prepare(
        self,
        spec: InstanceSpec,
        daemon: DockerDaemon,
        api: Any,
        starter: Starter,
        watch: EndWatch,
    ) -> DockerInstance:
        channel = Channel(starter, program="the container", wake=watch.wake)
        instance = DockerInstance(
            spec, channel, starter, daemon, api, sandboxed=self.kind == "sandbox"
        )
        channel.ended = instance.describe_end
        return instance

    def _start(self, instance: DockerInstance, image: str, options: Mapping[str, object]) -> None:
        """The timed part: create, then start."""
        spec, api, stamps = instance.spec, instance.api, instance.milestones
        with translated():
            sleep_until(spec.gate())
            stamps["request"] = read_clock()
            instance.container = api.create_container(
                image,
                list(FIRST_PROCESS),
                name=spec.name,
                hostname=spec.name[-63:],
                labels={LABEL: self.toolbox.run_id},
                host_config=options,
            )["Id"]
            stamps["created"] = read_clock()
            instance.daemon.serving.add(instance.container)
            if self.runtime in _STATES:
                state = instance.daemon.states / "runtime-runc" / "moby" / instance.container
                instance.starter.watch("started", state / _STATES[self.runtime])
            api.start(instance.container)

    def build_options(self, spec: InstanceSpec) -> dict[str, object]:
        """What the daemon is asked for beyond its defaults; pure."""
        options = self.toolbox.options
        daemon = self.toolbox.shared.get(_SHARED)
        private = isinstance(daemon, DockerDaemon) and daemon.private
        chosen: dict[str, object] = {
            "mounts": [_build_mount(Layout.of(spec).run, private)],
            "network_mode": _find_network(spec),
            "runtime": self._find_runtime(spec),
        }
        placed = not isinstance(daemon, DockerDaemon) or daemon.places_groups
        if placed and (parent := cgroup.build_path(spec.cgroups)):
            chosen["cgroup_parent"] = parent
        if spec.limits:
            period = cgroup.CPU_PERIOD_US
            chosen |= {"mem_limit": spec.memory, "memswap_limit": spec.memory}
            chosen |= {"cpu_period": period, "cpu_quota": spec.cpus * period}
            chosen |= {} if spec.pids is None else {"pids_limit": spec.pids}
            if spec.io is not None and (disk := find_device_file(spec.folder)):
                chosen["device_write_bps"] = [{"Path": str(disk), "Rate": spec.io}]
        if options.seccomp is False:
            chosen["security_opt"] = ["seccomp=unconfined"]
        if options.read_only:
            chosen["read_only"] = True
        return chosen

    def _find_runtime(self, spec: InstanceSpec) -> str:
        """What the runtime is called in the daemon: gVisor has a name for each kind of network."""
        if self.runtime != "gvisor":
            return self.runtime
        daemon = self.toolbox.shared.get(_SHARED)
        if isinstance(daemon, DockerDaemon) and not daemon.private:
            return "runsc"
        bridged = "sandbox" if spec.address else "none"
        network = "host" if spec.host_network else bridged
        return name_runsc(network, self.toolbox.options.sentry)


def _find_own_fault() -> str | None:
    """Why a daemon of the run's own cannot be started here; None if it can."""
    if find_program("dockerd") is None:
        return "dockerd is not installed"
    if not lab.is_privileged():
        return "a Docker daemon of the run's own needs root: run the harness as root"
    return None


def _warm_groups(spec: InstanceSpec) -> None:
    """Join a group and leave it again, as every other platform does before its clock starts.

    On an idle host the first to join waits some 10 ms for the kernel (see `cgroup.entered`); here
    that would be the daemon's runtime, inside the timed window, and only on this platform.
    """
    if lab.is_privileged():
        with cgroup.entered(cgroup.start_child(spec.cgroups, HELPERS)):
            pass


def _build_mount(run: Path, private: bool) -> dict[str, object]:
    """The channel's folder; a daemon outside the lab knows it by another name."""
    source = run if private else find_outside(run)
    return {"Type": "bind", "Source": str(source), "Target": RUN_FOLDER, "ReadOnly": False}


def _find_network(spec: InstanceSpec) -> str:
    if spec.host_network:
        return "host"
    return "bridge" if spec.address else "none"
