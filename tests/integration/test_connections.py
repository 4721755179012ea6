"""Trials over other libvirt connections: a daemon in the lab, and one of «another host»."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import lab
from harness.drivers import libvirt_connect
from harness.drivers.libvirt_connect import open_daemon, prepare_libvirt
from harness.drivers.libvirt_host import open_hypervisor
from harness.drivers.libvirt_pool import build_place, build_pool_xml
from harness.errors import HarnessError, TrialError
from harness.images.model import GuestKernel, Image, Programs
from harness.paths import cache_dir, register_dir
from harness.probes import request
from harness.starter import read_clock
from tests.integration.laboratory import run_in_lab
from tests.integration.libvirt_rig import (
    REMOTE,
    SOCKET,
    Host,
    list_left,
    run_beside_host,
    start_daemon,
    wait_for,
)
from tests.integration.machines import Parts

SYSTEM = "qemu:///system"
PLATFORMS = ("vm-direct", "vm-microvm")
MILESTONES = {"request", "created", "kernel", "init", "exec", "ready"}
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def parts(tiny_image: Image, programs: Programs, guest_kernel: GuestKernel) -> Parts:
    return Parts(tiny_image, programs, guest_kernel)


def start_trial(parts: Parts, run_id: str, platform: str, uri: str) -> dict[str, Any]:
    """A trial from the run's start to its end, and what there was to see of it."""
    driver = parts.driver(platform, run_id, connection=uri)
    spec = parts.spec(run_id, command=("sh", "-c", "echo hello; echo up"), ready="output:up")
    with driver.start_run([spec]), driver.start_instance(spec) as instance:
        instance.wait_ready()
        processes = instance.processes()
        connection = open_hypervisor(uri, driver.root).connection
        found = {
            "uri": instance.domain.handle.connect().getURI(),
            "memory": instance.ask("memory").split(),
            "round_trips": instance.round_trips(9),
            "inside": processes.inside,
            "elsewhere": processes.elsewhere,
            "files": instance.files(),
            "during": list_left(connection),
            "xml": instance.domain.handle.XMLDesc(0),
            "folder": sorted(path.name for path in spec.folder.iterdir()),
            "no_network": driver.no_network,
        }
        instance.stop()
        found |= {"milestones": instance.milestones, "ends": instance.ends,
                  "output": instance.channel.output.decode(),
                  "console": instance.layout.console_log.read_text()}  # fmt: skip
    return {**found, "after": list_left(open_hypervisor(uri, driver.root).connection)}


def check_trial(found: dict[str, Any]) -> None:
    """What holds over every connection to a daemon."""
    stamps = found["milestones"]
    assert set(stamps) == MILESTONES
    assert stamps["request"] < stamps["created"] < stamps["init"] < stamps["exec"]
    total, available = map(int, found["memory"])
    assert 0 < available < total
    assert len(found["round_trips"]) == 9 and 0 < max(found["round_trips"]) < 1
    assert found["output"] == "hello\nup\n"
    assert "@harness init" in found["console"]
    assert (found["inside"], found["files"]) == ([], None)
    assert "released" in found["ends"] and "destroyed" not in found["ends"]
    assert len(found["during"]) == 2
    assert found["after"] == []


# ---- the same trial --------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_daemon_of_this_host(parts: Parts, tmp_path: Path, platform: str) -> None:
    def start(run_id: str) -> Any:
        with start_daemon():
            return start_trial(parts, run_id, platform, SYSTEM)

    found = run_in_lab(start, tmp_path)
    check_trial(found)
    assert found["uri"] == SYSTEM
    assert not found["elsewhere"]
    assert found["no_network"] is None  # it runs in the lab
    assert "overlay.qcow2" not in found["folder"]  # the daemon made it


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_daemon_of_another_host_is_told_no_path_of_this_one(
    parts: Parts, tmp_path: Path, platform: str
) -> None:
    def beside(host: Host) -> Any:
        found = run_in_lab(lambda run_id: start_trial(parts, run_id, platform, REMOTE), tmp_path)
        return [found, host.list_machines(), host.list_files()]

    found, machines, files = run_beside_host(beside, tmp_path)
    check_trial(found)
    assert found["elsewhere"]
    assert "another host" in found["no_network"]
    assert str(cache_dir()) not in found["xml"]
    assert (machines, files) == ([], [])


@pytest.mark.parametrize("uri", ["qemu:///session", f"qemu+unix:///session?socket={SOCKET}"])
def test_a_session(parts: Parts, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(SOCKET.parents[1]))

    def start(run_id: str) -> Any:
        with start_daemon():
            return start_trial(parts, run_id, "vm-microvm", uri)

    found = run_in_lab(start, tmp_path)
    check_trial(found)
    assert "/var/tmp/harness-" in found["xml"]


def test_a_disk_of_its_own_is_uploaded(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with start_daemon():
            return start_trial(parts, run_id, "vm-microvm/disk=raw", SYSTEM)

    check_trial(run_in_lab(start, tmp_path))


def test_a_service_answers_over_the_labs_bridge(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> int:
        address = lab.build_address(7)
        spec = parts.spec(
            run_id,
            command=("sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"),
            ready="tcp:8080",
            address=address,
            gateway=lab.GATEWAY,
            bridge=lab.BRIDGE,
        )
        driver = parts.driver("vm-microvm", run_id, connection=SYSTEM)
        with start_daemon(), driver.start_run([spec]), driver.start_instance(spec) as instance:
            instance.wait_ready()
            host, until = address.partition("/")[0], read_clock() + 5 * SECOND
            stamp = request.request_first_answer(host, 8080, "/index.html", until)
            return int(stamp - instance.milestones["ready"])

    assert 0 < run_in_lab(start, tmp_path) < SECOND


# ---- what is not ours ------------------------------------------------------------------------

USERS = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"""


def test_what_the_user_has_is_never_touched(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with start_daemon():
            connection = open_hypervisor(SYSTEM, tmp_path / "libvirt").connection
            for name in ("mine", f"harness-{run_id}-one"):
                connection.defineXML(USERS.format(name=name))
            said = attempt(lambda: start_trial(parts, run_id, "vm-microvm", SYSTEM))
            return [said, list_left(connection), run_id]

    said, left, run_id = run_in_lab(start, tmp_path)
    assert said == (
        f"libvirt has a virtual machine named harness-{run_id}-one that no run made "
        "(it was left alone; begin a run of another name)"
    )
    assert left == sorted([f"harness-{run_id}-one", "mine"])


def test_a_pool_of_the_user_with_the_runs_name(parts: Parts, tmp_path: Path) -> None:
    def start(run_id: str) -> Any:
        with start_daemon():
            connection = open_hypervisor(SYSTEM, tmp_path / "libvirt").connection
            place = build_place(run_id, SYSTEM)
            text = build_pool_xml(place).replace(place.uuid, "c7f0c0f2-3d52-4d49-8a3a-1d0d2f3b0d11")
            connection.storagePoolDefineXML(text)
            said = attempt(lambda: start_trial(parts, run_id, "vm-microvm", SYSTEM))
            return [said, list_left(connection), run_id]

    said, left, run_id = run_in_lab(start, tmp_path)
    assert said == (
        f"libvirt has a storage pool named harness-{run_id} that no run made "
        "(it was left alone; begin a run of another name)"
    )
    assert left == [f"harness-{run_id}"]


def attempt(function: Callable[[], Any]) -> str:
    """What it fails with, as a user sees it."""
    try:
        function()
    except HarnessError as error:
        return str(error)
    raise AssertionError("it did not fail")


# ---- connections that fail -------------------------------------------------------------------


def test_an_address_that_nobody_answers_at(tmp_path: Path) -> None:
    def work(host: Host) -> list[Any]:
        prepare_libvirt(None)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            uri = f"qemu+tcp://127.0.0.1:{listener.getsockname()[1]}/system"
            begun = time.monotonic()
            said = attempt(lambda: open_daemon(uri, 1.5))
            return [uri, said, time.monotonic() - begun]

    uri, said, seconds = run_beside_host(work, tmp_path)
    assert seconds < 3
    assert said == (
        f"libvirt connection {uri}: no answer within 1.5 s "
        f"(try it by hand: virsh --connect '{uri}' version)"
    )


@pytest.mark.parametrize(
    "uri", ["qemu:///nowhere", "qemu+tcp://127.0.0.1:9/system", "qemu+tcp://no.host.invalid/system"]
)
def test_a_connection_that_does_not_exist_is_told_in_one_line(
    parts: Parts, tmp_path: Path, uri: str
) -> None:
    def start(run_id: str) -> str:
        driver = parts.driver("vm-microvm", run_id, connection=uri)
        with contextlib.ExitStack() as stack:
            return attempt(lambda: stack.enter_context(driver.start_run([parts.spec(run_id)])))

    said = run_in_lab(start, tmp_path)
    assert said.startswith(f"libvirt connection {uri}: ")
    assert "\n" not in said


def test_a_libvirt_that_is_too_old(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt_connect, "read_daemon_version", lambda _connection: 3_002_001)

    def start(run_id: str) -> str:
        with start_daemon():
            return attempt(lambda: start_trial(parts, run_id, "vm-microvm", SYSTEM))

    assert run_in_lab(start, tmp_path) == (
        "libvirt connection qemu:///system: sparse uploads came with libvirt 3.4.0, and this is "
        "3.2.1 (a newer libvirt there, or the embedded one, which is the default)"
    )


def test_a_daemon_that_dies_in_mid_trial_fails_that_trial_alone(
    parts: Parts, tmp_path: Path
) -> None:
    def work(run_id: str, host: Host) -> Any:
        driver = parts.driver("vm-microvm", run_id, connection=REMOTE)
        spec = parts.spec(run_id, command=("sleep", "60"), ready="output:never", timeout=20.0)
        with driver.start_run([spec]):
            begun = time.monotonic()
            try:
                with driver.start_instance(spec) as instance:
                    instance.channel.wait_for("exec", read_clock() + 20 * SECOND)
                    host.kill_daemon()
                    instance.wait_ready()
            except TrialError as error:
                said, seconds = error.message, time.monotonic() - begun
            host.launch_daemon()
            second = parts.spec(run_id, "two", timeout=20.0)
            with driver.start_instance(second) as instance:
                instance.wait_ready()
        return [said, seconds, list_left(open_hypervisor(REMOTE, driver.root).connection)]

    def beside(host: Host) -> Any:
        found = run_in_lab(lambda run_id: work(run_id, host), tmp_path)
        return [*found, host.list_machines(), host.list_files()]

    said, seconds, left, machines, files = run_beside_host(beside, tmp_path)
    assert said.startswith("the virtual machine ended after exec: the connection to libvirt ")
    assert seconds < 15
    assert (left, machines, files) == ([], [], [])


# ---- a run that is killed --------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["harness", "lab"])
def test_a_killed_run_leaves_nothing_with_the_daemon(
    parts: Parts, tmp_path: Path, victim: str
) -> None:
    def beside(host: Host) -> Any:
        words = ["run", "--platform", "vm-microvm", "--workload", "noop", "--image", "tiny"]
        words += ["--blocks", "50", "--connection", REMOTE, "--out", str(tmp_path / "out")]
        with subprocess.Popen([sys.executable, "-m", "harness", *words]) as process:
            wait_for(lambda: any("guest=harness-" in each for each in host.list_machines()))
            os.kill(process.pid if victim == "harness" else find_init(process.pid), signal.SIGKILL)
        wait_for(lambda: not host.list_machines())
        if victim == "harness":
            wait_for(lambda: not host.list_files())
        cleaned = subprocess.run(
            [sys.executable, "-m", "harness", "clean"], stdout=subprocess.PIPE, text=True
        )
        return [cleaned.returncode, cleaned.stdout, host.list_files()]

    code, said, files = run_beside_host(beside, tmp_path)
    assert (code, files) == (0, [])
    assert ("removed storage pool harness-" in said) == (victim == "lab")
    assert not list(register_dir().glob("*.json"))


def find_init(harness: int) -> int:
    """The first process of the lab: it is the keeper's child."""

    def child(pid: int) -> int:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    return child(child(harness))
