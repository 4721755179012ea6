"""The table of base images: one row for each application in each image."""

from dataclasses import replace
from pathlib import Path

from harness.analysis.bases import build_bases
from harness.analysis.report import render_report
from harness.analysis.results import Results, load_results
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes

WORKLOADS = ("webserver@web-scratch", "webserver@web-slim", "noop@slim")
PLAN = Synthetic(("namespace", "vm-direct"), (), WORKLOADS, blocks=6)
SIZES = {"apparent": 3 << 20, "allocated": 3 << 20, "virtual": None}
IMAGES = {
    "web-scratch": {
        "facts": {"files": 2, "packages": 0},
        "packings": {"oci-gzip": SIZES, "qcow2": {**SIZES, "apparent": 5 << 20}},
    },
    "web-slim": {"facts": {}, "packings": {}},
}


def build_results(folder: Path, plan: Synthetic = PLAN) -> Results:
    with Store.create(folder, {**build_manifest(plan), "images": IMAGES}) as store:
        for outcome in build_outcomes(plan):
            image = outcome.workload.partition("@")[2]
            store.append(replace(outcome, image=image or outcome.image))
    write_samples(folder)
    return load_results(folder)


def test_each_base_has_its_facts_and_its_figures_as_both_kinds(tmp_path: Path) -> None:
    table = build_bases(build_results(tmp_path / "r"))
    assert table is not None
    first, second = table.rows
    assert [cell.text for cell in first.cells[:5]] == [
        "`web-scratch`", "0", "2", "3 MiB", "5 MiB",
    ]  # fmt: skip
    assert [cell.text for cell in second.cells[:5]] == ["`web-slim`", "–", "–", "–", "–"]
    assert len(table.head) == len(first.cells) + 1 == 10
    assert "`vm-direct`, emulated (TCG)" in table.head[-1]
    assert all(cell.text not in ("", "–") for cell in first.cells[5:])


def test_an_application_in_one_image_only_is_no_ladder(tmp_path: Path) -> None:
    results = build_results(tmp_path / "r", replace(PLAN, workloads=("noop@slim", "httpd")))
    assert build_bases(results) is None
    render_report(results.folder)
    assert "Base images" not in (results.folder / "report.md").read_text()
