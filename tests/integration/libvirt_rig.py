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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import linux
from harness.paths import cache_dir
from harness.process import run_command
from tests.integration.laboratory import run_in_lab

PORT = 16509
REMOTE = f"qemu+tcp://127.0.0.1:{PORT}/system"
SOCKET = Path("/run/libvirt/libvirt-sock")
LIBVIRTD = "/usr/sbin/libvirtd"
WAIT_S = 20

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
    for folder in ("/var/lib", "/var/cache", "/var/log", "/run", "/mnt", *map(str, folders)):
        linux.mount("tmpfs", folder, "tmpfs", 0, "mode=755")
    for made in ("/mnt/upper", "/mnt/work", "/run/lock"):
        Path(made).mkdir()
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


def run_beside_host(
    function: Callable[[str], Any], folder: Path, look: Callable[[], Any] | None = None
) -> tuple[Any, Any]:
    """What ``function(run_id)`` returns in a lab that reaches a libvirtd of «another host».

    That host is a network with a listener, and processes and files that the lab cannot see; the
    harness's cache and ``folder`` are not among its files. ``look`` is called there, once the lab
    is gone, and what it returns comes second.
    """
    answer = folder / f"beside-{uuid.uuid4().hex}.json"

    def work() -> None:
        linux.unshare(linux.CLONE_NEWNET)
        run_command(["ip", "link", "set", "lo", "up"], timeout=10)
        with start_host(folder, look) as finish:
            value = run_in_lab(function, folder)
            answer.write_text(json.dumps([value, finish()]))

    _run_in_child(work)
    value, seen = json.loads(answer.read_text())
    return value, seen


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
    assert status == 0, "the host beside the lab failed"


@contextmanager
def start_host(folder: Path, look: Callable[[], Any] | None) -> Iterator[Callable[[], Any]]:
    """Yields a function that has ``look`` called on that host."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            _be_host(theirs, folder, look)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    theirs.close()
    stream = ours.makefile("rw")
    try:
        assert stream.readline() == "ready\n"

        def finish() -> Any:
            stream.write("look\n")
            stream.flush()
            return json.loads(stream.readline())

        yield finish
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_host(control: socket.socket, folder: Path, look: Callable[[], Any] | None) -> None:
    """The host: its first process is killed with this one, and everything with that."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
    first = os.fork()
    if first:
        _die_with(first)
        return
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc")
    hide_host(cache_dir(), folder)
    daemon = subprocess.Popen([LIBVIRTD, "--listen"], stderr=subprocess.DEVNULL)
    wait_for(_listens)
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    stream = control.makefile("rw")
    stream.write("ready\n")
    stream.flush()
    for _ in stream:
        stream.write(json.dumps(look() if look else None) + "\n")
        stream.flush()
    daemon.kill()


def _die_with(first: int) -> None:
    os.waitpid(first, 0)


def _reap() -> None:
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


def list_machines() -> Sequence[str]:
    """The command line of every QEMU that can be seen."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"qemu-system" in (text := (entry / "cmdline").read_bytes()):
                found.append(text.replace(b"\0", b" ").decode(errors="replace"))
    return found
