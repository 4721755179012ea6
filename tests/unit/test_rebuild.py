"""Rebuilds as values: what is built, in which order, what is new, and what the report says."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.analysis.rebuild import build_rebuilds, find_cases
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.errors import HostError
from harness.images.rootfs import build_file
from harness.model import Measurement, Outcome
from harness.rebuild.cases import CHANGES, LAYERED, ScheduledCase, build_cases, build_schedule
from harness.rebuild.disks import build_script, find_fault
from harness.rebuild.material import update_package
from harness.rebuild.recipe import (
    Version,
    build_change,
    build_containerfile,
    build_context,
    count_expected,
    count_steps,
    find_changed,
)
from harness.rebuild.shipping import BLOCK, find_new, write_changed
from harness.rebuild.trials import Site, build_outcome, run_cases
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest

BEFORE = Version("1", ("flask.deb",))

OUTPUT = """\
STEP 1/4: FROM localhost/base:1
STEP 2/4: COPY requirements.txt /srv/app/
--> Using cache 0123
--> 0123
STEP 3/4: RUN dpkg
--> Using cache 4567
--> 4567
STEP 4/4: COPY . /srv/app/
--> 89ab
"""


# ---- what is built ---------------------------------------------------------------------------


def test_the_good_order_installs_before_it_copies_the_code_and_the_bad_one_after() -> None:
    good = build_containerfile("good", 1).splitlines()
    bad = build_containerfile("bad", 1).splitlines()
    assert [line.split()[0] for line in good] == ["FROM", "COPY", "RUN", "COPY", "CMD"]
    assert [line.split()[0] for line in bad] == ["FROM", "COPY", "RUN", "CMD"]
    assert good[1].startswith("COPY requirements.txt") and bad[1].startswith("COPY . ")
    assert good[2] == bad[2]


@pytest.mark.parametrize(
    ("change", "touched", "base"),
    [("code", ("app.py",), 1), ("dependency", ("requirements.txt",), 1), ("base", (), 2)],
)
def test_a_change_touches_one_thing(change: str, touched: tuple[str, ...], base: int) -> None:
    after = build_change(BEFORE, change, "new", ("waitress.deb",))  # type: ignore[arg-type]
    assert find_changed(build_context(BEFORE), build_context(after)) == touched
    assert after.base == base


def test_the_cache_saves_only_what_stands_before_the_code() -> None:
    saved = {(change, way): count_expected(change, way) for change in CHANGES for way in LAYERED}
    assert {case: count for case, count in saved.items() if count} == {("code", "good"): 2}


def test_steps_are_counted_as_buildah_prints_them() -> None:
    assert count_steps(OUTPUT) == (3, 2)
    assert count_steps("") == (0, 0)


def test_every_block_has_every_case_once_in_an_order_of_the_seed() -> None:
    first, again, other = (build_schedule(3, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 36
    for block in range(3):
        assert {each.case for each in first if each.block == block} == set(build_cases())
    assert [each.trial for each in first] == list(range(36))


# ---- what is new -----------------------------------------------------------------------------


def test_only_blobs_with_new_digests_travel() -> None:
    before = {"sha256:a": 100, "sha256:b": 5}
    assert find_new(before, {"sha256:a": 100, "sha256:c": 7}) == {"sha256:c": 7}
    assert find_new(before, before) == {}


def test_changed_blocks_are_those_that_differ_at_their_place(tmp_path: Path) -> None:
    before, after, out = (tmp_path / name for name in ("before", "after", "out"))
    zeros, ones, twos = (bytes([value]) * BLOCK for value in (0, 1, 2))
    before.write_bytes(ones + ones + zeros + twos)
    after.write_bytes(ones + twos + zeros + zeros + zeros + ones)
    changed = write_changed(before, after, out)
    assert (changed.blocks, changed.bytes) == (3, 3 * BLOCK)
    assert out.read_bytes() == twos + zeros + ones


def test_an_update_changes_every_byte_of_the_libraries_and_the_version() -> None:
    status = (
        "Package: libgnutls30\nStatus: install ok installed\nVersion: 3.7\nArchitecture: amd64\n"
    )
    paths = b"/usr/lib/libgnutls.so.30\n/usr/share/doc/libgnutls30/copyright\n"
    tree = {
        path: build_file(path, content)
        for path, content in {
            "var/lib/dpkg/status": status.encode(),
            "var/lib/dpkg/info/libgnutls30.list": paths,
            "usr/lib/libgnutls.so.30": bytes(range(256)),
            "usr/share/doc/libgnutls30/copyright": b"text",
        }.items()
    }
    changed = update_package(tree, "libgnutls30")
    assert set(changed) == {"usr/lib/libgnutls.so.30", "var/lib/dpkg/status"}
    content = changed["usr/lib/libgnutls.so.30"].content
    assert isinstance(content, bytes) and sorted(content) == list(range(256))
    record = changed["var/lib/dpkg/status"].content
    assert isinstance(record, bytes) and b"Version: 3.7+" in record


# ---- the disk --------------------------------------------------------------------------------


def test_files_are_copied_in_whatever_was_there_before(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "srv/app").mkdir(parents=True)
    (upper / "srv/app/a b.py").write_text("x")
    os.utime(upper / "srv/app/a b.py", (5, 5))
    (upper / "srv/link").symlink_to("app")
    lines = build_script(upper)
    place = lines.index('rm "/srv/app/a b.py"')
    assert lines[place + 1] == 'cd "/srv/app"'
    assert lines[place + 2] == f'write "{upper}/srv/app/a b.py" "a b.py"'
    assert 'set_inode_field "/srv/app/a b.py" mtime @5' in lines
    assert 'symlink "/srv/link" "app"' in lines
    assert lines[0] == 'mkdir "/srv"'


@pytest.mark.parametrize(
    ("stderr", "fault"),
    [
        ("debugfs 1.47.0 (5-Feb-2023)\n", None),
        ("rm: File not found by ext2_lookup while trying to resolve filename\n", None),
        ("mkdir: Ext2 directory already exists \n", None),
        ("write: Could not allocate block in ext2 filesystem\n",
         "write: Could not allocate block in ext2 filesystem"),
    ],
)  # fmt: skip
def test_what_debugfs_complains_of_is_told(stderr: str, fault: str | None) -> None:
    assert find_fault(stderr) == fault


# ---- the report ------------------------------------------------------------------------------


def build_outcomes(blocks: int) -> list[Outcome]:
    return [_build_outcome(scheduled) for scheduled in build_schedule(blocks, 1)]


def _build_outcome(scheduled: ScheduledCase) -> Outcome:
    case = scheduled.case
    packings = {"good": "oci-gzip", "bad": "oci-gzip", "rebuild": "qcow2", "update": "overlay-zstd"}
    rows = (
        Measurement("rebuild.seconds", 1 + 0.1 * scheduled.block, case.phase("image")),
        Measurement("rebuild.bytes", 1000, case.phase("image")),
        Measurement("rebuild.shipped", 500, case.phase(packings[case.way])),
    )
    details: dict[str, object] = {"change": case.change, "way": case.way}
    if case.kind == "container":
        details["rebuild"] = {"steps": 4, "cached": count_expected(case.change, case.way)}
    return replace(build_outcome(scheduled), measurements=rows, details=details)


def write_rebuilds(folder: Path, blocks: int = 3) -> Path:
    with Store.create(folder, build_manifest(Synthetic((), (), ("rebuild",)))) as store:
        for outcome in build_outcomes(blocks):
            store.append(outcome)
    write_samples(folder)
    return folder


def test_the_report_has_a_row_and_a_point_for_every_change_and_way(tmp_path: Path) -> None:
    folder = write_rebuilds(tmp_path / "r")
    results = load_results(folder)
    table = build_rebuilds(results)
    assert table is not None and len(table.rows) == len(find_cases(results)) == 12
    assert table.rows[0].cells[1].text == "2 of 4"
    render_report(folder)
    text = (folder / "report.md").read_text()
    assert "plots/rebuild.svg" in text
    assert "After a change of one file of the code, layers, good order: 1.10 s" in text
    assert "## Startup" not in text and "milestone" not in text
    assert text.count("ranges of 3 blocks, which hold the median with at most 75 %") == 2
    assert "95 % intervals" not in text  # neither below the figure nor in the method


def test_a_single_repeat_is_no_headline(tmp_path: Path) -> None:
    folder = write_rebuilds(tmp_path / "r", blocks=1)
    render_report(folder)
    assert "The figures are no headline" in (folder / "report.md").read_text()


# ---- one that nobody expected ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said", "trace"),
    [
        (HostError("no room", hint="make some"), "no room", False),
        (KeyError("layers"), "internal error: KeyError: 'layers'", True),
    ],
)
def test_a_rebuild_that_fails_is_an_outcome_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str, trace: bool
) -> None:
    def fail(_trial: object) -> None:
        raise error

    monkeypatch.setattr("harness.rebuild.trials._Trial.rebuild_layers", fail)
    monkeypatch.setattr("harness.rebuild.trials._Trial.rebuild_disk", fail)
    site = cast(Site, SimpleNamespace(
        folder=tmp_path, before=BEFORE, packages=SimpleNamespace(added="flask.deb")))  # fmt: skip
    schedule = build_schedule(1, 7)
    found = list(run_cases(schedule, site, tmp_path / "logs"))
    assert [each.status for each in found] == ["failed"] * len(schedule)
    assert all((each.error or "").startswith(said) and each.hint for each in found)
    names = [f"logs/trial-{each.trial}/traceback.log" for each in schedule]
    assert [each.details.get("logs") for each in found] == [[n] if trace else None for n in names]
    assert all((tmp_path / name).exists() is trace for name in names)
