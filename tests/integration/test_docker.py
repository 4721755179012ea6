"""Docker for real: on a daemon of the run's own, and on one that was there before."""

import json
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.docker_api import (
    find_daemon_fault,
    load_image,
    open_api,
    read_cgroup_driver,
    remove_run,
    start_end_watch,
)
from harness.errors import HarnessError, HostError
from harness.images.model import Image, Programs
from harness.model import build_phases
from harness.paths import scratch_root
from harness.probes import memory
from harness.probes.cpu import open_account
from tests.integration.docker_rig import Bench, start_users_daemon
from tests.integration.laboratory import build_spec, run_in_lab

OUTSIDE = ("/run/containerd", "/run/docker", "/run/runc", "/run/crun")


@pytest.fixture(scope="module")
def own_daemon(tiny_image: Image, programs: Programs, tmp_path_factory: Any) -> dict[str, Any]:
    """Everything that is asked of a private daemon, asked in one lab: it takes a second to start.

    The answers are judged one by one below.
    """

    def ask(run_id: str) -> dict[str, Any]:
        with Bench(tiny_image, programs, run_id, None) as bench:
            found: dict[str, Any] = {
                "stamps": {name: read_stamps(bench, name) for name in RUNTIMES},
                "counted": count(bench),
                "variants": look_at_variants(bench),
                "service": ask_service(bench),
                "failures": fail_in_every_way(bench),
            }
            found["left"] = list_containers(bench)
            found["killed"] = kill_daemon(bench)
        scratch = str(scratch_root() / run_id)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found["left"] += [line for line in mounts if f"{scratch}/docker" in line]
        return found

    before = [path for path in OUTSIDE if os.path.exists(path)]
    found: dict[str, Any] = run_in_lab(ask, tmp_path_factory.mktemp("docker"))
    found["outside"] = [path for path in OUTSIDE if os.path.exists(path) and path not in before]
    return found


RUNTIMES = ("docker", "docker+crun", "docker+gvisor")


def read_stamps(bench: Bench, platform: str) -> dict[str, int]:
    with bench.instance(f"stamps-{platform[7:]}", platform) as instance:
        return dict(instance.milestones)


def count(bench: Bench) -> dict[str, Any]:
    account = open_account(
        cgroup.find_tree(bench.run_id).start("counted"),  # type: ignore[union-attr]
        bench.driver.daemon,
    )
    script = "sleep 60 & echo up; wait"
    with bench.instance("counted", command=("sh", "-c", script), ready="output:up") as instance:
        used = account.read(instance)
        processes = instance.processes()
        names = {
            pid: Path(f"/proc/{pid}/comm").read_text().strip()
            for pid in (*processes.inside, *processes.helpers)
        }
        charge = cgroup.read_memory(instance.cgroups)
        assert charge is not None
        return {
            "inside": [names[pid] for pid in processes.inside],
            "helpers": [names[pid] for pid in processes.helpers],
            "cpu": used,
            "charge": charge.total,
            "daemon": [row.value for row in memory.read_daemon(bench.driver.daemon)],
        }


def look_at_variants(bench: Bench) -> dict[str, list[str]]:
    script = "grep ^Seccomp: /proc/self/status; touch /file 2>/dev/null && echo written; "
    script += "ls /sys/class/net"
    big = "awk 'BEGIN { s = \"x\"; for (i = 0; i < 28; i++) s = s s }'; echo status $?"
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "docker": (script, {}),
        "docker/host-net/no-seccomp/read-only": (script, {"host_network": True}),
        "docker/memory=128MiB": (big, {"ready": "output:status"}),
    }
    found = {}
    for number, (platform, (text, changes)) in enumerate(asked.items()):
        command = ("sh", "-c", text)
        with bench.instance(f"variant{number}", platform, command=command, **changes) as instance:
            instance.stop()
            found[platform] = instance.channel.output.decode().splitlines()
    return found


def ask_service(bench: Bench) -> bool:
    from harness.probes.request import request_first_answer
    from harness.starter import read_clock

    script = "mkdir /www; echo hello >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
    with bench.instance(
        "service",
        command=("sh", "-c", script),
        ready="tcp:8080",
        address=lab.build_address(7),
        gateway=lab.GATEWAY,
        bridge=lab.BRIDGE,
    ) as instance:
        deadline = read_clock() + 5_000_000_000
        stamp = request_first_answer(instance.address, 8080, "/", deadline)
        return bool(stamp > instance.milestones["ready"])


def fail_in_every_way(bench: Bench) -> dict[str, str]:
    found = {
        "command": bench.fail("command", command=("no-such-thing",)),
        "never": bench.fail("never", command=("sleep", "50"), timeout=1.0),
        "image": bench.fail("image", image=replace(bench.image, name="absent")),
    }
    with open_api(bench.driver.daemon.host) as api:  # type: ignore[union-attr]
        mine = api.create_container(
            f"harness/tiny:{bench.run_id}", ["true"], name=f"{cgroup.PREFIX}{bench.run_id}-taken"
        )["Id"]
        found["collision"] = bench.fail("taken")
        found["kept"] = api.inspect_container(mine)["Name"]
        api.remove_container(mine)
    spec_command = "kill -9 1; kill -9 $PPID; sleep 5"
    found["died"] = bench.fail("died", command=("sh", "-c", spec_command), ready="output:never")
    return found


def list_containers(bench: Bench) -> list[str]:
    with open_api(bench.driver.daemon.host) as api:  # type: ignore[union-attr]
        return [each["Names"][0] for each in api.containers(all=True)]


def kill_daemon(bench: Bench) -> str:
    daemon = bench.driver.daemon
    assert daemon is not None
    pids = daemon.processes().inside
    script = ("sh", "-c", "sleep 60")
    driver = load_driver("docker", bench.toolbox)
    spec = build_spec(bench.image, bench.run_id, "orphan", command=script, ready="output:never")
    try:
        with driver.start_instance(spec) as instance:
            for pid in pids:
                with suppress(ProcessLookupError):  # containerd ends with the daemon that has it
                    os.kill(pid, 9)
            instance.wait_ready()
    except HarnessError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("platform", RUNTIMES)
def test_milestones_come_in_order(platform: str, own_daemon: dict[str, Any]) -> None:
    stamps = own_daemon["stamps"][platform]
    names = ["request", "created", "started", "init", "exec", "ready"]
    if platform == "docker+gvisor":
        names.remove("started")
    assert set(stamps) == set(names)
    order = [name for name, _ in sorted(stamps.items(), key=lambda pair: pair[1])]
    if platform == "docker+crun":  # crun may write its state when the agent runs already
        order, names = ([name for name in each if name != "started"] for each in (order, names))
    else:
        assert build_phases(stamps)["residual"] == 0
    assert order == names


def test_nothing_is_left(own_daemon: dict[str, Any]) -> None:
    assert own_daemon["left"] == []
    assert own_daemon["outside"] == []


def test_the_shim_and_the_daemons_share_are_counted(own_daemon: dict[str, Any]) -> None:
    found = own_daemon["counted"]
    assert "agent" in found["inside"]
    assert len(found["inside"]) == 3
    assert len(found["helpers"]) == 1
    assert found["helpers"][0].startswith("containerd-shim")
    assert 0 < found["cpu"]["daemon"] < found["cpu"][""]
    assert found["charge"] > 0
    assert found["daemon"][0] > 10 << 20


def test_variants_do_what_they_are_called(own_daemon: dict[str, Any]) -> None:
    plain, strict, limited = own_daemon["variants"].values()
    assert plain == ["Seccomp:\t2", "written", "lo"]
    assert strict[0] == "Seccomp:\t0"
    assert "written" not in strict
    assert lab.BRIDGE in strict
    assert limited[-1] != "status 0"


def test_a_service_answers_over_the_bridge(own_daemon: dict[str, Any]) -> None:
    assert own_daemon["service"] is True


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("command", "exec no-such-thing: No such file or directory"),
        ("never", "not ready within 1 s"),
        ("image", "No such image: harness/absent"),
        ("collision", "is already in use by container"),
        ("died", "before it was ready"),
    ],
)
def test_a_start_that_cannot_succeed_says_why(
    case: str, words: str, own_daemon: dict[str, Any]
) -> None:
    assert words in own_daemon["failures"][case]


def test_a_container_of_the_same_name_is_left_alone(own_daemon: dict[str, Any]) -> None:
    assert own_daemon["failures"]["kept"].endswith("-taken")


def test_a_daemon_killed_in_mid_trial_fails_the_trial(own_daemon: dict[str, Any]) -> None:
    assert "daemon" in own_daemon["killed"]


# ---- a daemon that was there before ----------------------------------------------------------


@pytest.fixture(scope="module")
def users_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_users_daemon(tmp_path_factory.mktemp("d")) as host:
        yield host


def test_a_running_daemon_is_used_and_nothing_of_its_users_is_touched(
    users_daemon: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    with open_api(users_daemon) as api:
        load_image(api, tiny_image, "theirs", tmp_path)
        api.tag("harness/tiny:theirs", "mine", "latest")
        mine = api.create_container("mine", ["true"], name="mine", labels={"harness.run": "other"})

    def run(run_id: str) -> dict[str, Any]:
        with Bench(tiny_image, programs, run_id, users_daemon) as bench:
            account = open_account(
                cgroup.find_tree(run_id).start("one"),  # type: ignore[union-attr]
                bench.driver.daemon,
            )
            with bench.instance("one") as instance:
                processes = instance.processes()
                found = {
                    "pss": memory.read_pss(processes.inside, processes.proc),
                    "shims": memory.read_pss(processes.helpers, processes.proc),
                    "daemon": [row.value for row in memory.read_daemon(bench.driver.daemon)],
                    "cpu": account.read(instance),
                    "network": bench.driver.no_network,
                    "stamps": dict(instance.milestones),
                }
            # One more is left running, as by a harness that is killed.
            spec = build_spec(tiny_image, run_id, "two")
            kept = load_driver("docker", bench.toolbox).start_instance(spec)
            kept.__enter__()
            with open_api(users_daemon) as api:
                found["running"] = len(api.containers(filters={"label": f"harness.run={run_id}"}))
        return found

    found = run_in_lab(run, tmp_path)
    assert found["pss"] > 0
    assert found["shims"] > 0
    assert found["daemon"][0] > 10 << 20
    assert found["cpu"][""] > 0
    assert "not on the lab's bridge" in found["network"]
    assert {"request", "created", "init", "exec", "ready"} <= set(found["stamps"])
    assert found["running"] == 1
    with open_api(users_daemon) as api:
        assert [each["Id"] for each in api.containers(all=True)] == [mine["Id"]]
        tags = {tag for image in api.images() for tag in image["RepoTags"]}
        assert tags == {"harness/tiny:theirs", "mine:latest"}


def test_what_a_killed_run_left_in_a_daemon_is_cleaned(
    users_daemon: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def start_and_die(run_id: str) -> None:
        bench = Bench(tiny_image, programs, run_id, users_daemon).__enter__()
        spec = build_spec(tiny_image, run_id, "lost")
        kept = bench.driver.start_instance(spec)
        kept.__enter__().wait_ready()
        with open_api(users_daemon) as api:
            found = api.containers(filters={"label": f"harness.run={run_id}"})
        (tmp_path / "count").write_text(str(len(found)))
        os.kill(os.getpid(), 9)

    with suppress(AssertionError):
        run_in_lab(start_and_die, tmp_path)
    assert (tmp_path / "count").read_text() == "1"
    with open_api(users_daemon) as api:
        names = [name for each in api.containers(all=True) for name in each["Names"]]
        assert [name for name in names if name.endswith("-lost")] == []
        tags = {tag for image in api.images() for tag in image["RepoTags"]}
        assert not any(tag.startswith("harness/") and ":test" in tag for tag in tags)


def test_clean_takes_a_dead_run_from_a_daemon_and_nothing_else(
    users_daemon: str, tiny_image: Image, tmp_path: Path
) -> None:
    """As after the end of the lab's own init: only the register knows of the run."""
    record = replace(lab.build_record("testdead"), docker=users_daemon)
    record.path.parent.mkdir(parents=True, exist_ok=True)
    with open_api(users_daemon) as api:
        for run_id in ("testdead", "testdead2"):
            load_image(api, tiny_image, run_id, tmp_path)
            labels, name = {"harness.run": run_id}, f"harness-{run_id}-0"
            api.create_container(f"harness/tiny:{run_id}", ["true"], name=name, labels=labels)
        record.path.write_text(json.dumps(asdict(record)))
        said = lab.clean_dead_runs()
        names = [name for each in api.containers(all=True) for name in each["Names"]]
        tags = {tag for image in api.images() for tag in image["RepoTags"]}
        remove_run(users_daemon, "testdead2")
    assert "removed image harness/tiny:testdead" in said
    assert not record.path.exists()
    assert "/harness-testdead2-0" in names and "/harness-testdead-0" not in names
    assert "harness/tiny:testdead2" in tags and "harness/tiny:testdead" not in tags


def test_the_end_of_one_container_is_not_taken_for_another_s(
    users_daemon: str, tiny_image: Image, tmp_path: Path
) -> None:
    with open_api(users_daemon) as api, start_end_watch(users_daemon, "end-1") as watch:
        load_image(api, tiny_image, "testend", tmp_path)
        config = api.create_host_config(network_mode="none")
        for name, seconds in (("end-12", 0.5), ("end-1", 10)):
            mine = api.create_container(
                "harness/tiny:testend", ["true"], name=name, host_config=config
            )
            api.start(mine)
            api.wait(mine)
            woken, _, _ = select.select([watch.wake], [], [], seconds)
            api.remove_container(mine)
            assert bool(woken) == (name == "end-1")
        api.remove_image("harness/tiny:testend")


def test_a_daemon_whose_groups_systemd_makes_is_not_told_where_to_put_them(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    """Such a daemon refuses any parent but a slice, and so every container."""
    (tmp_path / "d").mkdir()
    changes = {"exec-opts": ["native.cgroupdriver=systemd"], "cgroup-parent": ""}

    def start(run_id: str) -> str:
        with Bench(tiny_image, programs, run_id, host) as bench:
            return bench.fail("one")

    with start_users_daemon(tmp_path / "d", **changes) as host:
        assert read_cgroup_driver(host) == "systemd"
        message = run_in_lab(start, tmp_path)
    assert "slice" not in message  # where no systemd runs, runc says so: the daemon took it


# ---- no daemon -------------------------------------------------------------------------------


def test_without_a_daemon_the_remedy_is_named(programs: Programs, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/none.sock"
    driver = load_driver("docker", Toolbox(starter=programs.starter, docker_host=host))
    reason = driver.unavailable()
    assert reason is not None
    assert "no Docker daemon answers at" in reason
    assert "--start-engines" in reason


def test_a_socket_without_permission_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("harness.drivers.docker_api.socket.socket.connect", refuse)
    fault = find_daemon_fault("unix:///run/docker.sock")
    assert fault is not None
    assert "may not use /run/docker.sock" in fault[0]
    assert "group docker" in fault[1]


def test_a_runtime_that_a_daemon_does_not_know_is_named(
    users_daemon: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def start(run_id: str) -> str:
        with Bench(tiny_image, programs, run_id, users_daemon) as bench:
            return bench.fail("one", "docker+crun")

    message = run_in_lab(start, tmp_path)
    assert "untime" in message
    assert "--start-engines" in message
    toolbox = Toolbox(starter=programs.starter, docker_host=users_daemon)
    assert load_driver("docker", toolbox).unavailable() is None
    reason = load_driver("docker+crun", toolbox).unavailable()
    assert reason is not None and "knows no runtime crun" in reason


def test_a_private_daemon_that_ends_at_once_says_why(
    monkeypatch: pytest.MonkeyPatch, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def start(run_id: str) -> str:
        monkeypatch.setattr(
            "harness.drivers.dockerd.build_daemon_config", lambda *_: {"no-such-key": 1}
        )
        try:
            with Bench(tiny_image, programs, run_id, None):
                return ""
        except HostError as error:
            return error.message

    message = run_in_lab(start, tmp_path)
    assert "own Docker daemon ended at once" in message
    assert "no-such-key" in message


def test_the_start_is_described(tiny_image: Image, programs: Programs, tmp_path: Path) -> None:
    spec = InstanceSpec("one", tmp_path, tiny_image, ("true",), {}, "exit", 128 << 20)
    toolbox = Toolbox(starter=programs.starter, run_id="r")
    described: Mapping[str, Any] = load_driver("docker/no-seccomp", toolbox).describe(spec)
    assert described["host_config"]["security_opt"] == ["seccomp=unconfined"]
    assert described["image"] == "harness/tiny:r"
