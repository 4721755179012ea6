"""crun, runc and gVisor for real: what they run, what they are counted for, how they can fail."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.runsc import find_netstack_fault, read_platforms
from harness.images.model import Image, Programs
from harness.model import build_phases
from harness.probes import memory
from harness.probes.cpu import open_account
from tests.integration.laboratory import (
    MEMORY,
    attempt,
    instance_of,
    leave_out_agent,
    look_inside,
    run_in_lab,
)

RUNTIMES = ("crun", "runc", "gvisor")


@pytest.mark.parametrize("platform", RUNTIMES)
def test_milestones_come_in_order_and_nothing_is_left(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def measure(run_id: str) -> dict[str, Any]:
        with instance_of(platform, tiny_image, programs, run_id) as instance:
            stamps = dict(instance.milestones)
            groups = instance.spec.cgroups
            merged = instance.spec.folder / "merged"
        left = cgroup.read_processes(groups)
        problems = cgroup.remove(groups)
        mounts = str(merged) in Path("/proc/self/mountinfo").read_text()
        everywhere = [str(each) for each in cgroup.find_everywhere(groups) if each.exists()]
        return {
            "stamps": stamps, "left": [*left, *problems, *everywhere], "mounts": mounts,
            "state": os.listdir(instance.spec.folder / "state"),
        }  # fmt: skip

    found = run_in_lab(measure, tmp_path)
    names = ["request", "created", "init", "exec", "ready"]
    stamps = found["stamps"]
    assert set(stamps) == set(names)
    order = [name for name, _ in sorted(stamps.items(), key=lambda pair: pair[1])]
    if platform == "crun":  # it may write its state when the agent runs already
        order, names = ([name for name in each if name != "created"] for each in (order, names))
    else:
        assert build_phases(stamps)["residual"] == 0
    assert order == names
    assert found["left"] == []
    assert found["mounts"] is False
    assert found["state"] == []


@pytest.mark.parametrize("platform", RUNTIMES)
def test_everything_that_serves_an_instance_is_counted(
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
            names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in
                     (*processes.inside, *processes.helpers)}  # fmt: skip
            charge = cgroup.read_memory(instance.cgroups)
            assert charge is not None
            return {
                "inside": [names[pid] for pid in processes.inside],
                "helpers": [names[pid] for pid in processes.helpers],
                "pss": memory.read_pss(processes.inside), "cpu": used[""],
                "helper_pss": memory.read_pss(processes.helpers), "charge": charge.total,
            }  # fmt: skip

    found = run_in_lab(count, tmp_path)
    program = "runsc" if platform == "gvisor" else platform
    assert any(program in name for name in found["helpers"])
    if platform != "gvisor":
        assert "agent" in found["inside"]
        assert len(found["inside"]) == 3
        assert set(found["helpers"]) == {program}
    assert found["pss"] > 0
    assert found["helper_pss"] > 0
    assert found["charge"] > 0
    assert found["cpu"] > 0.001


@pytest.mark.parametrize("platform", ["crun", "runc"])
def test_a_runtime_makes_the_same_container_as_the_harness(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = r"""
    grep -E '^(CapBnd|CapEff|NoNewPrivs):' /proc/self/status
    ls / | tr '\n' ' '; cat /proc/1/cmdline | tr '\0' ' '; ls /dev | tr '\n' ' '
    echo 1 2>/dev/null >/proc/sys/kernel/panic && echo open || echo closed
    grep -c : /proc/net/dev
    """
    own = look_inside("namespace", tiny_image, programs, tmp_path, script)
    theirs = look_inside(platform, tiny_image, programs, tmp_path, script)
    assert len(own) == 5

    def simplify(lines: list[str]) -> list[str]:
        optional = ("console ", "mqueue ", "fuse ", "core ")
        joined = "\n".join(lines)
        for word in optional:
            joined = joined.replace(word, "")
        return joined.splitlines()

    assert simplify(theirs) == simplify(own)


@pytest.mark.parametrize("platform", ["crun", "runc"])
def test_a_service_answers_over_the_bridge(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    from harness.probes.request import request_first_answer
    from harness.starter import read_clock

    def serve(run_id: str) -> bool:
        script = "mkdir /www; echo hello >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
        with instance_of(
            platform,
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


def test_gvisor_says_where_it_has_no_network(tmp_path: Path, programs: Programs) -> None:
    def ask(_run_id: str) -> list[str | None]:
        driver = load_driver("gvisor", Toolbox(starter=programs.starter))
        on_host = load_driver("gvisor/host-net", Toolbox(starter=programs.starter))
        return [driver.no_network, find_netstack_fault(), on_host.no_network]

    said, fault, on_host = run_in_lab(ask, tmp_path)
    assert said == fault
    assert on_host is None


@pytest.mark.parametrize("platform", ["crun", "runc"])
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


@pytest.mark.parametrize("platform", ["crun", "runc"])
def test_variants_do_what_they_are_called(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = "grep ^Seccomp: /proc/self/status; echo x >/file && echo written; ls /sys/class/net"
    plain = look_inside(platform, tiny_image, programs, tmp_path, script)
    assert plain == ["Seccomp:\t0", "written", "lo"]
    strict = f"{platform}/seccomp/read-only"
    lines = look_inside(strict, tiny_image, programs, tmp_path, script)
    assert lines[0] == "Seccomp:\t2"
    assert "written" not in lines
    host = look_inside(
        f"{platform}/host-net", tiny_image, programs, tmp_path, script, host_network=True
    )
    assert lab.BRIDGE in host


@pytest.mark.parametrize("platform", RUNTIMES)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ("no-such-thing",)}, "exec no-such-thing: No such file or directory"),
        ({"command": ("sh", "-c", "echo oh no; exit 3")}, "ended with 3 before it was ready"),
        ({"command": ("sleep", "50"), "timeout": 1.5}, "not ready within 1.5 s"),
    ],
    ids=["missing", "exit", "never"],
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


@pytest.mark.parametrize("platform", RUNTIMES)
def test_what_the_runtime_itself_says_is_told(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    """An image without the agent: the runtime ends, and its last line is the reason."""
    broken = leave_out_agent(tiny_image, tmp_path)
    message = attempt(platform, broken, programs, tmp_path)
    program = "runsc" if platform == "gvisor" else platform
    assert message.startswith(f"{program} ended (")
    assert "agent" in message


@pytest.mark.parametrize("platform", RUNTIMES)
def test_a_runtime_killed_in_mid_trial_leaves_nothing(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def kill(run_id: str) -> list[Any]:
        changes: dict[str, Any] = {
            "command": ("sh", "-c", "echo up; sleep 60"),
            "ready": "output:up",
        }
        with instance_of(platform, tiny_image, programs, run_id, **changes) as instance:
            groups = instance.spec.cgroups
            os.kill(instance.channel.pid, 9)
        return [*cgroup.read_processes(groups), *cgroup.remove(groups)]

    assert run_in_lab(kill, tmp_path) == []


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    driver = load_driver("runc", Toolbox(starter=programs.starter))
    monkeypatch.setattr("harness.drivers.commanded.find_program", lambda _: None)
    assert driver.unavailable() == "runc is not installed"


def test_the_bundle_is_described(tiny_image: Image, programs: Programs, tmp_path: Path) -> None:
    spec = InstanceSpec(
        "one", tmp_path, tiny_image, ("true",), {}, "exit", MEMORY,
        address="10.87.0.9/16", gateway=lab.GATEWAY, bridge=lab.BRIDGE,
    )  # fmt: skip
    described = load_driver("crun", Toolbox(starter=programs.starter)).describe(spec)
    text = json.dumps(described)
    assert '"limit": 134217728' in text
    assert '"createRuntime"' in text
    assert "--bundle" in text


@pytest.mark.parametrize("platform", ["gvisor", "podman+gvisor"])
def test_a_sandbox_tells_what_it_runs_on(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def ask(run_id: str) -> str:
        script = ("sh", "-c", "echo up; sleep 60")
        with instance_of(
            platform, tiny_image, programs, run_id, command=script, ready="output:up"
        ) as instance:
            found: str = instance.accelerator
            return found

    assert run_in_lab(ask, tmp_path) == read_platforms()[0]
