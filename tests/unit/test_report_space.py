"""The report's tables of disk space: each appears with its figures, and is gone without them."""

from dataclasses import replace
from pathlib import Path

from harness.analysis.report import render_report
from harness.analysis.results import Results, load_results
from harness.analysis.space import build_growth, build_space
from harness.model import Measurement
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, build_series

PLAN = Synthetic(blocks=6, workloads=("noop",))
MIB = 1 << 20
MARKS = (("written", 32.0), ("kept", 16.0), ("rotated", 20.0))


def build_results(folder: Path, *rows: Measurement, series: int = 0) -> Results:
    """A run in which every trial has ``rows`` besides, and a series of ``series`` steps."""
    with Store.create(folder, build_manifest(PLAN)) as store:
        for outcome in build_outcomes(PLAN):
            store.append(replace(outcome, measurements=(*outcome.measurements, *rows)))
        for step in build_series(1e6, series):
            taken = Measurement("disk.occupied", (30.0 + 2.0 * step.instances) * MIB)
            store.append(replace(step, measurements=(*step.measurements, taken)))
    write_samples(folder)
    return load_results(folder)


def test_a_run_without_marks_or_shared_blocks_says_nothing_of_them(tmp_path: Path) -> None:
    results = build_results(tmp_path / "r")
    space = build_space(results, "noop")
    assert space is not None
    assert space.head == (
        "platform", "image, apparent", "image, allocated", "taken by an instance",
        "free again after delete",
    )  # fmt: skip
    assert space.note == ""
    assert build_growth(results, "noop") is None


def test_marks_are_columns_in_their_order(tmp_path: Path) -> None:
    rows = [Measurement("disk.instance_growth", mib * MIB, name) for name, mib in MARKS]
    growth = build_growth(build_results(tmp_path / "r", *rows), "noop")
    assert growth is not None
    assert growth.head == ("platform", "all written", "half of it deleted", "`rotated`", "settled")
    assert [cell.text for cell in growth.rows[0].cells[:3]] == ["32.0 MiB", "16.0 MiB", "20.0 MiB"]
    assert "/discard" in growth.note


def test_no_shared_block_is_one_sentence_and_some_are_a_column(tmp_path: Path) -> None:
    none = Measurement("disk.instance_shared", 0)
    space = build_space(build_results(tmp_path / "none", none), "noop")
    assert space is not None
    assert "of that shared" not in space.head and "No block" in space.note
    some = Measurement("disk.instance_shared", MIB)
    space = build_space(build_results(tmp_path / "some", some), "noop")
    assert space is not None
    assert "of that shared" in space.head and space.note == ""


def test_one_more_instance_has_a_column_and_a_panel(tmp_path: Path) -> None:
    results = build_results(tmp_path / "r", series=5)
    space = build_space(results, "noop")
    assert space is not None and "one more instance" in space.head
    row = next(row for row in space.rows if row.platform == "vm-direct")
    assert row.cells[space.head.index("one more instance") - 1].text == "2.00 MiB"
    render_report(tmp_path / "r", ["md"])
    assert "2.00 MiB" in (tmp_path / "r/report.md").read_text()
