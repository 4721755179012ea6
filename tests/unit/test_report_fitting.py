"""A page of a large run stays small: tables are cut, say so, and are whole in files beside it."""

import csv
from pathlib import Path

import pytest

from harness.analysis.report import fitting, render_report
from harness.analysis.report.fitting import LEAST_ROWS, MOST_CELLS, find_rows
from tests.unit.synthetic import Synthetic, write_run

RUN = Synthetic(
    platforms=("process", "namespace", *(f"crun/{number:03}" for number in range(40))),
    workloads=("noop",), blocks=1, aa=(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ([(10, 5), (20, 5)], None),  # all of it fits
        ([(MOST_CELLS, 1)], None),
        ([(10, 5), (100_000, 10)], (MOST_CELLS - 50) // 10),  # the small one stays whole
        ([(100_000, 10), (100_000, 10)], MOST_CELLS // 20),
        ([(50_000, 1000)] * 10, LEAST_ROWS),  # never less than that
    ],
)
def test_all_tables_of_a_page_get_as_many_rows_as_fit(
    sizes: list[tuple[int, int]], rows: int | None
) -> None:
    assert find_rows(sizes) == rows


def test_a_large_page_is_cut_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "r", RUN)
    render_report(folder)
    whole = (folder / "report.html").read_text()
    assert not (folder / "tables").exists() and "rows are shown" not in whole
    monkeypatch.setattr(fitting, "MOST_CELLS", 1000)
    render_report(folder)
    page = (folder / "report.html").read_text().replace("<wbr>", "")
    assert page.count("<tr") < whole.count("<tr") / 2
    files = sorted((folder / "tables").glob("*.csv"))
    assert files and all(f"tables/{path.name}" in page for path in files)
    glance = next(path for path in files if "at-a-glance" in path.name)
    rows = list(csv.reader(glance.open()))
    assert [row[0] for row in rows[1:]] == list(RUN.platforms)
    assert len({len(row) for row in rows}) == 1
    (folder / "tables/999-old.csv").write_text("stale")
    render_report(folder)
    assert sorted((folder / "tables").glob("*.csv")) == files
