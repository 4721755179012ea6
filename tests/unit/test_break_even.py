"""Break-even: when a later start and a larger share of memory cease and begin to matter."""

from collections.abc import Mapping
from dataclasses import replace
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
from harness.certificate import Certificate, Condition
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


MIB = 1 << 20


def with_memory(results: Results, **figures: Mapping[str, Figure]) -> Results:
    """The same run with no other figures of memory than these: by workload, then by platform, of
    `memory.marginal`; `pss` stands for that of noop."""
    kept = {key: each for key, each in results.figures.items() if not key[2].startswith("memory.")}
    for workload, found in figures.items():
        metric = "memory.pss" if workload == "pss" else "memory.marginal"
        name = "noop" if workload == "pss" else workload
        kept |= {(platform, name, metric, ""): each for platform, each in found.items()}
    return replace(results, figures=kept, workloads=(*results.workloads, "steady"))


def list_filling(results: Results) -> dict[str, tuple[str, str, str, str]]:
    """By platform: what one more costs, why not, when the difference fills, and why not."""
    table = build_filling(results)
    assert table is not None
    return {
        row.platform: (row.cells[0].text, row.cells[0].note, row.cells[2].text, row.cells[2].note)
        for row in table.rows
    }


PSS = {
    "process": figure(MIB, MIB / 4),
    "namespace": figure(2 * MIB, MIB / 4),
    "vm-direct": figure(90 * MIB, MIB),
}


def test_one_metric_and_one_workload_are_those_of_the_whole_table(results: Results) -> None:
    """The slope of one platform never stands beside the PSS of another."""
    marginal = {
        "process": figure(-MIB, MIB / 4, "no cost: free memory rose (more)"),
        "namespace": figure(3 * MIB, MIB / 4),
        "vm-direct": figure(100 * MIB, MIB),
    }
    rows = list_filling(with_memory(results, noop=marginal, pss=PSS))
    assert rows["process"] == ("–", "no cost: free memory rose", "–", "")
    assert (rows["namespace"][0], rows["vm-direct"][0]) == ("3.00 MiB", "100 MiB")
    table = build_filling(with_memory(results, noop=marginal, pss=PSS))
    assert table is not None
    assert table.note.startswith("By `memory.marginal` of `noop`, on every platform. Assumed: ")


@pytest.mark.parametrize(
    "reference",
    [figure(3 * MIB, MIB, "withheld for once"), figure(MIB, 2 * MIB)],
    ids=["withheld", "perhaps nothing"],
)
def test_where_the_reference_has_no_sure_slope_all_are_compared_by_pss(
    results: Results, reference: Figure
) -> None:
    marginal = {"namespace": reference, "vm-direct": figure(100 * MIB, MIB)}
    changed = with_memory(results, noop=marginal, pss=PSS)
    rows = list_filling(changed)
    assert [rows[name][0] for name in PSS] == ["1.00 MiB", "2.00 MiB", "90.0 MiB"]
    table = build_filling(changed)
    assert table is not None and table.note.startswith("By `memory.pss` of `noop`")


def test_instances_that_rest_do_not_stand_beside_some_that_work(results: Results) -> None:
    idle = {"namespace": figure(3 * MIB, MIB / 4), "vm-microvm": figure(80 * MIB, MIB)}
    loaded = {"namespace": figure(9 * MIB, MIB / 4), "vm-direct": figure(100 * MIB, MIB)}
    rows = list_filling(with_memory(results, noop=idle, steady=loaded, pss=PSS))
    assert (rows["namespace"][0], rows["vm-microvm"][0]) == ("3.00 MiB", "80.0 MiB")
    assert rows["vm-direct"][:2] == ("–", "not measured")


def test_a_difference_that_the_certificate_refuses_fills_nothing(results: Results) -> None:
    limits = {"namespace": 256 * MIB, "vm-direct": 256 * MIB, "vm-microvm": 128 * MIB}
    conditions = {(name, "noop"): {"memory": Condition(each)} for name, each in limits.items()}
    pss = {**PSS, "vm-microvm": figure(80 * MIB, MIB)}
    changed = replace(with_memory(results, pss=pss), certificate=Certificate(conditions))
    rows = list_filling(changed)
    assert rows["vm-direct"][2] != "–"
    assert rows["vm-microvm"][0] == "80.0 MiB"
    assert rows["vm-microvm"][2] == "–" and rows["vm-microvm"][3].startswith("not alike: memory")


def test_without_a_sure_figure_of_the_reference_there_is_no_table(results: Results) -> None:
    assert build_filling(with_memory(results, pss={"vm-direct": figure(90 * MIB, MIB)})) is None


def test_assumptions_are_printed_and_machines_called_emulated(results: Results) -> None:
    for table in (build_work(results), build_filling(results)):
        assert table is not None and "Assumed: " in table.note
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
