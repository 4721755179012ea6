"""Podman for real, on a store of the run's own: with each runtime, counted whole, nothing left."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.conditions import read_storage
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.drivers.podman import PodmanDriver
from harness.errors import TrialError
from harness.images.model import Image, Programs
from harness.model import Kind, build_phases
from harness.paths import scratch_root
from harness.probes.cpu import open_account
from tests.integration.laboratory import instance_of, look_inside, run_in_lab

OUTSIDE = (
    *("/run/containers", "/run/libpod", "/run/runc", "/run/crun", "/run/netns"),
    *("/var/lib/cni", "/var/lib/containers"),
)
SHARED = ("/dev/shm", "/run/netns", "/var/lib/cni", "/var/lib/containers")
"""Where every Podman of a host keeps things, whatever its store."""


@pytest.mark.parametrize("platform", ["podman", "podman+crun", "podman+gvisor"])
def test_milestones_come_in_order_and_nothing_is_left(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    before = [path for path in OUTSIDE if os.path.exists(path)]

    def measure(run_id: str) -> dict[str, Any]:
        with instance_of(platform, tiny_image, programs, run_id) as instance:
            stamps = dict(instance.milestones)
            groups = instance.spec.cgroups
        scratch = str(scratch_root() / run_id)
        problems = [*cgroup.read_processes(groups), *cgroup.remove(groups)]
        everywhere = [str(each) for each in cgroup.find_everywhere(groups) if each.exists()]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines()
                  if scratch in line]  # fmt: skip
        return {"stamps": stamps, "left": [*problems, *everywhere, *mounts]}

    found = run_in_lab(measure, tmp_path)
    stamps = found["stamps"]
    names = ["request", "created", "started", "init", "exec", "ready"]
    if platform == "podman+gvisor":
        names.remove("started")
    assert set(stamps) == set(names)
    order = [name for name, _ in sorted(stamps.items(), key=lambda pair: pair[1])]
    if platform == "podman+crun":  # crun may write its state when the agent runs already
        order, names = ([name for name in each if name != "started"] for each in (order, names))
    else:
        assert build_phases(stamps)["residual"] == 0
    assert order == names
    assert found["left"] == []
    assert [path for path in OUTSIDE if os.path.exists(path)] == before


def test_the_monitor_and_podman_itself_are_counted(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def count(run_id: str) -> dict[str, Any]:
        tree = cgroup.find_tree(run_id)
        assert tree is not None
        account = open_account(tree.start("one"), None)
        script = "sleep 60 & echo up; wait"
        changes: dict[str, Any] = {"command": ("sh", "-c", script), "ready": "output:up"}
        with instance_of("podman", tiny_image, programs, run_id, **changes) as instance:
            processes = instance.processes()
            names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in
                     (*processes.inside, *processes.helpers)}  # fmt: skip
            charge = cgroup.read_memory(instance.cgroups)
            assert charge is not None
            return {
                "inside": [names[pid] for pid in processes.inside], "charge": charge.total,
                "helpers": [names[pid] for pid in processes.helpers],
                "cpu": account.read(instance)[""],
            }  # fmt: skip

    found = run_in_lab(count, tmp_path)
    assert "agent" in found["inside"]
    assert len(found["inside"]) == 3
    assert {"podman", "conmon"} <= set(found["helpers"])
    assert found["charge"] > 0
    assert found["cpu"] > 0.01


def test_a_service_answers_over_the_bridge(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    from harness.probes.request import request_first_answer
    from harness.starter import read_clock

    def serve(run_id: str) -> bool:
        script = "mkdir /www; echo hello >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
        with instance_of(
            "podman",
            tiny_image,
            programs,
            run_id,
            command=("sh", "-c", script),
            ready="tcp:8080",
            address=lab.build_address(7),
            gateway=lab.GATEWAY,
            bridge=lab.BRIDGE,
        ) as instance:
            deadline = read_clock() + 5_000_000_000
            stamp = request_first_answer(instance.address, 8080, "/", deadline)
            return bool(stamp > instance.milestones["ready"])

    assert run_in_lab(serve, tmp_path)


def test_variants_do_what_they_are_called(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = "grep ^Seccomp: /proc/self/status; echo x >/file && echo written; ls /sys/class/net"
    plain = look_inside("podman", tiny_image, programs, tmp_path, script)
    assert plain == ["Seccomp:\t2", "written", "lo"]
    strict = look_inside(
        "podman/host-net/no-seccomp/read-only",
        tiny_image,
        programs,
        tmp_path,
        script,
        host_network=True,
    )
    assert strict[0] == "Seccomp:\t0"
    assert "written" not in strict
    assert lab.BRIDGE in strict


@pytest.mark.parametrize("platform", ["podman", "podman+gvisor"])
@pytest.mark.parametrize(("words", "value"), [((), "disk"), (("--rm",), "volatile")])
def test_what_is_written_is_synced_and_with_rm_the_certificate_says_that_it_is_not(
    platform: str,
    words: tuple[str, ...],
    value: str,
    tiny_image: Image,
    programs: Programs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = PodmanDriver._build_run

    def build(*parts: Any) -> tuple[str, ...]:
        run, *rest = plain(*parts)
        return (run, *words, *rest)

    monkeypatch.setattr(PodmanDriver, "_build_run", build)

    def read(run_id: str) -> object:
        with instance_of(platform, tiny_image, programs, run_id) as instance:
            kind: Kind = "sandbox" if "gvisor" in platform else "container"
            return read_storage(kind, instance, instance.processes()).value

    assert run_in_lab(read, tmp_path) == value


def test_the_memory_limit_holds(tiny_image: Image, programs: Programs, tmp_path: Path) -> None:
    script = "awk 'BEGIN { s = \"x\"; for (i = 0; i < 28; i++) s = s s }'; echo status $?"
    ready = {"ready": "output:status", "timeout": 30}
    limited = look_inside("podman", tiny_image, programs, tmp_path, script, **ready)
    assert limited[-1] != "status 0"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ("no-such-thing",)}, "exec no-such-thing: No such file or directory"),
        ({"address": "10.99.0.1/16", "bridge": lab.BRIDGE}, "podman ended (code 126)"),
    ],
    ids=["command", "address"],
)
def test_a_start_that_cannot_succeed_says_why(
    changes: Mapping[str, Any], reason: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def start(run_id: str) -> str:
        try:
            with instance_of("podman", tiny_image, programs, run_id, **changes):
                return ""
        except TrialError as error:
            return error.message

    assert reason in run_in_lab(start, tmp_path)


def test_an_image_that_is_not_in_the_store_is_named(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def start(run_id: str) -> str:
        absent = replace(tiny_image, name="absent")
        try:
            with instance_of("podman", absent, programs, run_id, loaded=tiny_image):
                return ""
        except TrialError as error:
            return error.message

    message = run_in_lab(start, tmp_path)
    assert "podman ended (code 125)" in message
    assert "harness-absent" in message


def look_at(folders: Sequence[str]) -> list[tuple[str, int]]:
    """Every file below these folders with the time of its last change."""
    found = (path for folder in folders for path in Path(folder).rglob("*"))
    return sorted((str(path), path.lstat().st_mtime_ns) for path in found if not path.is_dir())


def test_podman_killed_in_mid_trial_leaves_nothing(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def kill(run_id: str) -> list[Any]:
        changes: dict[str, Any] = {
            "command": ("sh", "-c", "echo up; sleep 60"),
            "ready": "output:up",
            "address": lab.build_address(7),
            "gateway": lab.GATEWAY,
            "bridge": lab.BRIDGE,
        }
        with instance_of("podman", tiny_image, programs, run_id, **changes) as instance:
            groups = instance.spec.cgroups
            os.kill(instance.channel.pid, 9)
        return [*cgroup.read_processes(groups), *cgroup.remove(groups)]

    assert run_in_lab(kill, tmp_path) == []


@pytest.mark.parametrize("harness_is_killed", [False, True])
def test_what_the_podmans_of_a_host_share_is_not_touched(
    harness_is_killed: bool, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def serve(run_id: str) -> None:
        address: dict[str, Any] = {"address": lab.build_address(7), "bridge": lab.BRIDGE}
        with instance_of("podman", tiny_image, programs, run_id, **address):
            if harness_is_killed:
                os.kill(os.getpid(), 9)

    before = look_at(SHARED)
    if harness_is_killed:
        with pytest.raises(AssertionError, match="the lab ended with 137"):
            run_in_lab(serve, tmp_path)
    else:
        run_in_lab(serve, tmp_path)
    assert look_at(SHARED) == before


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    driver = load_driver("podman", Toolbox(starter=programs.starter))
    monkeypatch.setattr("harness.drivers.commanded.find_program", lambda _: None)
    assert driver.unavailable() == "podman is not installed"
    monkeypatch.undo()
    driver = load_driver("podman+crun", Toolbox(starter=programs.starter))
    monkeypatch.setattr("harness.drivers.podman.find_program", lambda _: None)
    assert driver.unavailable() == "its runtime crun is not installed"
