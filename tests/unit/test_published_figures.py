"""Published figures: all of them are kept with their sources, and stand beside their like only."""

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.analysis import published
from harness.analysis.published import convert_value, find_partner, list_rows, read_published
from harness.analysis.published_tables import build_published, format_published
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.cli import harness
from harness.metrics import METRICS
from tests.unit.synthetic import Synthetic, write_run

FILE = Path(published.__file__).with_name("published.toml")
RUN = Synthetic(("namespace", "vm-disk"), (), ("noop",), blocks=6)
EVERY_FIELD = "1178ebeb3f4340763d6cbfde2fd0541c403bba0ffefe63967d930799d0f77d6f"
"""SHA-256 of the collection's rows as sorted JSON, taken from the collection itself."""


def test_every_row_of_the_collection_is_here_unchanged() -> None:
    rows = tomllib.loads(FILE.read_text())["figures"]
    assert len(rows) == len({row["id"] for row in rows}) == 94
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == EVERY_FIELD
    assert all(row["source"] and row["where"] and row["certainty"] for row in rows)


def test_every_published_metric_is_either_beside_one_of_ours_or_apart_with_a_reason() -> None:
    found = read_published()
    beside = [each.published for each in found.beside]
    apart = [each.published for each in found.apart]
    assert sorted(beside + apart) == sorted({each.metric for each in found.figures})
    assert all(each.why and each.differs and each.metric in METRICS for each in found.beside)
    assert all(each.why for each in found.apart)


def test_what_stands_beside_a_metric_has_its_unit() -> None:
    for each in read_published().figures:
        partner = find_partner(each.metric)
        if partner:
            converted = convert_value(each)
            assert converted and converted[0] == METRICS[partner.metric].unit, each.id


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("unikraft_docker_min", "conditions", "NOT a boot time"),
        ("nsdi_qemu_microvm", "conditions", "contradicts later results"),
        ("nsdi_mapped_fc", "conditions", "mapped not resident"),
        ("nsdi_mapped_qemu", "conditions", "mapped not resident"),  # «same» in the file
        ("gvisor_density_runsc", "conditions", "GCE n1-standard-4"),
        ("runc_100_true", "conditions", "podman/OCI warm"),
        ("nsdi_parallel50_fc", "conditions", "m5d.metal"),
        ("clear_boot", "where", "qemu-devel"),
    ],
)
def test_notes_and_conditions_are_carried(name: str, field: str, words: str) -> None:
    row = next(each for each in list_rows() if each["id"] == name)
    assert words in str(row[field])


def test_no_condition_is_left_as_same() -> None:
    for each in read_published().figures:
        assert each.conditions not in ("same", "same mail") and each.where != "same", each.id


@pytest.mark.parametrize(
    ("name", "words"),
    [("depot_cloudimg", "7.00 s to 9.00 s"), ("size_ubuntu_min_vm", "227 MiB"),
     ("nsdi_net_qemu", "2.77 GiB/s"), ("felter_linpack_docker", "290.87 GFLOPS")],
)  # fmt: skip
def test_figures_are_shown_in_our_units(name: str, words: str) -> None:
    assert format_published(next(x for x in read_published().figures if x.id == name)) == words


def test_the_page_shows_them_grey_with_source_conditions_and_difference(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", RUN)
    render_report(folder)
    html, markdown = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert 'class="published"' in html
    for text in (html, markdown):
        assert "docker-library/repo-info, 2026" in text  # an image by gzip
        assert "Depot blog, 2026" in text and "ready = date via vsock" in text
        assert "hardware virtualisation there, emulated (TCG) here" in text
        assert "another image; theirs is the layer alone" in text
        assert "NSDI" not in text and "GFLOPS" not in text  # without an equal here


def test_only_where_the_run_has_the_same_metric_packing_platform_and_workload(
    tmp_path: Path,
) -> None:
    def captions(plan: Synthetic, area: str) -> list[str]:
        results = load_results(write_run(tmp_path / f"{len(list(tmp_path.iterdir()))}", plan))
        return [table.caption for table in build_published(results, area)]

    assert captions(RUN, "startup") == ["Published figures beside `startup.ready`"]
    assert captions(replace(RUN, workloads=("httpd",)), "startup") == []
    assert captions(replace(RUN, platforms=("namespace", "vm-direct")), "startup") == []
    assert captions(RUN, "memory") == []
    assert captions(replace(RUN, leave_out=("portability.first",)), "portability") == []


def test_no_figure_verdict_or_average_changes_for_them(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", RUN))
    before = dict(results.figures), dict(results.ratios)
    build_published(results, "portability")
    assert (results.figures, results.ratios) == before
    assert set(results.platforms) == {"namespace", "vm-disk"}


def test_they_can_be_listed() -> None:
    shown = CliRunner().invoke(harness, ["list", "published", "--json"])
    rows = json.loads(shown.output)
    assert len(rows) == 94 and all(row["difference"] for row in rows)
    assert {"source", "year", "stat", "certainty", "needs", "where", "beside"} <= set(rows[0])
