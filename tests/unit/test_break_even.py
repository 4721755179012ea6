"""Break-even: when a later start and a larger share of memory cease and begin to matter."""

from pathlib import Path

import pytest

from harness.analysis.break_even import (
    Span,
    build_filling,
    build_seconds,
    build_work,
    find_density,
    find_filling,
    find_penalty,
    find_work,
)
from harness.analysis.plots.break_even import draw_break_even
from harness.analysis.results import Figure, Results, load_results
from tests.unit.synthetic import Synthetic, write_run

GIB = 1 << 30


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return load_results(write_run(tmp_path_factory.mktemp("even") / "r", Synthetic()))


def test_work_of_99_times_the_penalty_makes_it_one_percent() -> None:
    work = find_work(Span(2.0, 1.0, 3.0))
    assert 2.0 / (2.0 + work.middle) == pytest.approx(0.01)
    assert work.low == pytest.approx(99.0)
    assert work.high == pytest.approx(297.0)


def test_the_penalty_is_that_of_the_paired_ratio(results: Results) -> None:
    found = find_penalty(results, "vm-direct", "noop")
    ratio = results.find_ratio("vm-direct", "noop", "startup.ready")
    reference = results.find("namespace", "noop", "startup.ready")
    assert found is not None and ratio is not None and reference is not None
    assert found.middle == pytest.approx((ratio.median - 1) * reference.median)
    assert found.low < found.middle < found.high
    machine = results.find("vm-direct", "noop", "startup.ready")
    assert machine is not None
    assert found.middle == pytest.approx(machine.median - reference.median, rel=0.02)


def test_what_starts_sooner_or_is_the_reference_has_no_penalty(results: Results) -> None:
    assert find_penalty(results, "process", "noop") is None
    assert find_penalty(results, "namespace", "noop") is None
    table = build_work(results)
    assert table is not None
    assert {row.platform for row in table.rows} == {"vm-direct", "vm-microvm"}


def figure(median: float, half: float, withheld: str = "") -> Figure:
    return Figure(10, median, median - half, median + half, "B", withheld)


def test_the_difference_in_memory_fills_a_host() -> None:
    filling = find_filling(figure(200e6, 10e6), figure(1e6, 0.5e6), 24e9)
    assert filling is not None
    assert filling.middle == pytest.approx(24e9 / 199e6)
    assert filling.low < filling.middle < filling.high
    assert find_filling(figure(2e6, 1e6), figure(1.5e6, 1e6), 24e9) is None, "perhaps no difference"


def test_instances_per_gib_are_fewest_where_each_costs_most() -> None:
    density = find_density(figure(GIB / 4, GIB / 8))
    assert density.middle == pytest.approx(4.0)
    assert density.low == pytest.approx(8 / 3) and density.high == pytest.approx(8.0)


def test_assumptions_are_printed_and_machines_called_emulated(results: Results) -> None:
    for table in (build_work(results), build_filling(results)):
        assert table is not None and table.note.startswith("Assumed: ")
        machines = [row.head for row in table.rows if row.platform.startswith("vm-")]
        assert machines and all("emulated (TCG)" in head for head in machines)
    drawing = draw_break_even(results)
    assert drawing is not None and "Assumed: " in drawing.note


def test_a_withheld_start_has_no_break_even(tmp_path: Path) -> None:
    few = load_results(write_run(tmp_path / "r", Synthetic(blocks=2)))
    assert build_work(few) is None and draw_break_even(few) is None


def test_an_interval_has_the_unit_of_its_middle() -> None:
    cell = build_seconds(Span(138.8, 112.5, 153.8))
    assert (cell.text, cell.note) == ("2.31 min", "1.88–2.56")
    assert build_seconds(Span(0.0047, 0.0009, 1.2)).note == "0.900–1200"
