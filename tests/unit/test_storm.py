"""Storms of starts: when each is due, whose quantiles are shown, and when they are withheld."""

import itertools
import math
import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.plots.storm import draw_storms
from harness.analysis.results import load_results
from harness.analysis.storm import (
    Once,
    Storms,
    build_storms,
    find_quantile,
    find_rate,
    list_storms,
)
from harness.density import run_density
from harness.drivers.base import InstanceSpec
from harness.errors import InputError
from harness.images.model import Image, Packing
from harness.isolation.model import Reserve
from harness.model import Measurement, Outcome
from harness.pace import Budget, Pace
from harness.plan import ScheduledTrial
from harness.plan_file import read_plan
from harness.probes import noise
from harness.probes.ksm import Merging, find_fault, read_merging, wait_settled
from harness.probes.memory import read_total
from harness.room import build_reserve
from harness.runner import Bench, run_schedule
from harness.store import Store, write_samples
from harness.storm import Storm, build_arrivals, build_whole, find_size, is_late, run_storm
from harness.storm import build_storms as schedule
from harness.units import parse_rate
from harness.work import Work
from tests.unit.fakes import FakeDriver
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes
from tests.unit.test_runner import build_bench

# ---- before a storm ----------------------------------------------------------------------------


def test_starts_of_a_burst_are_all_due_at_once() -> None:
    assert build_arrivals(3, None, "7") == (0.0, 0.0, 0.0)


def test_arrivals_are_a_poisson_process_that_the_seed_fixes() -> None:
    due = build_arrivals(20_001, 4.0, "7")
    assert due == build_arrivals(20_001, 4.0, "7") != build_arrivals(20_001, 4.0, "8")
    waits = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert sum(waits) / len(waits) == pytest.approx(1 / 4, rel=0.03)
    over = sum(each > 0.25 for each in waits) / len(waits)
    assert over == pytest.approx(math.exp(-1), abs=0.02), "waits are exponential"


def test_every_repeat_has_every_storm_once_in_an_order_of_its_own() -> None:
    options = {
        "platforms": ("process", "namespace"), "workloads": ("noop",), "aa": (),
        "storm": 4, "storm_rates": ("2/s", "30/min"), "storm_repeats": 8,
    }  # fmt: skip
    plan = read_plan(None, options, new_seed=1)
    drivers = {name: FakeDriver(name) for name in plan.platforms}
    storms = schedule(plan, drivers, 100)
    assert [each.first.trial for each in storms] == list(range(100, 100 + 4 * len(storms), 4))
    orders = [
        [(each.first.platform, each.phase) for each in storms if each.first.block == repeat]
        for repeat in range(8)
    ]
    whole = {(name, kind) for name in drivers for kind in ("burst", "2/s", "30/min")}
    assert all(len(order) == 6 and set(order) == whole for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    same = {(each.first.block, each.rate): each.arrivals for each in storms}
    assert all(same[each.first.block, each.rate] == each.arrivals for each in storms), (
        "all platforms meet the same arrivals"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"storm_rates": ("2/s",)}, "without `storm` nothing starts at these rates"),
        ({"storm": 4, "storm_rates": ("fast",)}, "'fast' is not a rate"),
        ({"storm": 4, "storm_rates": ("0/s",)}, "'0/s' is not a rate"),
        ({"storm": 4, "storm_rates": ("1/s", "60/min")}, "'1/s' stands there twice"),
        ({"storm": 4, "storm_rates": ("0.1/h",)}, "4 starts at 0.1/h take more than a day"),
        ({"storm": 1}, "1 start is no storm"),
        ({"memory": "300MB"}, "300MB are not whole MiB.*286MiB or 287MiB"),
        ({"disk": "50MB"}, "50MB are not whole MiB.*47MiB or 48MiB"),
        ({"density_pressure": "0%"}, "0% is not above 0% and below 100%"),
        ({"reserve_pids": -1}, "-1 is less than none"),
        ({"reserve_disk": "lots"}, "'lots' is not a size"),
        ({"density_load": ("loaded",), "density": 0}, "without `density` there is no series"),
        ({"density_load": ("idle", "loaded"), "density": 0}, "without `density` there is no"),
        ({"density_load": ("loaded",), "workloads": ("steady",)}, "one of the plan's already"),
    ],
)
def test_a_plan_that_means_no_storm_or_series_is_refused(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_plan(None, options, new_seed=1)


def test_rates_are_read_by_second_minute_and_hour() -> None:
    assert [parse_rate(each) for each in ("2/s", "30/min", "36 / h")] == [2.0, 0.5, 0.01]


def test_the_generator_is_what_limits_where_requests_are_late() -> None:
    assert not is_late([(1.0, 0.05), (1.0, 0.01), (1.0, 0.9)])
    assert is_late([(1.0, 0.2), (1.0, 0.2), (1.0, 0.0)])


# ---- after it ----------------------------------------------------------------------------------


def storms_of(ready: Sequence[Sequence[float]], marks: str = "") -> Storms:
    once = [Once(each, marks, 2.0, 0.0) for each in ready]
    return Storms("namespace", "noop", "burst", len(ready[0]), once)


def test_a_quantile_is_the_middle_storms_own() -> None:
    storms = storms_of(
        [[float(start + 100 * storm) for start in range(1, 21)] for storm in range(7)]
    )
    p95 = find_quantile(storms, 0.95)
    assert (p95.n, p95.median, p95.withheld) == (7, 319.0, "")
    assert 19 <= p95.low < 319 < p95.high <= 619
    assert find_quantile(storms, 0.5).median == 310.0


@pytest.mark.parametrize(
    ("storms", "share", "why"),
    [
        (storms_of([[1.0] * 19] * 6), 0.95, "20 starts are needed in a storm, 19 were made"),
        (storms_of([[1.0] * 99] * 6), 0.99, "100 starts are needed in a storm, 99 were made"),
        (storms_of([[1.0] * 20] * 5), 0.95, "6 storms are needed, 5 were run"),
        (storms_of([[1.0] * 19 + [math.inf]] * 6), 0.95, ""),
        (storms_of([[1.0] * 18 + [math.inf] * 2] * 6), 0.95, "starts failed"),
        (storms_of([[1.0] * 20] * 6, "emulated"), 0.95, ""),
        (storms_of([[1.0] * 20] * 6, "generator-late"), 0.95, "6 of 6 storms were disturbed"),
    ],
    ids=["p95", "p99", "few storms", "one failed", "two failed", "a label", "late generator"],
)
def test_a_quantile_is_withheld_with_its_reason(storms: Storms, share: float, why: str) -> None:
    found = find_quantile(storms, share)
    assert found.withheld.startswith(why) and bool(found.withheld) is bool(why)
    assert math.isnan(found.median) is bool(why), "a figure that is withheld is no number"


def test_a_burst_with_a_failed_start_has_no_rate() -> None:
    (row,) = build_whole({0: (0.5, 0.0), 1: (2.0, 0.0)}, 2, "burst")
    assert row.metric == "storm.rate" and row.value <= 1.0
    assert build_whole({0: (0.5, 0.0)}, 2, "burst") == []
    assert build_whole({0: (0.5, 0.0), 1: (2.0, 0.0)}, 2, "2/s") == [], "arrivals decide it"
    once = [Once([1.0, math.inf], "", None, 0.0)] * 6
    assert find_rate(Storms("namespace", "noop", "burst", 2, once)).withheld == "starts failed"


def build_storm_outcomes(starts: int) -> list[Outcome]:
    first = next(build_outcomes(Synthetic(workloads=("noop",))))
    told = {"storm": {"kind": "burst", "asked": 30, "cut": "there is no more memory"}}
    return [
        replace(
            first, trial=5000 + storm * starts + number, order=number, block=storm, warmup=False,
            platform="vm-direct", kind="vm", accelerator="tcg", instances=starts, details=told,
            marks=("emulated",),
            measurements=(
                Measurement("storm.ready", 2.0 + number / 100 + storm / 1000, "burst"),
                Measurement("storm.late", 0.001, "burst"),
                *([Measurement("storm.rate", 5.0, "burst")] if number == 0 else []),
            ),
        )
        for storm in range(6)
        for number in range(starts)
    ]  # fmt: skip


def test_a_storm_is_shown_with_its_cut_and_is_no_trial_of_a_block(tmp_path: Path) -> None:
    plan = Synthetic(workloads=("noop",))
    with Store.create(tmp_path / "r", build_manifest(plan)) as store:
        for outcome in [*build_outcomes(plan), *build_storm_outcomes(25)]:
            store.append(outcome)
    write_samples(tmp_path / "r")
    results = load_results(tmp_path / "r")
    table = build_storms(results)
    assert table is not None
    (row,) = table.rows
    assert row.head == "`vm-direct`, emulated (TCG)"
    shown = dict(zip(table.head[1:], row.cells, strict=True))
    assert shown["storm"].note == "cut from 30: there is no more memory"
    assert (shown["p50"].text, shown["p95"].text, shown["p99"].text) == (
        "2.12 s", "2.23 s", "withheld",
    )  # fmt: skip
    assert shown["starts/s/core"].text == "5.00 /s"
    assert draw_storms(results) is not None
    assert results.find("vm-direct", "noop", "storm.ready", "burst") is None
    assert not any("storm" in outcome.details for outcome in results.measured)


def test_a_part_of_a_storm_is_no_smaller_storm(tmp_path: Path) -> None:
    plan = Synthetic(workloads=("noop",))
    starts = build_storm_outcomes(25)
    with Store.create(tmp_path / "r", build_manifest(plan)) as store:
        store.append(*build_outcomes(plan), *starts[:-5])
    write_samples(tmp_path / "r")
    (found,) = list_storms(load_results(tmp_path / "r"))
    assert (found.starts, len(found.storms)) == (25, 5), "the sixth has twenty of its starts"
    with Store.create(tmp_path / "s", build_manifest(plan)) as store:
        store.append(*build_outcomes(plan), *starts[:5])
    write_samples(tmp_path / "s")
    assert list_storms(load_results(tmp_path / "s")) == []


# ---- in a storm, with a driver that follows a script -------------------------------------------


def build_crowd_bench(folder: Path, driver: FakeDriver) -> Bench:
    bench = build_bench(folder, driver)
    image = Image("tiny", "sha256:0", folder, {"tree": Packing("tree", folder / "tree", 1, 1)})
    return replace(bench, images={"tiny": image})


def build_burst(count: int) -> Storm:
    return Storm(ScheduledTrial(0, 7, 0, "namespace", "noop", warmup=False), (0.0,) * count)


def test_a_defect_in_one_start_is_a_failed_start_with_its_trace(tmp_path: Path) -> None:
    def break_third(spec: InstanceSpec) -> None:
        if spec.name.endswith("-9"):
            raise ZeroDivisionError("a defect")

    driver = FakeDriver(problem=break_third)
    bench = build_crowd_bench(tmp_path, driver)
    outcomes = list(run_storm(build_burst(4), bench))
    (broken,) = [each for each in outcomes if each.status == "failed"]
    assert broken.error == "namespace in a storm of 4: internal error: ZeroDivisionError: a defect"
    assert broken.hint == "a fault of the harness; the trial's traceback.log shows where"
    assert "break_third" in (bench.logs / f"trial-{broken.trial}" / "traceback.log").read_text()
    assert all(instance.stopped for instance in driver.started)
    assert list(bench.scratch.iterdir()) == []


def test_a_storm_has_the_mark_of_a_cache_that_is_not_as_asked(tmp_path: Path) -> None:
    """A file that is mapped cannot be evicted."""
    file = tmp_path / "image"
    file.write_bytes(b"x" * (1 << 20))
    bench = build_crowd_bench(tmp_path, FakeDriver(watched=[file]))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped[:]) == 1 << 20
        cold = list(run_storm(build_burst(2), replace(bench, cache="cold")))
    assert all("cache-not-cold" in each.marks for each in cold)
    told = cold[0].details["storm"]
    assert isinstance(told, dict) and told["resident_share"] > 0.05
    warm = list(run_storm(build_burst(2), bench))
    assert all("cache-not-warm" not in each.marks for each in warm)


def test_a_storm_takes_nothing_of_the_disk_reserve(tmp_path: Path) -> None:
    bench = build_crowd_bench(tmp_path, FakeDriver())
    count, limit = find_size(build_burst(4), replace(bench, disk=1 << 45, memory=1))
    assert count == 0 and limit.startswith("each may write 32768 GiB; ")


def test_a_storm_that_is_cut_leaves_room_to_be_repeated(tmp_path: Path) -> None:
    bench = build_crowd_bench(tmp_path, FakeDriver())
    free = noise.count_free_pids()
    scarce = replace(bench, memory=1, pids=100, reserve=Reserve(0, free - 40 * 100, 0))
    count, limit = find_size(build_burst(100), scarce)
    assert 30 <= count <= 36 and limit.startswith("each may start 100 processes; ")
    assert find_size(build_burst(20), scarce) == (20, "")


def test_a_trial_that_could_take_of_the_reserve_fails_before_it_starts(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = build_crowd_bench(tmp_path, driver)
    (outcome,) = run_trials(replace(bench, memory=1 << 50))
    assert outcome.error is not None and outcome.hint is not None
    assert outcome.error.startswith("this host has no room for it: each may take 1048576 GiB of m")
    assert "a smaller `reserve`" in outcome.hint and driver.started == []
    (elsewhere,) = run_trials(replace(bench, reserve=Reserve(0, 1 << 40, 0)))
    assert elsewhere.error is not None and "process ids are free" in elsewhere.error


def test_the_reserve_of_a_small_host_is_an_eighth(tmp_path: Path) -> None:
    stated = build_reserve(tmp_path, 5, 6, 7)
    assert (stated.memory, stated.processes, stated.disk) == (5, 6, 7)
    usual = build_reserve(tmp_path, None, None, None)
    assert usual.memory == min(1 << 30, read_total() // 8)
    assert usual.processes <= 2000 and usual.disk <= 1 << 30


def test_all_storms_of_a_platform_are_as_small_as_the_smallest_before(tmp_path: Path) -> None:
    bench = build_crowd_bench(tmp_path, FakeDriver())
    plan = read_plan(None, {"platforms": ("namespace",), "workloads": ("noop",)}, new_seed=1)
    scarce = replace(bench, pids=100, reserve=Reserve(0, noise.count_free_pids() - 800, 0))
    bursts = [
        replace(build_burst(10), first=replace(build_burst(1).first, block=each, trial=10 * each))
        for each in range(3)
    ]
    work = Work(plan, scarce, [], [], [], bursts, lambda _: None)
    pace = Pace(replace(plan, blocks=1), Budget(None))
    sizes = [len(each) for each in work.run(pace) if "storm" in each[0].details]
    assert len(sizes) == 3 and sizes == sorted(sizes, reverse=True) and sizes[0] < 10


# ---- going on ----------------------------------------------------------------------------------


def test_a_storm_or_series_of_which_a_part_is_stored_begins_anew(tmp_path: Path) -> None:
    bench = build_crowd_bench(tmp_path, FakeDriver())
    first = ScheduledTrial(0, 2, 0, "namespace", "noop", warmup=False)
    plan = read_plan(None, {"platforms": ("namespace",), "workloads": ("noop",)}, new_seed=1)
    work = Work(plan, bench, [(first, 3)], [], [], [build_burst(4)], lambda _: None)
    steps = list(run_density(first, 3, bench))
    starts = list(run_storm(build_burst(4), bench))
    (trial,) = run_trials(bench)
    assert work.count_unfinished([]) == work.count_unfinished([trial]) == 0
    assert work.count_unfinished([trial, *steps]) == 0
    assert work.count_unfinished([trial, *steps[:3]]) == 3
    assert work.count_unfinished([trial, *steps, *starts]) == 0
    assert work.count_unfinished([trial, *steps, *starts[:3]]) == 3
    refused = replace(starts[0], details={"storm": {"refused": "no room"}})
    assert work.count_unfinished([trial, *steps, refused]) == 0
    with Store.create(tmp_path / "r", build_manifest(Synthetic())) as store:
        store.append(trial, *steps, *starts[:3])
        store.drop_last(3)
        store.append(*starts)
        numbers = [each.trial for each in store.read_outcomes()]
    assert numbers == [0, 2, 3, 4, 5, 7, 8, 9, 10]


def run_trials(bench: Bench) -> list[Outcome]:
    return list(run_schedule([ScheduledTrial(0, 0, 0, "namespace", "noop", warmup=False)], bench))


# ---- same-page merging -------------------------------------------------------------------------


def write_ksm(folder: Path, **counters: int) -> None:
    for name, value in counters.items():
        (folder / name).write_text(f"{value}\n")


def test_merging_is_settled_after_two_full_scans(tmp_path: Path) -> None:
    write_ksm(tmp_path, run=1, full_scans=5, pages_shared=3, pages_sharing=70)
    scans = itertools.count(6)
    found, _ = wait_settled(
        tmp_path, sleep=lambda _: write_ksm(tmp_path, full_scans=next(scans), pages_sharing=90)
    )
    assert found == Merging(running=True, scans=7, shared=3, merged=90)
    assert found.saved == 90 * mmap.PAGESIZE


def test_merging_is_not_waited_for_where_it_does_not_run(tmp_path: Path) -> None:
    assert find_fault(read_merging(tmp_path)) == "this kernel has no KSM"
    write_ksm(tmp_path, run=0, full_scans=5, pages_shared=0, pages_sharing=0)
    found, _ = wait_settled(tmp_path, sleep=lambda _: pytest.fail("it waits"))
    assert find_fault(found) == "ksmd does not run"


def test_merging_that_never_settles_is_given_up(tmp_path: Path) -> None:
    write_ksm(tmp_path, run=1, full_scans=5, pages_shared=0, pages_sharing=0)
    found, _ = wait_settled(tmp_path, limit=0.0, sleep=lambda _: None)
    assert found is not None and found.scans == 5
