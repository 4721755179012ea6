"""Engines as the harness times them, beside hyperfine's time of the engines' own command lines.

Both sides run the same first process in the same bundle or image, which runs `true` and ends when
it is told to as soon as that was ready: from the request to the end of the whole command.
"""

import contextlib
import json
import shlex
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from benches.available import list_available, tell_left_out
from benches.rig import Measure, Samples, build_spec, run_interleaved, wait_idle
from harness import cgroup, linux
from harness.drivers import load_driver
from harness.drivers.base import Driver, InstanceSpec, Toolbox
from harness.drivers.commanded import (
    FIRST_PROCESS,
    HELPERS,
    RUN_FOLDER,
    Command,
    find_program,
)
from harness.drivers.docker_api import build_reference
from harness.drivers.docker_engine import DockerDriver
from harness.drivers.oci import OciDriver
from harness.drivers.oci_bundle import build_config
from harness.drivers.podman import PodmanDriver
from harness.drivers.podman_store import PodmanStore
from harness.drivers.rooted import Layout
from harness.errors import HarnessError
from harness.images.catalog import require_image
from harness.images.model import Image
from harness.images.programs import build_programs
from harness.paths import scratch_root
from harness.process import run_command
from harness.starter import build_agent_spec, read_clock

ENGINES = {"crun": 0.05, "runc": 0.05, "gvisor": 0.10, "podman": 0.05, "docker": 0.05}
"""What is compared, and the share by which the medians may differ."""

DOCKER = find_program("docker") or ""
"""Docker's command line, if it is here: it is in a package of its own since Debian 13."""

_RUNNING = contextlib.ExitStack()
"""Stores and daemons, held until the lab ends, which undoes them."""


def measure_engines(repeats: int = 30) -> Samples:
    """Seconds from request to end: ``crun`` as the harness reports it, ``crun.hand`` beside it."""
    image = require_image("tiny", print)
    starter = build_programs().starter
    return run_interleaved(lambda run_id: build_measures(run_id, image, starter), repeats)


def build_measures(run_id: str, image: Image, starter: Path) -> Mapping[str, Measure]:
    scratch = scratch_root() / run_id
    scratch.mkdir(parents=True)
    toolbox = Toolbox(
        starter=starter,
        scratch=scratch,
        run_id=run_id,
        start_engines=True,
        docker_host="unix:///nowhere",  # a daemon of the run's own, whatever runs here
    )
    measures: dict[str, Measure] = {}
    if cgroup.find_tree(run_id) is None:
        tell_left_out("engines", "this benchmark needs control groups")
        return measures
    for name in list_available(ENGINES):
        driver = load_driver(name, toolbox)
        rig = Rig(run_id, scratch, image, driver)
        try:
            _RUNNING.enter_context(driver.start_run([rig.build_spec(-1, "first")]))
        except HarnessError as error:
            tell_left_out(name, error)
            continue
        measures[name] = rig.time_harness
        by_hand = isinstance(driver, DockerDriver)
        if by_hand and not DOCKER:
            tell_left_out("docker by hand", "its command line is not installed (docker-cli)")
            continue
        measures[f"{name}.hand"] = rig.time_by_hand
        if by_hand:
            measures["docker.client"] = rig.time_client
    return measures


class Rig:
    """One engine: started by the harness, and by hand."""

    def __init__(self, run_id: str, scratch: Path, image: Image, driver: Driver) -> None:
        self.scratch, self.image, self.driver = scratch, image, driver
        tree = cgroup.find_tree(run_id)
        if tree is None:
            raise RuntimeError("this benchmark needs cgroups: run it as root")
        self.tree = tree
        self.mounting = 0.0
        """Seconds that the mount of a bundle's root took: the harness has it in its window."""

    def build_spec(self, number: int, way: str) -> InstanceSpec:
        name = f"{self.driver.name}-{way}{number}"
        return build_spec(name, self.scratch, self.image, self.tree)

    def time_harness(self, number: int) -> float:
        """`startup.ready` and the time to stop, as a trial has them, without what lies between."""
        spec = self.build_spec(number, "h")
        with self.driver.start_instance(spec) as instance:
            instance.wait_ready()
            stamps = dict(instance.milestones)
            asked = read_clock()
            instance.stop()
            end = getattr(getattr(instance, "channel", None), "finished", None) or read_clock()
        cgroup.remove(spec.cgroups)
        wait_idle()
        return (stamps["ready"] - stamps["request"] + end - asked) / 1e9

    def time_by_hand(self, number: int) -> float:
        spec = self.build_spec(number, "c")
        layout = Layout.of(spec)
        layout.make()
        helpers = cgroup.start_child(spec.cgroups, HELPERS)
        with (
            start_listener(layout.run / "channel"),
            self._prepared(spec) as command,
            cgroup.entered(
                helpers
            ),  # as the harness has its commands: see start_commanded_instance
        ):
            seconds = time_whole(command, spec.folder / "time.json")
        if command.stays:  # on both sides its removal is a command of its own, outside the time
            for words in command.cleanup:
                run_command(words, timeout=60, env=command.environment)
        cgroup.remove(spec.cgroups)
        wait_idle()
        return seconds + self.mounting

    def time_client(self, _number: int) -> float:
        """The start of Docker's command line alone: it is part of the whole command only."""
        return time_whole(Command((DOCKER, "--version")), self.scratch / "client.json")

    @contextlib.contextmanager
    def _prepared(self, spec: InstanceSpec) -> Iterator[Command]:
        """The engine's own command line, and its environment."""
        if isinstance(self.driver, OciDriver):
            layout = Layout.of(spec)
            folders = f"lowerdir={layout.lower},upperdir={layout.upper},workdir={layout.work}"
            begin = read_clock()
            linux.mount("overlay", layout.merged, "overlay", 0, folders)
            self.mounting = (read_clock() - begin) / 1e9
            config = build_config(spec, self.driver.toolbox)
            (spec.folder / "config.json").write_text(json.dumps(config))
            try:
                yield self.driver.build_command(spec)
            finally:
                linux.unmount(layout.merged)
        elif isinstance(self.driver, PodmanDriver):
            store = self.driver.toolbox.shared["podman"]
            assert isinstance(store, PodmanStore)
            yield self.driver.build_command(spec, store)
        else:
            assert isinstance(self.driver, DockerDriver)
            yield Command(build_docker_command(spec, self.driver))


def build_docker_command(spec: InstanceSpec, driver: DockerDriver) -> tuple[str, ...]:
    """What `docker run` is told for the same container."""
    daemon = driver.toolbox.shared["docker"]
    parent = cgroup.build_path(spec.cgroups)
    return (
        *(DOCKER, "-H", str(getattr(daemon, "host", "")), "run", "--rm", "--name", spec.name),
        *("--hostname", spec.name[-63:], "--network", "none", "--runtime", "runc"),
        *("--volume", f"{Layout.of(spec).run}:{RUN_FOLDER}"),
        *("--cgroup-parent", str(parent), f"--memory={spec.memory}", f"--cpus={spec.cpus}"),
        *(f"--memory-swap={spec.memory}", build_reference(spec.image, driver.toolbox.run_id)),
        *FIRST_PROCESS,
    )


def time_whole(command: Command, out: Path) -> float:
    """Seconds of one command by hyperfine; it starts on an idle processor, as in a trial."""
    timer = ["hyperfine", "-N", "--runs", "1", "--style", "none", "--prepare", "sleep 0.004"]
    timer += ["--export-json", str(out), shlex.join(command.argv)]
    run_command(timer, timeout=60, env=command.environment)
    seconds: float = json.loads(out.read_text())["results"][0]["times"][0]
    return seconds


@contextlib.contextmanager
def start_listener(path: Path) -> Iterator[None]:
    """The agent's counterpart in few lines: hand it `true`, and tell it to end once it is ready."""
    spec = build_agent_spec(("true",), "exit", {})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        thread = threading.Thread(target=_serve, args=(listener, spec), daemon=True)
        thread.start()
        yield
    thread.join(5)


def _serve(listener: socket.socket, spec: bytes) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"spec %d\n" % len(spec) + spec)
            said = b""
            while b"ready\n" not in said:
                said += connection.recv(4096)
            connection.sendall(b"stop\n")
            while connection.recv(4096):
                pass
