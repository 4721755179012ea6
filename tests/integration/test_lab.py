"""The lab on the real kernel: what is inside, and that nothing outlives it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab, linux
from harness.images.model import Image, Programs
from harness.paths import register_dir, scratch_root
from tests.integration.laboratory import look_inside, run_in_lab

LONG_RUN = """
import os, subprocess, sys, time
from pathlib import Path
from harness import cgroup, lab, linux
def work():
    tree = cgroup.find_tree("{run_id}")
    folders = tree.start("instance") if tree else ()
    Path(lab.build_record("{run_id}").scratch, "file").parent.mkdir(parents=True)
    Path(lab.build_record("{run_id}").scratch, "file").write_text("x")
    with cgroup.entered(folders):
        subprocess.Popen(["sleep", "4321"], start_new_session=True)
    print("up", os.getppid(), flush=True)
    try:
        time.sleep(60)
    finally:
        print("teardown", flush=True)
    return 0
sys.exit(lab.run_inside(work, "{run_id}"))
"""

SOCKETS = (
    *("dbus/system_bus_socket", "systemd/private", "systemd/journal/stdout", "docker.sock"),
    *("systemd/machine/io.systemd.Machine", "user/0/bus", "user/0/systemd/private"),
    "user/0/docker.sock",
)


def list_sleepers() -> list[int]:
    """Host pids of the sleep that the long run starts."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes() == b"sleep\x004321\x00":
                found.append(int(entry.name))
    return found


def wait_for_sleepers() -> bool:
    """Whether it runs: the kernel says that a program was begun before its command line is there
    to be read (execve(2): what is to be closed is, and only then is the stack made)."""
    for _ in range(100):
        if list_sleepers():
            return True
        time.sleep(0.05)
    return False


def list_groups(run_id: str) -> list[Path]:
    return lab._find_groups(cgroup.PREFIX + run_id)


def wait_until_gone(run_id: str) -> bool:
    """Whether processes, groups and scratch are gone; init goes on for a moment after a kill."""
    for _ in range(100):
        scratch = (scratch_root() / run_id).exists()
        if not list_sleepers() and not list_groups(run_id) and not scratch:
            return True
        time.sleep(0.05)
    return False


@contextlib.contextmanager
def long_run(run_id: str) -> Any:
    """A harness process with a lab, a group, a scratch file and a child that ignores its parent."""
    with subprocess.Popen(
        [sys.executable, "-c", LONG_RUN.format(run_id=run_id)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("up ")
        try:
            yield process
        finally:
            process.kill()


def find_children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_lab_has_its_own_processes_network_and_bridge(tmp_path: Path) -> None:
    def look(_: str) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "links": sorted(os.listdir("/sys/class/net")),
            "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        }

    seen = run_in_lab(look, tmp_path)
    assert seen["pid"] < 100
    assert set(seen["links"]) >= {"lo", lab.BRIDGE}
    assert len(seen["processes"]) < 10
    assert lab.BRIDGE not in os.listdir("/sys/class/net")


def test_the_exit_code_of_the_work_is_the_labs() -> None:
    assert lab.run_inside(lambda: 7, "testexit") == 7


def test_an_orderly_end_leaves_no_record_group_or_scratch(tmp_path: Path) -> None:
    def make(run_id: str) -> str:
        tree = cgroup.find_tree(run_id)
        assert tree is not None, "this host gives root no usable cgroups"
        tree.start("one")
        scratch = Path(lab.build_record(run_id).scratch)
        scratch.mkdir(parents=True)
        (scratch / "file").write_text("x")
        return run_id

    run_id = run_in_lab(make, tmp_path)
    assert list_groups(run_id) == []
    assert not (scratch_root() / run_id).exists()
    assert not (register_dir() / f"{run_id}.json").exists()


@pytest.mark.parametrize("depth", [0, 1, 2, 3], ids=["harness", "keeper", "init", "worker"])
def test_kill_9_of_any_process_of_the_harness_ends_everything(depth: int) -> None:
    run_id = f"testkill{depth}"
    with long_run(run_id) as process:
        victim = process.pid
        for _ in range(depth):
            (victim,) = find_children(victim)[:1]
        assert wait_for_sleepers(), "the run started nothing"
        os.kill(victim, signal.SIGKILL)
        process.wait(10)
        if depth == 2:  # init itself: its groups are left to `clean`
            time.sleep(0.2)
            lab.clean_dead_runs()
        assert wait_until_gone(run_id), (list_sleepers(), list_groups(run_id))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_request_to_end_lets_the_work_tear_down(number: int, code: int) -> None:
    run_id = f"testend{code}"
    with long_run(run_id) as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)
        assert "teardown" in out
        assert process.returncode == code
        assert wait_until_gone(run_id)


def test_clean_takes_dead_runs_and_leaves_living_ones_alone() -> None:
    with long_run("testalive"):
        before = list_groups("testalive")
        record = register_dir() / "testdead.json"
        scratch = scratch_root() / "testdead"
        scratch.mkdir(parents=True)
        record.write_text(
            json.dumps(
                {"run_id": "testdead", "scratch": str(scratch), "cgroup": "harness-testdead"}
            )
        )
        said = lab.clean_dead_runs()
        assert any("testdead" in line for line in said)
        assert not scratch.exists()
        assert not record.exists()
        assert list_groups("testalive") == before
        assert wait_for_sleepers()


def test_clean_never_follows_a_record_out_of_the_scratch_folder(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    record = register_dir() / "testevil.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(
        json.dumps({"run_id": "testevil", "scratch": str(precious), "cgroup": "harness-testevil"})
    )
    lab.clean_dead_runs()
    assert precious.exists()


def test_addresses_of_many_instances_are_distinct() -> None:
    addresses = {lab.build_address(number) for number in range(32_000)}
    assert len(addresses) == 32_000
    assert f"{lab.GATEWAY}/{lab.PREFIX}" not in addresses


@pytest.mark.parametrize(
    "name",
    ["ca che", "ca,ch:e", "ca'ch\"e", "caché\\x", "n" * 120, os.fsdecode(b"ca\xffche")],
    ids=ascii,
)
def test_the_cache_has_one_short_name_in_the_lab_wherever_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / name))

    def look(run_id: str) -> dict[str, str]:
        scratch = scratch_root() / run_id
        (scratch / "in side").mkdir(parents=True)
        linux.mount(
            "tmpfs", scratch / "in side", "tmpfs"
        )  # the lab's end has to find and detach it
        outside = Path(lab.build_record(run_id).scratch)
        return {"inside": str(scratch), "outside": str(outside), "run": run_id}

    seen = run_in_lab(look, tmp_path)
    assert seen["inside"] == f"/run/lab/scratch/{seen['run']}"
    assert seen["outside"] == str(tmp_path / name / "scratch" / seen["run"])
    assert not list((tmp_path / name / "scratch").iterdir())
    assert not list((tmp_path / name / "runs").iterdir())


def test_the_lab_sees_no_bus_and_no_service_of_the_host(tmp_path: Path) -> None:
    """With a host that has them: a /run of the test's own, in a mount namespace of its own."""
    script = f"""
import json, os, socket, sys
from pathlib import Path
from harness import linux
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
linux.mount("tmpfs", "/run", "tmpfs")
kept = []
for name in {list(SOCKETS)!r}:
    Path("/run", name).parent.mkdir(parents=True, exist_ok=True)
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind("/run/" + name)
    kept[-1].listen()
Path("/run/systemd/resolve").mkdir()
Path("/run/systemd/resolve/stub-resolv.conf").write_text("nameserver 127.0.0.53")
Path("/run/shm").symlink_to("/dev/shm")
for name in ("lab", "devices"):  # the lab's own names
    Path("/run", name, "in").mkdir(parents=True)
Path(os.fsdecode(b"/run/no\\xfftext")).mkdir()
from tests.integration.laboratory import look_inside, run_in_lab
def look(_):
    found = []
    for name in {list(SOCKETS)!r}:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex("/run/" + name) == 0:
                found.append(name)
    names = sorted(os.listdir("/run"))
    text = Path("/run/systemd/resolve/stub-resolv.conf").read_text()
    shared = os.stat("/dev/null").st_dev == os.stat("/run/devices").st_dev
    own = [os.path.exists("/run/lab/in"), shared]
    link, language = os.readlink("/run/shm"), os.environ["LC_ALL"]
    return [found, names, text, link, sorted(os.environ), language, own]
print(json.dumps(run_in_lab(look, Path({str(tmp_path)!r}))))
"""
    services = {"NOTIFY_SOCKET": "/run/notify", "LISTEN_FDS": "1", "INVOCATION_ID": "1"}
    services |= {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus", "LC_NUMERIC": "de_DE"}
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **services, "XDG_RUNTIME_DIR": "/run/user/0"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    reached, names, resolver, link, variables, language, own = json.loads(said)
    assert own == [False, True]
    assert reached == ["docker.sock", "user/0/docker.sock"]
    assert {"lab", "lock", "systemd", "user"} <= set(names)
    assert resolver.startswith("nameserver")
    assert link == "/dev/shm"
    assert not {*services, "XDG_RUNTIME_DIR"} & set(variables)
    assert language == "C.UTF-8"


def test_what_is_done_to_the_null_device_is_not_done_to_the_hosts(tmp_path: Path) -> None:
    """gVisor gives it to the user that it runs a workload as."""
    before = Path(os.devnull).stat()

    def work(_run_id: str) -> list[int]:
        os.chown(os.devnull, 65_534, 65_534)
        with open(os.devnull, "w") as sink:
            sink.write("nothing")
        return [os.stat(os.devnull).st_uid, os.stat(os.devnull).st_rdev]

    try:
        assert run_in_lab(work, tmp_path) == [65_534, before.st_rdev]
        assert Path(os.devnull).stat().st_uid == before.st_uid
    finally:
        os.chown(os.devnull, before.st_uid, before.st_gid)


def test_a_full_cache_is_no_wall_of_a_namespace(tmp_path: Path) -> None:
    script = f"""
import os, sys
from harness import lab, linux
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
linux.mount("tmpfs", {str(tmp_path)!r}, "tmpfs", 0, "nr_inodes=2")
os.environ["HARNESS_CACHE"] = {str(tmp_path)!r}
from harness.errors import HostError
try:
    lab.run_inside(lambda: 0, "testfull")
except HostError as error:
    sys.exit(f"{{error}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"{tmp_path}/lab: No space left on device (free some space, or point HARNESS_CACHE at a "
        "larger disk)"
    )


def test_a_cache_that_programs_cannot_be_started_from_is_named(tmp_path: Path) -> None:
    place = tmp_path / "ca che"
    place.mkdir()
    script = f"""
import os, sys
from pathlib import Path
from harness import lab, linux
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
linux.mount("tmpfs", {str(place)!r}, "tmpfs", linux.MS_NOEXEC)
os.environ["HARNESS_CACHE"] = {str(place)!r}
from harness.errors import HostError
try:
    lab.run_inside(lambda: 0, "testnoexec")
except HostError as error:
    sys.exit(f"{{error}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"the cache {place} is on a file system that is mounted noexec" in done.stderr
    assert f"mount -o remount,exec '{place}'" in done.stderr


@pytest.mark.parametrize("platform", ["process", "namespace", "runc", "crun"])
def test_the_user_s_umask_has_no_part_in_an_instance(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    old = os.umask(0o077)
    try:
        seen = look_inside(
            platform, tiny_image, programs, tmp_path, "umask; stat -c %a /; id -u", user="123:123"
        )
    finally:
        os.umask(old)
    assert seen == ["0022", "755", "123"]
