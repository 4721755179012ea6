"""One whole run as an ordinary user: user namespaces and an embedded libvirt without root."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PLATFORMS = ("process", "namespace", "vm-microvm")
BLOCKS = 3


def run_as_user(
    folder: Path,
    *arguments: str,
    module: str = "harness",
    host: tuple[str, ...] = (),
    program: str = "",
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.integration.as_user", *host, str(folder)]
    words = [program] if program else [sys.executable, "-m", module]
    return subprocess.run(
        [*command, *words, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="harness-user-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.timeout(320)
def test_a_whole_run_without_root(folder: Path) -> None:
    out = folder / "home" / "out"
    words = [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = run_as_user(
        folder, "run", "--blocks", str(BLOCKS), "--seed", "1", "--workload", "noop",
        "--accelerator", "tcg", "--out", str(out), *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = [
        document
        for line in (out / "journal.jsonl").read_text().splitlines()
        if "platform" in (document := json.loads(line))
    ]
    failed = [outcome for outcome in outcomes if outcome["status"] != "ok"]
    assert failed == []
    for platform in PLATFORMS:
        measured = [each for each in outcomes if each["platform"] == platform]
        assert len([each for each in measured if not each["warmup"] and each["block"]]) == BLOCKS
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["privileged"] is False
    assert manifest["differ"]["plan"] == ["cpus", "memory"]
    text = (out / "report.md").read_text()
    assert "gave the run no control groups" in text
    assert "refused;" not in text and "| refused" not in text
    assert (out / "report.html").stat().st_size > 10_000
    assert out.stat().st_uid != 0
    assert not list((folder / "home" / "cache" / "scratch").iterdir())


# ---- as on a host with systemd: KVM is a group's, and a hugetlbfs is mounted -------------------


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="harness-user-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.timeout(120)
def test_a_member_of_kvms_group_has_machines_under_kvm(place: Path) -> None:
    """libvirt would set the groups of its QEMU anew, and that one has no number in the lab."""
    done = run_as_user(place, module="tests.integration.boot_sector", host=("--kvm=member",))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["event"], found["printed"]) == (["console", "first"], "K")
    assert "<domain type='kvm'" in found["live"]
    assert "/dev/kvm" in found["open"]


@pytest.mark.timeout(320)
@pytest.mark.parametrize(("who", "wanted"), [("stranger", "auto"), ("member", "tcg")])
def test_a_machine_runs_whoever_the_user_is(place: Path, who: str, wanted: str) -> None:
    out = place / "home" / "out"
    done = run_as_user(
        place, "run", "--blocks", "1", "--seed", "1", "--workload", "noop", "--platform",
        "vm-microvm", "--accelerator", wanted, "--out", str(out), host=(f"--kvm={who}",),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    proof = json.loads((out / "manifest.json").read_text())["accelerator"]["vm-microvm"]
    assert (proof["name"], proof["proved"]) == ("tcg", True)
    refused = "; not KVM: this user may not open /dev/kvm"
    assert (refused in proof["reason"]) == (who == "stranger")


@pytest.mark.timeout(60)
def test_a_lab_that_cannot_map_its_numbers_leaves_nobody_waiting(place: Path) -> None:
    tools = place / "tools"
    tools.mkdir(mode=0o755)
    (tools / "newuidmap").write_text("#!/bin/sh\necho not allowed >&2\nexit 1\n")
    (tools / "newuidmap").chmod(0o755)
    done = run_as_user(place, f"PATH={tools}:/usr/bin:/bin", sys.executable, "-m", "harness",
                       "run", "--platform", "process", "--blocks", "1", program="env")  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "error: newuidmap may not map this user's ids: not allowed (it has to be" in done.stderr


@pytest.mark.timeout(60)
def test_a_lab_that_is_killed_while_its_numbers_are_mapped_is_no_defect(place: Path) -> None:
    tools = place / "tools"
    tools.mkdir(mode=0o755)
    for name, words in (("newuidmap", "exit 0"), ("newgidmap", "kill -9 $1; sleep 0.2")):
        (tools / name).write_text(f"#!/bin/sh\n{words}\n")
        (tools / name).chmod(0o755)
    done = run_as_user(place, f"PATH={tools}:/usr/bin:/bin", sys.executable, "-m", "harness",
                       "run", "--platform", "process", "--blocks", "1", program="env")  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + 9, "")


@pytest.mark.timeout(60)
def test_an_ordinary_user_may_have_overlays_and_doctor_says_so(place: Path) -> None:
    done = run_as_user(place, "doctor", "--json", "--no-prove")
    assert done.returncode == 0, done.stderr
    checks = {each["name"]: each for each in json.loads(done.stdout)["platforms"]}
    assert {name: checks[name]["reason"] for name in ("process", "namespace")} == {
        "process": None,
        "namespace": None,
    }
    assert list((place / "home" / "cache" / "scratch").iterdir()) == []
