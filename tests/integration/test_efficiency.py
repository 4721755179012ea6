"""Figures of running work on real instances: tools, a loaded service, and work that goes wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_certificate import is_able
from tests.integration.test_run import read_outcomes, run_harness

pytestmark = pytest.mark.timeout(600)

PLAN = "blocks = 1\nwarmup = 0\naa = []\ndensity = 0\nseed = 1\n"
CPU, PER_CPU = "efficiency.cpu", "efficiency.per_cpu_second"

# What can go wrong: the workload's keys, and what is said of the trial.
WRONG: Mapping[str, tuple[Mapping[str, object], str]] = {
    "hog": (
        {"command": ["sh", "-c", "tail /dev/zero"], "ready": "exit", "memory": True},
        "the workload was killed by its memory limit of 64MiB: ",
    ),
    "late": (
        {"command": ["sleep", "30"], "ready": "exit", "timeout": "2s"},
        "the workload was ended by its timeout of 2 s",
    ),
    "late-at-work": (
        {"command": ["sh", "-c", "echo up; sleep 30"], "ready": "output:up", "timeout": "2s"},
        "the workload was ended by its timeout of 2 s",
    ),
    "halfway": (
        {"command": ["sh", "-c", "echo up; sleep 1; exit 7"], "ready": "output:up"},
        "the workload ended with 7 in the midst of its work",
    ),
    "missing": (
        {"command": ["sysbench", "cpu", "run"], "ready": "exit"},
        "the workload could not start: exec sysbench in the image tiny: No such file or directory",
    ),
    "mute": (
        {"command": ["echo", "nothing of note"], "ready": "exit"},
        "the figure throughput cannot be read from what the workload printed: nothing matches ",
    ),
    "refused": (
        {
            "command": ["sh", "-c", "echo up; sleep 30"],
            "ready": "output:up",
            "load": ["sh", "-c", "echo nobody at {address} >&2; exit 1"],
        },
        "the load generator sh ended with 1: nobody at 10.87.",
    ),
}


def write_workload(folder: Path, name: str, keys: Mapping[str, object], more: str = "") -> str:
    """A workload file in tiny that is to print `rate 7`; its path. ``more`` is of the figure."""
    stated = {"name": name, "image": "tiny", **keys}
    stated.pop("memory", None)
    lines = [f"{key} = {json.dumps(value)}" for key, value in stated.items()]
    figure = '[[figures]]\nname = "throughput"\nunit = "1/s"\nregex = "rate ([0-9]+)"\n' + more
    path = folder / f"{name}.toml"
    path.write_text("\n".join([*lines, figure]))
    return str(path)


def run(folder: Path, platforms: list[str], workloads: list[str], more: str = "") -> list[Any]:
    plan = folder / "plan.toml"
    plan.write_text(
        f"platforms = {json.dumps(platforms)}\nworkloads = {json.dumps(workloads)}\n{PLAN}{more}"
    )
    done = run_harness("run", str(plan), "--out", str(folder / "out"))
    assert "Traceback" not in done.stderr, done.stderr
    outcomes = read_outcomes(folder / "out")
    assert outcomes, done.stderr
    return outcomes


def figures_of(outcome: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    return {(row["metric"], row["phase"]): row["value"] for row in outcome["measurements"]}


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], Any]]:
    """One block of a tool and of a loaded service on a process, a container and a machine."""
    folder = tmp_path_factory.mktemp("worked")
    outcomes = run(folder, ["process", "namespace", "vm-direct"], ["sysbench-cpu", "redis"])
    assert [each["error"] for each in outcomes] == [None] * 5
    return folder / "out", {(each["platform"], each["workload"]): each for each in outcomes}


@pytest.mark.parametrize("platform", ["process", "namespace", "vm-direct"])
def test_a_tool_has_its_figures_and_the_host_its_account(
    platform: str, worked: tuple[Path, dict[tuple[str, str], Any]]
) -> None:
    found = figures_of(worked[1][platform, "sysbench-cpu"])
    throughput, tool = found["efficiency.throughput", ""], found["efficiency.duration", "tool"]
    assert throughput > 0 and 1 <= tool <= found["efficiency.duration", ""]
    assert found[PER_CPU, ""] == pytest.approx(throughput * tool / found[CPU, ""])
    assert 0 < found[CPU, ""] <= found["startup.cpu", ""] + 0.1


@pytest.mark.parametrize("platform", ["namespace", "vm-direct"])
def test_a_service_is_loaded_from_the_host_and_the_generator_is_watched(
    platform: str, worked: tuple[Path, dict[tuple[str, str], Any]]
) -> None:
    outcome = worked[1][platform, "redis"]
    found = figures_of(outcome)
    assert found["efficiency.throughput", ""] > 0 and found[CPU, ""] > 0
    assert found["efficiency.latency_p50", ""] <= found["efficiency.latency_p99", ""]
    load = outcome["details"]["load"]
    assert load["command"][:3] == ["redis-benchmark", "-h", load["command"][2]]
    assert load["cpus"] == 1 and 0 < load["cpu"] <= load["seconds"]
    assert ("generator-saturated" in outcome["marks"]) == (load["share"] > 0.9)


def test_an_emulated_machine_is_marked_and_labelled(
    worked: tuple[Path, dict[tuple[str, str], Any]],
) -> None:
    folder, outcomes = worked
    report = (folder / "report.md").read_text()
    section = report.partition("## Efficiency")[2].partition("\n## ")[0]
    assert "`sysbench-cpu`" in section and "`redis`" in section
    machine = outcomes["vm-direct", "sysbench-cpu"]
    emulated = machine["accelerator"] == "tcg"
    assert ("emulated" in machine["marks"]) == emulated
    rows = [line for line in section.splitlines() if line.startswith("| `vm-direct`")]
    assert rows and all(("emulated (TCG)" in line) == emulated for line in rows)


def test_work_that_goes_wrong_is_said_and_kept(tmp_path: Path) -> None:
    paths = [write_workload(tmp_path, name, keys) for name, (keys, _) in WRONG.items()]
    outcomes = run(tmp_path, ["namespace"], paths, 'memory = "64MiB"\n')
    found = {each["workload"]: each for each in outcomes}
    assert set(found) == set(WRONG)
    for name, (_, said) in WRONG.items():
        assert found[name]["status"] == "failed", name
        assert found[name]["error"].startswith(said), found[name]["error"]
        assert not found[name]["measurements"]
    ended = {name: found[name]["details"].get("ended_by") for name in WRONG}
    assert (ended["hog"], ended["late"], ended["mute"]) == ("memory-limit", "timeout", None)
    kept = {name: found[name]["details"]["logs"] for name in WRONG}
    (output,) = [each for each in kept["mute"] if each.endswith("output.log")]
    assert (tmp_path / "out" / output).read_text() == "nothing of note\n"
    (output,) = [each for each in kept["refused"] if each.endswith("load-errors.log")]
    assert (tmp_path / "out" / output).read_text().startswith("nobody at 10.87.")


# What meets each limit, before it is ready or after, and what is said of the trial.
MET: Mapping[str, tuple[str, str, str]] = {
    "hog": ("tail /dev/zero", "memory-limit", "the workload was killed by its memory limit of "),
    "forks": (
        "i=0; while [ $i -lt 100 ]; do sleep 20 & i=$((i+1)); done",
        "pids-limit",
        "the workload met its limit of 64 processes and threads: ",
    ),
    "full": (
        "dd if=/dev/zero of=/x bs=1M count=64 && echo rate 7",
        "disk-limit",
        "the workload filled its disk quota of 32MiB (it printed: dd: ",
    ),
}
MACHINE = "vm-direct/disk=squashfs/upper=disk"


@pytest.mark.parametrize(("begin", "ready"), [("", "exit"), ("echo up; sleep 0.2; ", "output:up")])
def test_each_limit_that_ends_a_workload_is_an_outcome_of_its_own(
    begin: str, ready: str, tmp_path: Path
) -> None:
    """gVisor ends as a whole, and takes its group and what that has counted with it."""
    paths = [
        write_workload(tmp_path, name, {"command": ["sh", "-c", begin + command], "ready": ready})
        for name, (command, _, _) in MET.items()
    ]
    platforms = [name for name in ("namespace", "gvisor") if is_able(name)]
    outcomes = run(tmp_path, platforms, paths, 'memory = "96MiB"\npids = 64\ndisk = "32MiB"\n')
    assert len(outcomes) == len(MET) * len(platforms)
    for each in outcomes:
        _, by, said = MET[each["workload"]]
        assert each["details"].get("ended_by") == by, each["error"]
        assert each["error"].startswith(said)
        assert each["hint"] == f"raise the plan's `{by.removesuffix('-limit')}`"
        if (each["platform"], each["workload"]) == ("gvisor", "hog"):  # noticed, not waited for
            assert "runsc ended (code 137) " in each["error"]


def test_a_guest_that_meets_its_limits_says_so_too(tmp_path: Path) -> None:
    paths = [
        write_workload(tmp_path, name, {"command": ["sh", "-c", MET[name][0]], "ready": "exit"})
        for name in ("forks", "full")
    ]
    outcomes = run(tmp_path, [MACHINE], paths, 'pids = 64\ndisk = "32MiB"\n')
    for each in outcomes:
        assert each["details"].get("ended_by") == MET[each["workload"]][1], each["error"]


def test_a_guest_s_own_limits_are_said_too(tmp_path: Path) -> None:
    paths = [write_workload(tmp_path, name, WRONG[name][0]) for name in ("hog", "missing")]
    outcomes = run(tmp_path, ["vm-direct"], paths, 'memory = "96MiB"\n')
    found = {each["workload"]: each for each in outcomes}
    assert found["hog"]["details"]["ended_by"] == "memory-limit", found["hog"]["error"]
    assert found["hog"]["error"].startswith("the guest's kernel killed ")
    assert found["missing"]["error"] == WRONG["missing"][1]


def test_a_generator_that_uses_all_it_may_is_marked(tmp_path: Path) -> None:
    busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo rate 7"
    keys = {"command": ["sh", "-c", "echo up; sleep 30"], "ready": "output:up"}
    paths = [
        write_workload(tmp_path, "busy", {**keys, "load": ["sh", "-c", busy]}),
        write_workload(tmp_path, "idle", {**keys, "load": ["sh", "-c", "sleep 1; echo rate 7"]}),
    ]
    found = {each["workload"]: each for each in run(tmp_path, ["namespace"], paths)}
    assert [each["error"] for each in found.values()] == [None, None]
    share = found["busy"]["details"]["load"]["share"]
    assert ("generator-saturated" in found["busy"]["marks"]) == (share > 0.9)
    assert found["idle"]["details"]["load"]["share"] < 0.1
    assert "generator-saturated" not in found["idle"]["marks"]


def test_what_is_printed_on_standard_error_is_told_apart(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo rate 3 >&2; echo rate 9"]
    keys = {"command": command, "ready": "exit"}
    paths = [
        write_workload(tmp_path, "out", keys),
        write_workload(tmp_path, "err", keys, 'stream = "errors"\n'),
    ]
    found = {each["workload"]: figures_of(each) for each in run(tmp_path, ["namespace"], paths)}
    rates = [found[name]["efficiency.throughput", ""] for name in ("out", "err")]
    assert rates == [9.0, 3.0]


def test_a_generator_that_is_not_installed_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    keys = {"command": ["true"], "ready": "output:up", "load": ["no-such-generator"]}
    path = write_workload(tmp_path, "mine", keys)
    done = run_harness(
        "run", "--workload", path, "--platform", "namespace", "--out", str(tmp_path / "out")
    )
    assert done.returncode == 3
    assert (
        "error: mine cannot be loaded: its load generator no-such-generator is not installed"
        in done.stderr
    )
    assert not (tmp_path / "out").exists()
