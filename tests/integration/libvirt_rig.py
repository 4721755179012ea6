"""Daemons of libvirt for tests: one in the lab, and one that is as far off as another host's.

Whatever they write is on memory file systems of their own mount namespace.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from harness import linux
from harness.paths import LAB_CACHE, cache_dir
from harness.process import run_command

PORT = 16509
REMOTE = f"qemu+tcp://127.0.0.1:{PORT}/system"
SOCKET = Path("/run/libvirt/libvirt-sock")
LIBVIRTD = "/usr/sbin/libvirtd"
WAIT_S = 60

_QEMU_CONF = """
security_driver = "none"
user = "+0"
group = "+0"
remember_owner = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
_DAEMON_CONF = f"""
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "127.0.0.1"
tcp_port = "{PORT}"
auth_tcp = "none"
"""


def hide_host(*folders: Path) -> None:
    """Give this mount namespace an /etc and a /var of its own, and nothing in ``folders``."""
    own_run = LAB_CACHE.is_dir()  # the lab's, where the cache is
    hidden = ("/var/lib", "/var/cache", "/var/log", "/mnt", *(() if own_run else ("/run",)))
    for folder in (*hidden, *map(str, folders)):
        linux.mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    for made in ("/mnt/upper", "/mnt/work", "/run/lock"):
        Path(made).mkdir(exist_ok=True)
    layers = "lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work"
    linux.mount("overlay", "/etc", "overlay", 0, layers)
    for name, line in (
        ("passwd", "libvirt-qemu:x:0:0::/:/bin/false"),
        ("group", "libvirt-qemu:x:0:"),
    ):
        with Path("/etc", name).open("a") as file:
            file.write(f"{line}\n")
    Path("/etc/libvirt").mkdir(exist_ok=True)
    Path("/etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
    Path("/etc/libvirt/libvirtd.conf").write_text(_DAEMON_CONF)


@contextmanager
def start_daemon() -> Iterator["subprocess.Popen[bytes]"]:
    """A libvirtd of the lab's own: for use in the lab."""
    hide_host()
    with launch() as process:
        yield process


@contextmanager
def launch() -> Iterator["subprocess.Popen[bytes]"]:
    """libvirtd, until the block is left."""
    with subprocess.Popen([LIBVIRTD], stderr=subprocess.DEVNULL) as process:
        wait_for(SOCKET.exists)
        try:
            yield process
        finally:
            process.terminate()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come within the time"
        time.sleep(0.02)


# ---- another host ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """A host that has a libvirtd with a listener; the lab sees neither its processes nor files."""

    stream: TextIO

    def list_machines(self) -> list[str]:
        """The command line of every QEMU there."""
        return list(self._ask("machines"))

    def list_files(self) -> list[str]:
        """Every file below the place of pools."""
        return list(self._ask("files"))

    def kill_daemon(self) -> None:
        """End libvirtd at once; its QEMUs stay."""
        self._ask("kill")

    def launch_daemon(self) -> None:
        self._ask("launch")

    def _ask(self, word: str) -> Any:
        self.stream.write(f"{word}\n")
        self.stream.flush()
        return json.loads(self.stream.readline())


def run_beside_host(function: Callable[[Host], Any], folder: Path) -> Any:
    """What ``function`` returns, called in a network of its own that has such a host.

    The harness's cache and ``folder`` are not among the host's files.
    """
    answer = folder / f"beside-{uuid.uuid4().hex}.json"

    def work() -> None:
        linux.unshare(linux.CLONE_NEWNET)
        run_command(["ip", "link", "set", "lo", "up"], timeout=10)
        with start_host(folder) as host:
            answer.write_text(json.dumps(function(host)))

    _run_in_child(work)
    return json.loads(answer.read_text())


def _run_in_child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "it failed beside the host"


@contextmanager
def start_host(folder: Path) -> Iterator[Host]:
    """The host's first process is killed in the end, and everything there with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    keeper = os.fork()
    if keeper == 0:
        ours.close()
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            try:
                _be_host(theirs, folder)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        theirs.close()
        os.waitpid(first, 0)
        os._exit(0)
    theirs.close()
    try:
        stream = ours.makefile("rw")
        assert stream.readline() == "ready\n"
        yield Host(stream)
    finally:
        ours.shutdown(socket.SHUT_RDWR)  # the host's first process ends, and all others with it
        os.waitpid(keeper, 0)


def _be_host(control: socket.socket, folder: Path) -> None:
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc")
    hide_host(cache_dir(), folder)
    daemon = _launch_listener()
    stream = control.makefile("rw")
    stream.write("ready\n")
    stream.flush()
    for line in stream:
        answer: object = None
        if line == "machines\n":
            answer = list_machines()
        elif line == "files\n":
            answer = [str(path) for path in Path("/var/lib/libvirt/images").rglob("*")]
        elif line == "kill\n":
            os.kill(daemon, signal.SIGKILL)
            wait_for(lambda: not _listens())  # else the next one is thought to be there already
        else:
            daemon = _launch_listener()
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


def _launch_listener() -> int:
    Path("/run/libvirtd.pid").unlink(missing_ok=True)
    signal.signal(signal.SIGCHLD, _reap)  # as the first process of a host does with orphans
    process = subprocess.Popen([LIBVIRTD, "--listen"], stderr=subprocess.DEVNULL)
    wait_for(_listens)
    return process.pid


def _reap(_number: int, _frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _listens() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", PORT)) == 0


def list_left(connection: Any) -> list[str]:
    """Every domain and pool that a libvirt knows."""
    domains = [each.name() for each in connection.listAllDomains()]
    pools = [each.name() for each in connection.listAllStoragePools()]
    return sorted([*domains, *pools])


def list_machines() -> list[str]:
    """The command line of every QEMU that can be seen."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"qemu-system" in (text := (entry / "cmdline").read_bytes()):
                found.append(text.replace(b"\0", b" ").decode(errors="replace"))
    return found
