"""Isolation for real: what every platform shows from inside, limits that are tried, and hogs."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.drivers.oci_bundle import CAPABILITIES
from harness.images.programs import build_programs
from harness.isolation.model import MIB, Limits, Reserve, Task
from harness.isolation_session import IsolationOrder, run_isolation
from harness.model import Outcome
from harness.store import read_journal, read_manifest

PROBED = ("process", "namespace", "crun", "runc", "gvisor", "podman", "vm-direct")
LIMITED = ("namespace", "gvisor")
KEPT = 0xA80425FB  # KEPT_CAPABILITIES of container.h, which are oci_bundle's too
_COUNTER = itertools.count()

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.skipif(not lab.is_privileged(), reason="not root: the test of a user's run has it"),
]


class Quiet:
    """Nobody listens."""

    def say(self, text: str) -> None: ...
    def start(self, total: int, done: int) -> None: ...
    def extend(self, total: int) -> None: ...
    def advance(self, outcome: Outcome) -> None: ...


def list_here(platforms: tuple[str, ...]) -> tuple[str, ...]:
    toolbox = Toolbox(starter=build_programs().starter)
    reasons = {name: load_driver(name, toolbox).unavailable() for name in platforms}
    if os.environ.get("CI"):
        assert not any(reasons.values()), reasons
    return tuple(name for name, reason in reasons.items() if reason is None)


def run(
    folder: Path, platforms: tuple[str, ...], *tasks: Task, reserve: Reserve | None = None,
    seconds: float = 0.4,
) -> dict[tuple[str, str], Outcome]:  # fmt: skip
    """The outcomes of a run by platform and task."""
    run_id = f"test-iso-{os.getpid()}-{next(_COUNTER)}"
    order = IsolationOrder(
        list_here(platforms), tasks, folder, ("test",), run_id, True, Limits(memory=96 * MIB),
        reserve or Reserve(256 * MIB, 500, 256 * MIB), seconds,
    )  # fmt: skip
    assert run_isolation(order, Quiet()) == 0
    outcomes = read_journal(folder / "journal.jsonl")
    assert cgroup.find_beside(cgroup.PREFIX + run_id) == []
    return {(each.platform, each.workload): each for each in outcomes}


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By platform: what its probe found."""
    found = run(tmp_path_factory.mktemp("probe") / "run", PROBED, "probe")
    assert [(name, each.error) for (name, _), each in found.items() if each.error] == []
    return {name: each.details["isolation"] for (name, _), each in found.items()}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outcome]:
    """Limits and containment of two platforms, and a machine's limits' absence."""
    found = run(tmp_path_factory.mktemp("limits") / "run", LIMITED, "limits", "containment")
    assert [(key, each.error) for key, each in found.items() if each.error] == []
    return found


def link(found: Any, kind: str) -> str:
    words: list[str] = found["evidence"]["namespace"].get(kind, ["-"])
    return words[0]


def capabilities(found: Any) -> int:
    return int(found["evidence"]["status"]["CapEff"][0], 16)


def need(probed: dict[str, Any], *names: str) -> list[Any]:
    missing = [name for name in names if name not in probed]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    return [probed[name] for name in names]


# ---- the probe -------------------------------------------------------------------------------


def test_a_process_shares_every_namespace_and_a_container_has_its_own(
    probed: dict[str, Any],
) -> None:
    (process,) = need(probed, "process")
    host = process["host"]["namespaces"]
    assert {kind: link(process, kind) for kind in host} == host
    for name in ("namespace", "crun", "runc"):
        (found,) = need(probed, name)
        shared = {kind for kind, own in host.items() if link(found, kind) == own}
        assert shared == {"time", "user"}, name


def test_only_sandboxes_and_machines_have_a_kernel_of_their_own(probed: dict[str, Any]) -> None:
    release, boot = os.uname().release, probed["process"]["host"]["boot"]
    for name, found in probed.items():
        kernel = found["evidence"]["kernel"]
        own = name in ("gvisor", "vm-direct")
        assert (kernel["boot"] == [boot]) is not own, name
        assert (kernel["release"] == [release]) is not own, name
        names = {each["name"] for each in found["outside"]}
        assert names and ("agent" in names) is not own, name


def test_containers_keep_the_engines_capabilities_and_nothing_more(probed: dict[str, Any]) -> None:
    assert len(CAPABILITIES) == KEPT.bit_count()
    for name in ("namespace", "crun", "runc"):
        (found,) = need(probed, name)
        assert capabilities(found) == KEPT, name
        assert found["evidence"]["status"]["NoNewPrivs"] == ["1"]
        assert [each["CapEff"] for each in found["outside"]] == [f"{KEPT:016x}"]
    assert capabilities(probed["process"]) & ~KEPT


def test_an_engines_filter_denies_calls_that_a_bare_container_carries_out(
    probed: dict[str, Any],
) -> None:
    podman, namespace, process = need(probed, "podman", "namespace", "process")
    counts = [
        int(each["evidence"]["calls"]["answered"][0]) for each in (podman, namespace, process)
    ]
    assert counts == sorted(counts) and counts[0] < counts[1] < counts[2]
    assert podman["evidence"]["status"]["Seccomp"] == ["2"]
    assert namespace["evidence"]["status"]["Seccomp"] == ["0"]
    for each in probed.values():  # every number was answered, or left out with its reason
        calls = {word: int(words[0]) for word, words in each["evidence"]["calls"].items()}
        assert sum(calls.values()) + len(each["evidence"]["lists"]["left_out"]) == 462 - 89
        assert calls["killed"] == 0


def test_what_the_host_offers_is_reached_by_its_own_word_only(probed: dict[str, Any]) -> None:
    def reached(found: Any) -> set[str]:
        return {name for name, (target, word) in found["targets"].items()
                if found["evidence"]["reach"][target] == ["ok", word]}  # fmt: skip

    assert reached(probed["process"]) == {"host-loopback", "host-bridge", "host-abstract"}
    for name, found in probed.items():
        if name != "process":
            assert reached(found) <= {"host-bridge"}, name


def test_sysctls_and_disks_are_the_hosts_for_a_process_alone(probed: dict[str, Any]) -> None:
    assert int(probed["process"]["evidence"]["counts"]["sysctls"][0]) > 100
    for name in ("namespace", "crun", "runc", "podman"):
        (found,) = need(probed, name)
        assert found["evidence"]["counts"]["sysctls"][0] == "0", name
        assert [each for each in found["evidence"]["lists"]["devices"] if each[1] == "b"] == []


def test_a_machines_process_on_the_host_has_a_filter_of_its_own(probed: dict[str, Any]) -> None:
    (machine,) = need(probed, "vm-direct")
    qemu = [each for each in machine["outside"] if each["name"].startswith("qemu")]
    assert [each["Seccomp"] for each in qemu] == ["2"]
    assert machine["evidence"]["status"]["Seccomp"] == ["0"]
    assert len(machine["evidence"]["lists"]["processes"]) > 10  # kernel threads of its own


# ---- limits ----------------------------------------------------------------------------------


def find(tried: dict[tuple[str, str], Outcome], platform: str) -> dict[str, Any]:
    if (platform, "limits") not in tried:
        pytest.skip(f"not here: {platform}")
    details: Any = tried[platform, "limits"].details["limits"]
    return {each["limit"]: each for each in details["findings"]}


def test_limits_of_a_container_hold_and_are_seen_from_both_sides(
    tried: dict[tuple[str, str], Outcome],
) -> None:
    found = find(tried, "namespace")
    for name in ("memory", "processes", "disk"):
        each = found[name]
        assert each["verdict"] == "holds", each
        assert 0.6 * each["asked"] < each["inside"] <= each["asked"], each
    assert (found["memory"]["outside"], found["processes"]["outside"]) == (96 * MIB, 256)
    assert found["cpu"]["outside"] == 1.0
    assert found["cpu"]["verdict"] in ("holds", "not reached"), found["cpu"]
    assert found["write"]["verdict"] in ("holds", "not set"), found["write"]


def test_a_sandbox_that_ends_with_its_hog_is_told_by_the_kernels_log(
    tried: dict[tuple[str, str], Outcome],
) -> None:
    found = find(tried, "gvisor")
    for name, word in (("memory", "oom-kill"), ("processes", "fork rejected")):
        each = found[name]
        assert each["verdict"] == "holds", each
        if each["inside"] is None:
            assert any(word in line for line in each["evidence"]), each
    assert found["disk"]["verdict"] == "holds"  # tried in an instance of its own afterwards


def test_a_machines_limits_are_its_size_and_a_group_of_its_own_kernel(
    tmp_path: Path,
) -> None:
    found = find(run(tmp_path / "run", ("vm-direct",), "limits",
                     reserve=Reserve(0, 0, disk=1 << 60)), "vm-direct")  # fmt: skip
    assert found["processes"]["verdict"] == "holds", found["processes"]
    assert 128 < found["processes"]["inside"] <= found["processes"]["outside"] == 256
    assert found["memory"]["verdict"] == "holds", found["memory"]
    assert 0 < found["memory"]["inside"] < found["memory"]["outside"] == 96 * MIB
    assert (found["cpu"]["outside"], found["cpu"]["verdict"]) == (1.0, "holds"), found["cpu"]
    assert found["disk"]["verdict"] == "not tried"


# ---- containment -----------------------------------------------------------------------------


@pytest.mark.parametrize("platform", LIMITED)
def test_a_victim_is_measured_before_beside_and_after_every_hog(
    platform: str, tried: dict[tuple[str, str], Outcome]
) -> None:
    if (platform, "containment") not in tried:
        pytest.skip(f"not here: {platform}")
    outcome = tried[platform, "containment"]
    details: Any = outcome.details["containment"]
    phases = {row.phase: row.value for row in outcome.measurements}
    for name in ("before", "after", "cpu", "disk"):
        assert 0 < phases[f"{name}/p50"] <= phases[f"{name}/p99"] < 10
    fates = {kind: hog["fate"] for kind, hog in details["hogs"].items()}
    assert list(fates) == ["cpu", "processes", "disk", "memory"]
    assert fates["cpu"].startswith("got ") and fates["disk"] == "stopped with ENOSPC"
    for kind in ("processes", "memory"):
        assert "no limit stopped it" not in fates[kind]
    if platform == "namespace":
        assert fates["processes"] == "stopped with EAGAIN"
        assert fates["memory"] == "killed for want of memory"
        assert details["hogs"]["memory"]["host"]["kills"] > 0
    assert "left-behind" not in outcome.marks


def test_a_hog_that_takes_the_hosts_reserve_is_ended_and_no_other_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = itertools.count()

    def find_breach(*_: object) -> str | None:
        return "memory is needed" if next(asked) > 0 else None

    monkeypatch.setattr("harness.isolation.trials.find_breach", find_breach)
    found = run(tmp_path / "run", ("namespace",), "containment", seconds=1.0)
    details: Any = found["namespace", "containment"].details["containment"]
    assert found["namespace", "containment"].status == "ok"
    fates = [hog["fate"] for hog in details["hogs"].values()]
    assert fates[0] == "its whole instance ended: the harness ended it: memory is needed"
    assert set(fates[1:]) == {"not started: memory is needed"}


def test_hogs_that_the_reserve_forbids_are_not_started(tmp_path: Path) -> None:
    kept = Reserve(memory=1 << 50, processes=1 << 40, disk=1 << 60)
    found = run(tmp_path / "run", ("namespace",), "limits", reserve=kept)
    verdicts = find(found, "namespace")
    assert {
        name: each["verdict"] for name, each in verdicts.items() if name != "cpu"
    } == dict.fromkeys(("memory", "processes", "disk", "write"), "not tried")
    assert verdicts["cpu"]["inside"] > 0


def test_what_an_engine_writes_where_it_is_called_is_not_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    only_memory = Reserve(0, 1 << 40, 1 << 60)
    if not list_here(("podman",)):
        pytest.skip("not here: podman")
    found = run(tmp_path / "run", ("podman",), "limits", reserve=only_memory)
    assert find(found, "podman")["memory"]["verdict"] == "holds"
    assert list(here.iterdir()) == []  # conmon writes a file called `oom`


# ---- hosts that cannot -----------------------------------------------------------------------


def test_without_control_groups_the_probe_goes_on_and_no_hog_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none: Callable[[str], None] = lambda _: None  # noqa: E731 - a function of one word
    monkeypatch.setattr("harness.isolation_session.cgroup.find_tree", none)
    found = run(tmp_path / "run", ("namespace",), "probe", "limits", "containment")
    assert found["namespace", "probe"].status == "ok"
    for task in ("limits", "containment"):
        outcome = found["namespace", task]
        assert (outcome.status, outcome.measurements) == ("failed", ())
        assert outcome.error == "this host gives no control groups: nothing would hold a hog back"
    assert read_manifest(tmp_path / "run")["cgroups"] == "none usable"
