"""Density series: when they end, how the Nth start fares, and where starts get slower for good."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.crowd import Series, build_crowd, find_knee
from harness.analysis.plots.crowd import draw_crowd
from harness.analysis.results import Results, load_results
from harness.density import find_end
from harness.model import Measurement, Outcome
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, build_series

GIB = 1 << 30


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        ([1.0] * 20, None),
        ([1.0] * 10 + [3.0] * 10, 11),
        ([1.0] * 10 + [9.0] + [1.0] * 9, None),
        ([1.0] * 15 + [3.0] * 2 + [1.0] * 3, None),
        ([1.0 + 0.2 * number for number in range(20)], 7),
        ([1.0] * 4 + [9.0] * 5, None),
    ],
    ids=["steady", "step", "one slow start", "two slow starts", "ever slower", "too few"],
)
def test_the_knee_is_where_starts_are_slower_for_good(
    seconds: list[float], knee: int | None
) -> None:
    found = find_knee(range(1, len(seconds) + 1), seconds)
    assert found == knee if knee is None or found is None else abs(found - knee) <= 1


@pytest.mark.parametrize(
    ("available", "ends"),
    [
        ([10 * GIB], False),
        ([10 * GIB, 9 * GIB, 8 * GIB], False),
        ([10 * GIB, 7 * GIB, 4 * GIB], True),
        ([3 * GIB // 2, 3 * GIB // 2], False),
        ([GIB // 2], True),
        ([GIB, 2 * GIB], False),
    ],
    ids=["first", "room", "two more would not fit", "free of cost", "none left", "others ended"],
)
def test_a_series_ends_before_the_reserve_is_touched(available: list[int], ends: bool) -> None:
    said = find_end(available, GIB)
    assert bool(said) is ends
    assert not ends or said == "one more could leave less than 1 GiB of memory"


def test_no_start_of_a_short_series_is_both_a_first_and_a_last_one() -> None:
    short = Series("crun", "noop", (1, 2, 3), (1.0, 2.0, 9.0), "")
    assert (short.first, short.last) == (1.0, 9.0)
    alone = Series("crun", "noop", (1,), (1.0,), "")
    assert (alone.first, alone.last) == (1.0, 1.0)
    long = Series("crun", "noop", range(1, 21), [float(n) for n in range(1, 21)], "")
    assert (long.first, long.last) == (3.0, 18.0)


def test_a_series_says_how_far_it_came_and_why_it_ended(tmp_path: Path) -> None:
    steps = [
        replace(
            each,
            measurements=(*each.measurements, Measurement("density.ready", 1 + each.instances / 9)),
            details={"ended": "its 2 min were over"} if each.instances == 20 else {},
        )
        for each in build_series(200e6, 21)
        if each.instances
    ]
    plan = Synthetic(workloads=("noop",))
    with Store.create(tmp_path / "r", build_manifest(plan)) as store:
        for outcome in [*build_outcomes(plan), *steps]:
            store.append(outcome)
    write_samples(tmp_path / "r")
    results = load_results(tmp_path / "r")
    table = build_crowd(results)
    assert table is not None
    (row,) = table.rows
    assert row.head == "`vm-direct`, emulated (TCG)"
    assert (row.cells[1].text, row.cells[1].note) == ("20", "its 2 min were over")
    assert row.cells[4].text.startswith("at ")
    assert [each.part for each in draw_crowd(results)] == [1]
    assert results.find("vm-direct", "noop", "density.ready") is None, "no median over a series"


def write_with(folder: Path, *steps: Outcome) -> Results:
    plan = Synthetic(workloads=("noop",))
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in [*build_outcomes(plan), *steps]:
            store.append(outcome)
    write_samples(folder)
    return load_results(folder)


def test_a_series_whose_first_start_failed_is_no_trial_and_has_a_row(tmp_path: Path) -> None:
    told = {"density": {"asked": 20}}
    none, one = (replace(each, details=told) for each in build_series(200e6, 2))
    error = "vm-direct with 1 instance: no more"
    failed = replace(one, status="failed", error=error, measurements=(), hint=None)
    results = write_with(tmp_path / "r", none, failed)
    blocks = {each.block for each in results.measured}
    assert len(results.find_trials("vm-direct", "noop")) == len(blocks)
    table = build_crowd(results)
    assert table is not None
    (row,) = table.rows
    assert (row.cells[1].text, row.cells[1].note) == ("0", error)
    assert draw_crowd(results) == []


def test_a_series_for_which_the_host_has_no_room_has_a_row(tmp_path: Path) -> None:
    why = "one more could leave less than 23 GiB of memory"
    (none,) = build_series(200e6, 1)
    details = {"density": {"asked": 20}, "ended": why}
    table = build_crowd(write_with(tmp_path / "r", replace(none, details=details)))
    assert table is not None
    (row,) = table.rows
    assert (row.cells[1].text, row.cells[1].note) == ("0", f"not begun: {why}")
    assert {each.text for each in row.cells[2:]} == {"–"}


def test_a_series_of_an_older_release_that_failed_is_read_as_before(tmp_path: Path) -> None:
    steps = [
        replace(each, measurements=(*each.measurements, Measurement("density.ready", 1.0)))
        for each in build_series(200e6, 3)
        if each.instances
    ]
    failed = replace(steps[-1], instances=3, trial=1003, status="failed", measurements=(),
                     error="vm-direct with 3 instances: no more")  # fmt: skip
    table = build_crowd(write_with(tmp_path / "r", *steps, failed))
    assert table is not None
    (row,) = table.rows
    assert (row.cells[1].text, row.cells[1].note) == ("2", "vm-direct with 3 instances: no more")
