"""Everything of a run has its number, whichever of its platforms run where it is gone on with."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cgroup import CgroupTree
from harness.model import Kind, Outcome
from harness.moves import series
from harness.pace import Budget, Pace
from harness.plan import build_schedule
from harness.plan_file import read_plan
from harness.runner import Bench
from harness.work import Work, build_work
from tests.unit.fakes import FakeDriver
from tests.unit.test_runner import build_bench

KINDS: dict[str, Kind] = {
    "process": "process",
    "namespace": "container",
    "podman": "container",
    "docker": "container",
    "vm-direct": "vm",
}
KEYS = {
    "platforms": tuple(KINDS),
    "workloads": ("httpd", "noop"),
    "blocks": 2,
    "density": 2,
    "density_load": ("idle", "loaded"),
    "minimum": True,
    "moves": True,
    "repeats": 2,
    "bandwidths": ("100Mbit",),
    "storm": 4,
    "storm_rates": ("2/s",),
    "storm_repeats": 3,
}
PLAN = read_plan(None, KEYS, new_seed=1)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench on a host that can move images."""
    monkeypatch.setattr(series, "find_command", lambda _: "/x")
    monkeypatch.setattr(series, "find_link_fault", lambda: None)
    return build_bench(tmp_path, FakeDriver())


def plan_work(bench: Bench, *gone: str, cut_off: str = "", grouped: bool = True) -> Work:
    drivers = {name: FakeDriver(name, kind) for name, kind in KINDS.items() if name not in gone}
    if cut_off:
        drivers[cut_off].no_network = "it has no bridge here"
    tree = CgroupTree(2, (Path("/groups"),)) if grouped else None
    return build_work(PLAN, replace(bench, drivers=drivers, tree=tree), lambda _: None)


def list_numbers(work: Work) -> Mapping[int, tuple[object, ...]]:
    """What has which number, first to last; no number twice."""
    found: list[tuple[int, tuple[object, ...]]] = []
    for each in build_schedule(PLAN):
        if each.platform.partition("#")[0] in work.bench.drivers:
            found.append((each.trial, ("trial", each.platform, each.workload, each.block)))
    for first, count in work.series:
        found += [(first.trial + n, ("series", first.platform, count, n)) for n in range(count + 1)]
    found += [(each.trial, ("search", each.platform, each.workload)) for each in work.searches]
    for move in work.moves:
        at = move.scheduled
        what = (move.scenario, move.packing, move.speed, move.cold, at.block, at.order)
        found.append((at.trial, ("move", at.platform, *what)))
    for storm in work.storms:
        at = storm.first
        found += [
            (at.trial + n, ("storm", at.platform, at.block, storm.rate, storm.arrivals, n))
            for n in range(PLAN.storm)
        ]
    assert len({number for number, _ in found}) == len(found), "no number is given twice"
    return dict(found)


def test_numbers_are_given_without_a_gap_where_all_run(bench: Bench) -> None:
    work = plan_work(bench)
    assert work.series and work.searches and work.moves and work.storms
    assert sorted(numbers := list_numbers(work)) == list(range(len(numbers)))


@pytest.mark.parametrize("gone", ["process", "namespace", "podman", "docker", "vm-direct"])
def test_a_platform_that_does_not_run_leaves_the_others_their_numbers(
    bench: Bench, gone: str
) -> None:
    every, fewer = list_numbers(plan_work(bench)), list_numbers(plan_work(bench, gone))
    kept = {number: what for number, what in every.items() if gone not in str(what[1])}
    assert fewer == kept


def test_a_platform_without_a_network_keeps_the_numbers_too(bench: Bench) -> None:
    """It runs `noop` instead of `httpd`, and has a search less."""
    every = list_numbers(plan_work(bench))
    cut_off = list_numbers(plan_work(bench, cut_off="podman"))
    left_out = {number: what for number, what in every.items() if number not in cut_off}
    assert list(left_out.values()) == [("search", "podman", "httpd")]
    assert cut_off == {number: what for number, what in every.items() if number not in left_out}


def test_without_control_groups_only_searches_are_fewer(bench: Bench) -> None:
    every, fewer = list_numbers(plan_work(bench)), list_numbers(plan_work(bench, grouped=False))
    left_out = {number: what for number, what in every.items() if number not in fewer}
    assert {what[0] for what in left_out.values()} == {"search"}
    assert fewer == {number: what for number, what in every.items() if number not in left_out}


# ---- density series ------------------------------------------------------------------------------


def run_series(bench: Bench, said: list[str]) -> Iterator[Outcome]:
    """The density series of `namespace` with `noop`, as a run without blocks has it."""
    keys = {"platforms": ("namespace",), "workloads": ("noop",), "aa": (), "density": 1}
    plan = replace(read_plan(None, keys, new_seed=1), blocks=0, warmup=0)
    work = build_work(plan, bench, said.append)
    pace = Pace(plan=plan, budget=Budget(None))
    return (outcome for outcomes in work.run(pace) for outcome in outcomes)


def test_a_series_that_is_not_begun_is_said_to_be_none(bench: Bench) -> None:
    kept = replace(bench.reserve, memory=1 << 60)
    said: list[str] = []
    (step,) = run_series(replace(bench, reserve=kept), said)
    assert step.details["ended"] == "one more could leave less than 1073741824 GiB of memory"
    assert said == [
        f"not begun: the density series of namespace with noop: {step.details['ended']}"
    ]


def test_a_series_that_its_reader_ends_leaves_nothing_running(bench: Bench) -> None:
    driver = bench.drivers["namespace"]
    assert isinstance(driver, FakeDriver)
    said: list[str] = []
    steps = run_series(bench, said)
    assert [next(steps).instances for _ in range(4)] == [0, 1, 2, 3]
    del steps
    assert len(driver.started) == 3 and all(each.stopped for each in driver.started)
    assert said == []
