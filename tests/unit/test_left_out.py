"""What a run went on without stands on its report's first screen, and whole further below."""

from pathlib import Path

import pytest

from harness.analysis.left_out import say_left_out
from harness.analysis.report import format_summary, render_report
from harness.analysis.results import load_results
from harness.store import read_manifest, write_manifest
from tests.unit.synthetic import Synthetic, write_run

SMALL = Synthetic(("process", "namespace", "vm-direct"), ("namespace",), ("noop",), blocks=6)
LONG = "grub-mkimage: error: cannot open /usr/lib/grub/x86_64-efi/linuxefi.mod " + "and so on " * 30
TOLD = [
    {"platform": "vm-disk", "reason": LONG, "remedy": "install the package grub", "part": ""},
    {"platform": "crun", "reason": "no groups", "remedy": None, "part": ""},
    {"platform": "runc", "reason": "no groups", "remedy": None, "part": ""},
    {"platform": "podman", "reason": "it has no bridge.", "remedy": "", "part": "with httpd"},
]


def write_with(folder: Path, **changes: object) -> Path:
    """A synthetic run whose manifest says what was left out."""
    write_run(folder, SMALL)
    write_manifest(folder, {**read_manifest(folder), **changes})
    return folder


def test_the_first_screen_says_what_is_left_out_and_why(tmp_path: Path) -> None:
    lines = [f"vm-disk: {LONG}", "crun: no groups"]
    folder = write_with(tmp_path / "r", left_out=lines, left_out_details=TOLD)
    render_report(folder)
    said = "crun, runc: no groups."
    summary = format_summary(folder)
    assert said in summary and "(install the package grub)" in summary
    markdown = (folder / "report.md").read_text()
    opening = markdown.partition("## The verdicts")[0]
    assert "**Left out.**" in opening and "`podman` with httpd: it has no bridge." in opening
    assert " … (install the package grub)" in opening
    assert LONG.strip() not in opening.replace("\\", "")
    assert LONG.strip() in markdown.replace("\\", "")
    page = (folder / "report.html").read_text()
    assert page.index("<code>vm-disk</code>: grub-mkimage") < page.index('id="verdicts"')
    assert page.index(LONG.strip()) > page.index('id="verdicts"')


def test_a_run_that_measured_nothing_says_what_was_left_out(tmp_path: Path) -> None:
    folder = write_with(tmp_path / "r", left_out_details=TOLD)
    (folder / "journal.jsonl").write_text(
        (folder / "journal.jsonl").read_text().partition("\n")[0] + "\n"
    )
    (folder / "samples.parquet").unlink()
    assert "Left out: vm-disk: grub-mkimage" in format_summary(folder)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["vm-direct: no QEMU", "moves by casync: it is not installed"],
         ("`vm-direct`: no QEMU.",)),
        (["namespace with httpd: no bridge"], ("`namespace` with httpd: no bridge.",)),
        ([], ()),
    ],
)  # fmt: skip
def test_the_lines_of_an_older_run_are_read(
    lines: list[str], said: tuple[str, ...], tmp_path: Path
) -> None:
    assert say_left_out(load_results(write_with(tmp_path / "r", left_out=lines))) == said


def test_many_reasons_are_counted(tmp_path: Path) -> None:
    told = [{"platform": f"p{number}", "reason": f"reason {number}"} for number in range(9)]
    said = say_left_out(load_results(write_with(tmp_path / "r", left_out_details=told)))
    assert len(said) == 7 and said[-1] == "3 more reasons are below, with the host."


def test_missing_groups_are_explained_where_that_is_a_warning(tmp_path: Path) -> None:
    differ = {"plan": ["cpus", "memory"], "unlimited": ["cpus", "memory"], "platforms": {}}
    why = "the control group /user.slice is not this user's to divide (systemd-run gives it one)"
    folder = write_with(tmp_path / "r", differ=differ, cgroups_missing=why)
    assert f"The reason: {why}." in format_summary(folder)
