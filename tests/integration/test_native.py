"""`process` and `namespace` for real: what the instance sees, what it may use, how it can fail."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.errors import TrialError
from harness.images.model import Image, Programs
from harness.model import build_phases
from harness.paths import scratch_root
from tests.integration import laboratory
from tests.integration.laboratory import run_in_lab

MEMORY = 64 << 20

LOOK = r"""
for name in cgroup ipc mnt net pid uts; do echo "ns $name $(readlink /proc/self/ns/$name)"; done
grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status
echo "init $(tr '\0' ' ' </proc/1/cmdline)"
echo written >/written && echo wrote
echo 1 >/proc/sys/kernel/panic 2>/dev/null && echo "sysctl open" || echo "sysctl closed"
mknod /tmp/disk b 8 0 2>/dev/null; head -c1 /tmp/disk >/dev/null 2>&1 && echo "disk open"
head -c1 /dev/urandom >/dev/null && echo "urandom works"
"""


instance_of = partial(laboratory.instance_of, timeout=60, memory=MEMORY)
look_inside = partial(laboratory.look_inside, timeout=60, memory=MEMORY)


def hash_tree(tree: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_mtime_ns} {status.st_size}\n".encode())
    return digest.hexdigest()


def test_a_container_is_isolated_and_a_process_is_not(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("uts", "cgroup")}
    container = look_inside("namespace", tiny_image, programs, tmp_path, LOOK)
    process = look_inside("process", tiny_image, programs, tmp_path, LOOK)
    for name, link in ours.items():
        assert f"ns {name} {link}" in process
        assert f"ns {name} {link}" not in container
    assert "CapBnd:\t00000000a80425fb" in container
    assert "NoNewPrivs:\t1" in container
    assert "NoNewPrivs:\t0" in process
    assert "sysctl closed" in container
    assert "disk open" not in container
    assert "urandom works" in container and "urandom works" in process
    assert "init /.harness/agent /.harness/run/channel " in container
    assert "init /.harness/agent /.harness/run/channel " not in process


def test_the_image_is_never_written(tiny_image: Image, programs: Programs, tmp_path: Path) -> None:
    before = hash_tree(tiny_image.tree)
    for platform in ("process", "namespace"):
        assert "wrote" in look_inside(platform, tiny_image, programs, tmp_path, LOOK)
    assert hash_tree(tiny_image.tree) == before


def test_the_same_files_are_seen_on_both_platforms(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = "find / -xdev -type f -not -path '/proc/*' | sort | xargs sha256sum"
    process = look_inside("process", tiny_image, programs, tmp_path, script)
    container = look_inside("namespace", tiny_image, programs, tmp_path, script)
    assert len(process) > 5
    assert process == container


def test_milestones_come_in_order_and_phases_sum_to_the_total(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def measure(run_id: str) -> Mapping[str, int]:
        with instance_of("namespace", tiny_image, programs, run_id) as instance:
            return dict(instance.milestones)

    stamps = run_in_lab(measure, tmp_path)
    names = ["request", "created", "init", "exec", "ready"]
    assert [name for name, _ in sorted(stamps.items(), key=lambda pair: pair[1])] == names
    phases = build_phases(stamps)
    assert sum(phases.values()) == pytest.approx((stamps["ready"] - stamps["request"]) / 1e9)
    assert phases["residual"] == 0


@pytest.mark.parametrize("platform", ["namespace", "process"])
def test_the_memory_limit_holds(
    platform: str, tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    """A string of 128 MiB does not fit into 64 MiB."""
    script = "awk 'BEGIN { s = \"x\"; for (i = 0; i < 27; i++) s = s s }'; echo status $?"
    limited, free = (
        look_inside(
            platform, tiny_image, programs, tmp_path, script,
            ready="output:status", timeout=30, limits=limits,
        )
        for limits in (True, False)
    )  # fmt: skip
    assert limited[-1] != "status 0"
    assert free[-1] == "status 0"


def test_a_service_answers_over_the_bridge(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    from harness.probes.request import request_first_answer
    from harness.starter import read_clock

    address = lab.build_address(7)

    def serve(run_id: str) -> bool:
        script = "mkdir /www; echo hello >/www/index.html; exec busybox httpd -f -p 8080 -h /www"
        with instance_of(
            "namespace",
            tiny_image,
            programs,
            run_id,
            command=("sh", "-c", script),
            ready="tcp:8080",
            address=address,
            gateway=lab.GATEWAY,
            bridge=lab.BRIDGE,
        ) as instance:
            deadline = read_clock() + 5_000_000_000
            stamp = request_first_answer(address.split("/")[0], 8080, "/", deadline)
            return bool(stamp > instance.milestones["ready"])

    assert run_in_lab(serve, tmp_path)


@pytest.mark.parametrize("platform", ["process", "namespace"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command": ("no-such-thing",)}, "exec no-such-thing: No such file or directory"),
        ({"command": ("sh", "-c", "echo oh no; exit 3")}, "ended with 3 before it was ready"),
        ({"command": ("sh", "-c", "kill -9 $$")}, "ended with signal 9 before it was ready"),
        ({"command": ("sleep", "50"), "timeout": 0.3}, "not ready within 300 ms"),
        ({"command": ("sh", "-c", "echo down"), "ready": "output:up"}, "before it was ready"),
    ],
    ids=["missing", "exit", "signal", "never", "pattern"],
)
def test_a_start_that_cannot_succeed_says_why(
    platform: str,
    changes: Mapping[str, Any],
    reason: str,
    tiny_image: Image,
    programs: Programs,
    tmp_path: Path,
) -> None:
    def attempt(run_id: str) -> list[str]:
        try:
            with instance_of(platform, tiny_image, programs, run_id, **changes):
                return ["it started", ""]
        except TrialError as error:
            return [error.message, error.hint or ""]

    message, hint = run_in_lab(attempt, tmp_path)
    assert reason in message
    if "oh no" in json.dumps(changes):
        assert "oh no" in hint


def test_stopping_leaves_no_process_of_a_workload_that_will_not_end(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    script = "trap '' TERM; (trap '' TERM; setsid sleep 777) & echo up; sleep 777"

    def stop(run_id: str) -> list[int]:
        changes: dict[str, Any] = {"command": ("sh", "-c", script), "ready": "output:up"}
        for platform in ("process", "namespace"):
            with instance_of(platform, tiny_image, programs, f"{run_id}", **changes) as instance:
                assert len(instance.processes().inside) >= 3
                groups = instance.spec.cgroups
                instance.stop()
                left = [*cgroup.read_processes(groups), *cgroup.remove(groups)]
            os.rename(scratch_root() / run_id, scratch_root() / f"{run_id}-{platform}")
            assert not left
        return []

    assert run_in_lab(stop, tmp_path) == []
