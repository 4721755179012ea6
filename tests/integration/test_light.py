"""bubblewrap, systemd-nspawn and LXC for real: started, counted, limited, and nothing left."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.images.model import Image, Programs
from harness.limits import add_writing, find_writing
from harness.model import build_phases
from harness.probes.cpu import open_account
from tests.integration.laboratory import (
    attempt,
    instance_of,
    leave_out_agent,
    look_inside,
    run_in_lab,
)

PROGRAMS = {"bubblewrap": "bwrap", "systemd-nspawn": "systemd-nspawn", "lxc": "lxc-start"}
PLATFORMS = tuple(PROGRAMS)
BLKIO = cgroup.MOUNT / "blkio"
OUTSIDE = ("/run/lxc", "/run/systemd/nspawn", "/var/log/lxc")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_start_has_its_milestones_and_leaves_nothing(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    before = [path for path in OUTSIDE if os.path.exists(path)]

    def measure(run_id: str) -> dict[str, Any]:
        with instance_of(platform, tiny_image, programs, run_id) as instance:
            stamps = dict(instance.milestones)
            groups, folder = instance.spec.cgroups, str(instance.spec.folder)
            name = instance.spec.name
        left: list[Any] = [*cgroup.read_processes(groups), *cgroup.remove(groups)]
        left += map(str, cgroup.find_beside(name))
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        left += [line for line in mounts if folder in line]
        return {"stamps": stamps, "left": left}

    found = run_in_lab(measure, tmp_path)
    names = ["request", "created", "init", "exec", "ready"]
    if platform != "bubblewrap":
        names.remove("created")
    stamps = found["stamps"]
    assert [name for name, _ in sorted(stamps.items(), key=lambda pair: pair[1])] == names
    phases = build_phases(stamps)
    assert (phases["residual"] == 0) == (platform == "bubblewrap")
    assert found["left"] == []
    assert [path for path in OUTSIDE if os.path.exists(path)] == before


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_watches_the_container_is_counted_as_a_helper(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def count(run_id: str) -> dict[str, Any]:
        tree = cgroup.find_tree(run_id)
        assert tree is not None
        account = open_account(tree.start("one"), None)
        script = "sleep 60 & echo up; wait"
        changes: dict[str, Any] = {"command": ("sh", "-c", script), "ready": "output:up"}
        with instance_of(platform, tiny_image, programs, run_id, **changes) as instance:
            used = account.read(instance)
            processes = instance.processes()
            names = {
                pid: Path(f"/proc/{pid}/comm").read_text().strip()
                for pid in (*processes.inside, *processes.helpers)
            }
            return {
                "inside": [names[pid] for pid in processes.inside],
                "helpers": [names[pid] for pid in processes.helpers],
                "cpu": used[""],
            }

    found = run_in_lab(count, tmp_path)
    assert "agent" in found["inside"]
    assert len(found["inside"]) == 3
    assert PROGRAMS[platform][:15] in found["helpers"]
    assert found["cpu"] > 0.001


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_memory_limit_holds(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    """A string of 256 MiB does not fit into 128 MiB, and does without limits."""
    script = "awk 'BEGIN { s = \"x\"; for (i = 0; i < 28; i++) s = s s }'; echo status $?"
    ready = {"ready": "output:status", "timeout": 30}
    limited = look_inside(platform, tiny_image, programs, tmp_path, script, **ready)
    assert limited[-1] != "status 0"
    free = look_inside(platform, tiny_image, programs, tmp_path, script, limits=False, **ready)
    assert free[-1] == "status 0"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_network_is_what_the_name_says(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = "cut -d: -f1 /proc/net/dev"
    plain = look_inside(platform, tiny_image, programs, tmp_path, script)
    assert [line.strip() for line in plain[2:]] == ["lo"]
    name = f"{platform}/host-net"
    host = look_inside(name, tiny_image, programs, tmp_path, script, host_network=True)
    assert lab.BRIDGE in [line.strip() for line in host]


def test_lxc_joins_the_bridge_and_the_others_say_why_not(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    toolbox = Toolbox(starter=programs.starter)
    reasons = {name: load_driver(name, toolbox).no_network for name in PLATFORMS}
    assert reasons.pop("lxc") is None
    assert all(f"{name}/host-net" in str(reason) for name, reason in reasons.items())
    network = {"address": lab.build_address(7), "gateway": lab.GATEWAY, "bridge": lab.BRIDGE}
    lines = look_inside("lxc", tiny_image, programs, tmp_path, "ip address; ip route", **network)
    assert any(lab.build_address(7) in line for line in lines)
    assert any(line.startswith(f"default via {lab.GATEWAY}") for line in lines)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ("no-such-thing",)}, "exec no-such-thing: No such file or directory"),
        ({"command": ("sh", "-c", "exit 3")}, "ended with 3 before it was ready"),
    ],
    ids=["missing", "exit"],
)
def test_a_start_that_cannot_succeed_says_why(
    platform: str,
    changes: Mapping[str, Any],
    reason: str,
    tiny_image: Image,
    programs: Programs,
    tmp_path: Path,
) -> None:
    assert reason in attempt(platform, tiny_image, programs, tmp_path, **changes)


@pytest.mark.skipif(not BLKIO.is_dir(), reason="on version 2 groups have the limit of those above")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_rate_of_writing_holds_from_the_first_instruction(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    """A workload that is ready when it has ended has written everything by then."""

    def read(run_id: str) -> float | None:
        tree = cgroup.find_tree(run_id)
        assert tree is not None
        groups = add_writing(tree, run_id).start("one")
        with instance_of(
            platform, tiny_image, programs, run_id, cgroups=groups, io=4 << 20
        ) as instance:
            (pid,) = instance.processes().inside
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            (path,) = (line.split(":")[2] for line in lines if ":blkio:" in line)
            return find_writing([BLKIO / path[1:]])

    assert run_in_lab(read, tmp_path) == 4 << 20


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_image_without_the_agent_ends_the_command(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    broken = leave_out_agent(tiny_image, tmp_path)
    message = attempt(platform, broken, programs, tmp_path)
    assert message.startswith(f"{PROGRAMS[platform]} ended (")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_command_killed_in_mid_trial_leaves_nothing(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def kill(run_id: str) -> list[Any]:
        changes: dict[str, Any] = {"command": ("sh", "-c", "echo up; sleep 60")}
        changes["ready"] = "output:up"
        with instance_of(platform, tiny_image, programs, run_id, **changes) as instance:
            groups, name = instance.spec.cgroups, instance.spec.name
            os.kill(instance.channel.pid, 9)
        left: list[Any] = [*cgroup.read_processes(groups), *cgroup.remove(groups)]
        return left + [str(group) for group in cgroup.find_beside(name)]

    assert run_in_lab(kill, tmp_path) == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_missing_program_is_named(
    platform: str, monkeypatch: pytest.MonkeyPatch, programs: Programs
) -> None:
    driver = load_driver(platform, Toolbox(starter=programs.starter))
    monkeypatch.setattr("harness.drivers.commanded.find_program", lambda _: None)
    assert driver.unavailable() == f"{PROGRAMS[platform]} is not installed"
