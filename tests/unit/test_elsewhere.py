"""Chapters of other runs of the same host in a report: taken, named, and refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.isolation import find_evidence
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.errors import InputError
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, write_run
from tests.unit.test_isolation import build_outcomes as build_walls

RUN = Synthetic(platforms=("process", "namespace", "vm-direct"), workloads=("noop",), blocks=6)


def write_isolation(folder: Path, run_id: str = "other-run", **host: object) -> Path:
    """A run of `isolation` on the host of the synthetic runs, or one that differs in ``host``."""
    manifest = build_manifest(Synthetic(("namespace", "gvisor"), (), ("probe",)))
    known = manifest["host"]
    assert isinstance(known, Mapping)
    changed = {**manifest, "run_id": run_id, "host": {**known, **host}}
    with Store.create(folder, changed) as store:
        for outcome in build_walls():
            store.append(outcome)
    write_samples(folder)
    return folder


def test_a_chapter_of_another_run_says_where_it_is_from(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    other = write_isolation(tmp_path / "other")
    before = sorted(path.name for path in other.rglob("*"))
    render_report(folder, evidence=(other,))
    html, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    for page in (html, text):
        assert "Measured on the same host in another run" in page and "other-run" in page
        assert "What isolates each platform, seen from inside" in page.replace("<wbr>", "")
    assert html.count('<section id="isolation">') == html.count('href="#isolation"') == 1
    linked = {word.split(")")[0] for word in text.split("](plots/")[1:]}
    assert linked and all((folder / "plots" / name).is_file() for name in linked)
    assert sorted(path.name for path in other.rglob("*")) == before  # only read
    render_report(folder)
    assert "other-run" not in (folder / "report.html").read_text()


def test_platforms_that_were_not_probed_are_named_in_the_chapter(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    other = write_isolation(tmp_path / "other")
    render_report(folder, ("md",), evidence=(other,))
    chapter = (folder / "report.md").read_text().partition("\n## Isolation\n")[2]
    lead = chapter.strip().partition("\n")[0]
    probed = find_evidence(load_results(other))
    missing = [f"`{name}`" for name in RUN.platforms if name not in probed]
    assert missing and lead.endswith(
        f"Not probed, so nothing here is said of them: {', '.join(missing)}."
    )


def test_a_claim_that_the_run_did_not_measure_is_decided_by_another(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RUN)
    other = tmp_path / "other"
    manifest = {**build_manifest(RUN), "run_id": "layers-run"}
    with Store.create(other, manifest) as store:
        for each in build_outcomes(RUN):
            shipped = [
                replace(each.measurements[0], metric="rebuild.shipped", value=value, phase=phase)
                for value, phase in ((4e6, "code/good/oci-gzip"), (9e6, "code/bad/oci-gzip"))
            ]
            store.append(replace(each, measurements=tuple(shipped)))
    write_samples(other)
    render_report(folder, ("md",), evidence=(other,))
    row = find_row((folder / "report.md").read_text(), "The order of layers matters")
    assert "supported" in row and "In run `layers-run`" in row
    render_report(folder, ("md",))
    assert "not measured" in find_row((folder / "report.md").read_text(), "The order of layers")


def find_row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if start in line)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run_id": "20250314-092653-a1b2"}, "is the reported run itself"),
        ({"cpu": "Some other CPU"}, "its cpu is Some other CPU, not AMD EPYC"),
        ({"kernel": "5.10.0"}, "its kernel is 5.10.0, not 6.18.5"),
        ({"memory": 8 << 30}, "its memory is"),
    ],
)
def test_what_is_no_evidence_is_refused_by_name(
    tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    folder = write_run(tmp_path / "run", RUN)
    other = write_isolation(tmp_path / "other", **changes)
    with pytest.raises(InputError, match=reason):
        render_report(folder, evidence=(other,))
    assert not (folder / "report.html").exists()
