"""The search for the smallest memory: its logic, with starts that follow a rule."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from harness import cgroup
from harness.bisection import Bounds, Search, Step, describe_steps
from harness.drivers.base import InstanceSpec
from harness.errors import TrialError
from harness.minimum import build_searches, find_exemption, list_exempt, run_search
from harness.model import Kind, Measurement
from harness.plan import ScheduledTrial
from harness.plan_file import read_plan
from tests.unit.fakes import FakeDriver
from tests.unit.test_runner import build_bench

MIB = 1 << 20
BOUNDS = Bounds(least=MIB, most=256 * MIB, grain=MIB // 4)
SEARCH = ScheduledTrial(0, 70, 0, "vm-direct", "noop", warmup=False)


def search(enough: Callable[[int], bool], bounds: Bounds = BOUNDS) -> Search:
    """A search in which a start gets ready where ``enough`` says so."""

    def attempt(memory: int) -> Step:
        ready = enough(memory)
        return Step(memory, ready, None if ready else "too little", 0.01)

    return Search(attempt, bounds)


@pytest.mark.parametrize("edge", [1.3, 2, 7.7, 30, 90, 200, 255])
def test_the_edge_is_found_to_the_grain_or_two_percent(edge: float) -> None:
    wanted = round(edge * MIB)
    trial = search(lambda memory: memory >= wanted)
    found = trial.find()
    assert wanted <= found <= max(wanted + BOUNDS.grain, wanted * 1.02)
    assert found % BOUNDS.grain == 0
    assert len(trial.steps) <= 30
    said = describe_steps(trial.steps, found)
    assert (said["starts"], said["ready"]) == (2, 2)
    assert said["undecided"] == said["holes"] == []
    assert isinstance(said["too_little"], int)
    assert said["too_little"] < wanted


def test_every_size_is_decided_by_two_starts_of_at_most_three() -> None:
    turns = count()

    def lucky(memory: int) -> bool:
        """From 8 to 16 MiB two of three starts get ready, the first one never."""
        return memory >= 16 * MIB or (memory >= 8 * MIB and next(turns) % 3 > 0)

    trial = search(lucky)
    found = trial.find()
    assert 8 * MIB <= found <= 8 * MIB + BOUNDS.grain
    said = describe_steps(trial.steps, found)
    assert (said["starts"], said["ready"]) == (3, 2)
    assert found in said["undecided"]  # type: ignore[operator]


def test_one_lucky_start_is_not_enough() -> None:
    turns = count()
    trial = search(lambda memory: memory >= 16 * MIB or (memory > 8 * MIB and next(turns) % 3 == 0))
    assert 16 * MIB <= trial.find() <= 16 * MIB + BOUNDS.grain


def test_where_the_most_does_not_do_the_reason_is_told() -> None:
    trial = search(lambda _: False)
    with pytest.raises(TrialError, match=r"not ready with the plan's 256 MiB: too little") as error:
        trial.find()
    assert error.value.hint == "give the plan more `memory`"
    assert len(trial.steps) == 2


def test_where_everything_does_the_least_is_found_and_was_tried() -> None:
    trial = search(lambda _: True)
    assert trial.find() == BOUNDS.least
    said = describe_steps(trial.steps, BOUNDS.least)
    assert (said["starts"], said["too_little"]) == (2, None)


@pytest.mark.parametrize("hole", [(17, 40), (12, 20)])
def test_holes_are_noted(hole: tuple[int, int]) -> None:
    low, high = hole[0] * MIB, hole[1] * MIB
    trial = search(lambda memory: memory >= 10 * MIB and not low <= memory < high)
    found = trial.find()
    holes = describe_steps(trial.steps, found)["holes"]
    assert isinstance(holes, list)
    assert holes
    assert all(low <= size < high for size in holes)


def test_bounds_that_leave_nothing_to_search() -> None:
    trial = search(lambda _: True, Bounds(least=MIB, most=MIB, grain=MIB))
    assert trial.find() == MIB


# ---- a whole search, with a driver that follows a script ---------------------------------------


def build_driver(edge: int, seen: list[InstanceSpec] | None = None) -> FakeDriver:
    def find_problem(spec: InstanceSpec) -> str | None:
        if seen is not None:
            seen.append(spec)
        return None if spec.memory >= edge else "panicked"

    return FakeDriver("vm-direct", "vm", problem=find_problem, accelerator="tcg")


def test_a_search_is_one_outcome_with_all_its_steps(tmp_path: Path) -> None:
    seen: list[InstanceSpec] = []
    bench = build_bench(tmp_path, build_driver(75 * MIB, seen))
    outcome = run_search(SEARCH, bench)
    assert (outcome.status, outcome.trial, outcome.error) == ("ok", 70, None)
    (found, below) = outcome.measurements
    assert found.metric == "memory.minimum"
    assert found.phase == ""
    assert 75 * MIB <= found.value <= 77 * MIB
    assert below == Measurement("memory.minimum", below.value, "too_little")
    assert (outcome.accelerator, outcome.marks) == ("tcg", ("emulated",))
    steps = outcome.details["steps"]
    assert isinstance(steps, list)
    assert len(steps) == len(seen)
    assert steps[0] == {"memory": 256 * MIB, "ready": True, "reason": None, "seconds": 0.01}
    assert {each["reason"] for each in steps} == {None, "panicked"}
    assert len({spec.name for spec in seen}) == len(seen), "each start has a name of its own"
    assert [spec.timeout for spec in seen[:2]] == [5.0, 5.0]
    assert list(bench.scratch.iterdir()) == []
    assert not bench.logs.exists()


def test_a_step_waits_a_multiple_of_the_first_start_but_no_longer_than_the_workload(
    tmp_path: Path,
) -> None:
    seen: list[InstanceSpec] = []
    bench = build_bench(tmp_path, build_driver(75 * MIB, seen))
    patient = replace(bench.workloads["noop"], timeout=60.0)
    run_search(SEARCH, replace(bench, workloads={"noop": patient}))
    assert [spec.timeout for spec in seen[:3]] == [60.0, 5.0, 5.0]


def test_a_search_fails_where_the_plans_memory_does_not_do(tmp_path: Path) -> None:
    outcome = run_search(SEARCH, build_bench(tmp_path, build_driver(1 << 40)))
    assert outcome.status == "failed"
    assert outcome.measurements == ()
    assert outcome.error == "memory.minimum: not ready with the plan's 256 MiB: panicked"
    assert len(outcome.details["steps"]) == 2  # type: ignore[arg-type]


def test_a_container_without_the_limit_that_is_searched_for_fails_the_search(
    tmp_path: Path,
) -> None:
    driver = FakeDriver()
    outcome = run_search(replace(SEARCH, platform="namespace"), build_bench(tmp_path, driver))
    assert outcome.status == "failed"
    assert outcome.error == "memory.minimum: namespace did not set its memory limit of 256 MiB"
    assert all(instance.stopped for instance in driver.started)


def test_searches_are_for_every_workload_on_what_has_a_limit() -> None:
    platforms = ("process", "namespace", "runc/no-limits", "runc/memory=1GiB", "vm-direct")
    plan = read_plan(None, {"platforms": platforms, "minimum": True}, new_seed=1)
    kinds: dict[str, Kind] = {"process": "process", "vm-direct": "vm"}
    drivers = {name: FakeDriver(name, kinds.get(name, "container")) for name in plan.platforms}
    found = build_searches(plan, drivers, 50, grouped=True)
    assert [(each.trial, each.platform, each.workload) for each in found] == [
        (50, "namespace", "noop"),
        (51, "namespace", "httpd"),
        (52, "vm-direct", "noop"),
        (53, "vm-direct", "httpd"),
    ]
    assert list_exempt(plan, drivers, grouped=True) == [
        "process in memory.minimum: it is the baseline: what it needs is what the workload needs",
        "runc/no-limits in memory.minimum: it has no memory limit",
        "runc/memory=1GiB in memory.minimum: its memory limit is part of its name",
    ]
    assert find_exemption("namespace", "container", grouped=False) is not None
    assert find_exemption("vm-restore", "vm", grouped=True) is not None
    plain = replace(plan, minimum=False)
    assert build_searches(plain, drivers, 50, grouped=True) == []
    assert list_exempt(plain, drivers, grouped=True) == []


# ---- what the kernel says of a group -----------------------------------------------------------


def test_the_limit_of_a_group_is_the_least_of_its_own_and_those_above(tmp_path: Path) -> None:
    group = tmp_path / "harness-r1" / "trial"
    group.mkdir(parents=True)
    assert cgroup.read_memory_limit([group]) is None
    (group / "memory.max").write_text("max\n")
    assert cgroup.read_memory_limit([group]) is None
    (group.parent / "memory.max").write_text("1048576\n")
    assert cgroup.read_memory_limit([group]) == MIB
    (group / "memory.max").write_text("65536\n")
    assert cgroup.read_memory_limit([group]) == 65536
    (group / "memory.max").unlink()
    (group.parent / "memory.max").unlink()
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert cgroup.read_memory_limit([group]) is None


def test_kills_are_counted_in_a_group_and_below_it(tmp_path: Path) -> None:
    inner = tmp_path / "container"
    inner.mkdir()
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    (inner / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert cgroup.read_oom_kills([tmp_path]) == 2
    (inner / "memory.events.local").write_text("low 0\noom 3\noom_kill 1\n")
    assert cgroup.read_oom_kills([tmp_path]) == 1
