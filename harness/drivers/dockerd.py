"""Docker daemons as the harness accounts for them, and one of a run's own.

The private daemon lives in the lab and in a cgroup of its own, with its data below the scratch
folder: it ends with the run, whatever happens. Its bridge is the lab's.
"""

import contextlib
import itertools
import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import cgroup, lab
from harness.drivers.base import Processes
from harness.drivers.commanded import ENVIRONMENT, find_program
from harness.drivers.runsc import build_socket_option, read_platforms
from harness.errors import HostError
from harness.process import start_service

_READY_S = 60.0
_NETWORKS = {"none": "", "host": "host", "sandbox": "net"}
_TICKS = os.sysconf("SC_CLK_TCK")
_DAEMONS = ("dockerd", "containerd")
_SHIM = "containerd-shim"


@dataclass(frozen=True, slots=True)
class DockerDaemon:
    """A running daemon. ``groups`` are those of a private one, empty for another's.

    ``states`` is where its runtimes keep their state, by runtime. ``places_groups`` says whether a
    container can be put below a group of the run's: systemd takes no group that it has not made.
    ``serving`` are the ids of the run's own containers, kept by the driver.
    """

    host: str
    private: bool
    states: Path
    groups: tuple[Path, ...] = ()
    proc: Path = field(default_factory=lambda: Path("/proc"))
    places_groups: bool = True
    serving: set[str] = field(default_factory=set, compare=False)

    def processes(self) -> Processes:
        return Processes(tuple(self._find(_is_daemon)), proc=self.proc)

    def find_shims(self, container: str) -> tuple[int, ...]:
        """The shims of one container, by its full id."""
        return tuple(self._find(lambda words: _is_shim(words) and container in words))

    def read_cpu(self) -> float | None:
        """By the group's exact account; for another's daemon by its processes' clocks, which count
        in ticks of 10 ms and include what they reaped. Of its shims only those of the run's own
        containers count: a user's that ended meanwhile would take its whole time away again."""
        if self.groups:
            used = cgroup.read_cpu_time(self.groups)
            return used.total if used else None
        pids = self._find(
            lambda words: _is_daemon(words) or (_is_shim(words) and bool(self.serving & set(words)))
        )
        found = [_read_ticks(self.proc / str(pid)) for pid in pids]
        return sum(found) / _TICKS if found else None

    def _find(self, fits: Callable[[Sequence[str]], bool]) -> list[int]:
        if self.groups:
            pids: Sequence[int] = cgroup.read_processes(self.groups)
        else:
            pids = [int(entry.name) for entry in self.proc.glob("[0-9]*")]
        return [pid for pid in pids if fits(_read_words(self.proc / str(pid)))]


def _is_daemon(words: Sequence[str]) -> bool:
    return bool(words) and Path(words[0]).name in _DAEMONS


def _is_shim(words: Sequence[str]) -> bool:
    return bool(words) and Path(words[0]).name.startswith(_SHIM)


def _read_words(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (folder / "cmdline").read_text(errors="replace").split("\0")
    return []


def _read_ticks(folder: Path) -> int:
    """utime + stime + cutime + cstime of /proc/PID/stat (proc_pid_stat(5)); 0 if it has ended."""
    with contextlib.suppress(OSError, ValueError):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return sum(int(word) for word in fields[11:15])
    return 0


def find_user_daemon(host: str, cgroup_driver: str) -> DockerDaemon:
    """A daemon that runs already: outside the lab, so its numbers are the host's."""
    return DockerDaemon(
        host,
        private=False,
        states=lab.host_proc() / "1/root/run/docker",
        proc=lab.host_proc(),
        places_groups=cgroup_driver != "systemd",
    )


def build_address(folder: Path) -> str:
    """Where a daemon of the run's own listens that has its things in ``folder``."""
    return f"unix://{folder / 'socket'}"


def name_runsc(network: str, platform: str | None = None) -> str:
    """What gVisor is called in a daemon of the run's own: a name for each kind of network and each
    platform that can be asked for."""
    return "-".join(filter(None, ["runsc", _NETWORKS[network], platform]))


def build_daemon_config(folder: Path, parent: str | None) -> dict[str, object]:
    """daemon.json of a private daemon: nothing of the host's is changed (no iptables)."""
    runtimes: dict[str, Mapping[str, object]] = {}
    if crun := find_program("crun"):
        runtimes["crun"] = {"path": crun}
    if runsc := find_program("runsc"):
        for network, platform in itertools.product(_NETWORKS, (None, *read_platforms())):
            words = [f"--platform={platform}"] if platform else []
            words += [f"--network={network}", build_socket_option()]
            runtimes[name_runsc(network, platform)] = {"path": runsc, "runtimeArgs": words}
    return {
        "data-root": str(folder / "data"),
        "exec-root": str(folder / "exec"),
        "pidfile": str(folder / "pid"),
        "hosts": [build_address(folder)],
        "bridge": lab.BRIDGE,
        "fixed-cidr": lab.ENGINE_RANGE,
        "iptables": False,
        "ip-masq": False,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "runtimes": runtimes,
        **({"cgroup-parent": parent} if parent else {}),
    }


@contextlib.contextmanager
def start_private_daemon(folder: Path, run_id: str, log: Path) -> Iterator[DockerDaemon]:
    """Start dockerd in the lab and wait for its own word that it is ready; raises HostError."""
    folder.mkdir(parents=True)
    tree = cgroup.find_tree(run_id)
    groups = tree.start("dockerd") if tree else ()
    config = folder / "daemon.json"
    parent = cgroup.build_path(groups[:1] and (groups[0].parent,))
    config.write_text(json.dumps(build_daemon_config(folder, parent), indent=1))
    program = find_program("dockerd") or "dockerd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        own_names = {"HOME": str(folder), "NOTIFY_SOCKET": str(folder / "notify")}
        environment = {**ENVIRONMENT, **own_names}
        try:
            with (
                cgroup.entered(groups),
                contextlib.ExitStack() as stack,
            ):
                own = ["unshare", "--mount", "--propagation", "private"]
                words = [*own, program, "--config-file", str(config)]
                pid = stack.enter_context(start_service(words, log, environment))
                service = stack.pop_all()
            with service:
                _wait_ready(notify, pid, log)
                states = folder / "exec"
                yield DockerDaemon(
                    build_address(folder), private=True, states=states, groups=groups
                )
        finally:
            cgroup.kill_processes(groups)
            lab.unmount_below(folder)
            cgroup.remove(groups)


def _wait_ready(notify: socket.socket, pid: int, log: Path) -> None:
    """Wait for READY=1 (sd_notify(3)), or for the daemon's end."""
    handle = os.pidfd_open(pid)
    try:
        while True:
            watched: list[socket.socket | int] = [notify, handle]
            readable, _, _ = select.select(watched, [], [], _READY_S)
            if notify in readable:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
                continue
            why = "ended at once" if readable else f"was not ready within {_READY_S:g} s"
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            last = lines[-1][-200:] if lines else "it said nothing"
            raise HostError(f"the run's own Docker daemon {why}: {last}")
    finally:
        os.close(handle)
