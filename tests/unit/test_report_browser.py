"""The page in a real browser: its width on a phone and a desk, and on paper."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.analysis.report import render_report
from tests.unit.synthetic import Synthetic, write_run

PROBE = """<!doctype html><body style="margin:0"><iframe src="report.html"
style="width:{width}px;height:900px;border:0"></iframe><script>
window.onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  page.querySelectorAll("details").forEach(each => each.open = true);
  const root = page.documentElement;
  document.title = [root.scrollWidth, root.clientWidth].join(" ");
}};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("page") / "r", Synthetic(failed_trials=(20, 31)))
    render_report(folder)
    return folder


def browse(profile: Path, *arguments: str) -> str:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "chromium is needed to look at the report"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [browser, "--headless", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=5000",
         f"--user-data-dir={profile}", *sandbox, *arguments],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(folder: Path, tmp_path: Path, width: int) -> None:
    probe = folder / f"probe-{width}.html"
    probe.write_text(PROBE.format(width=width))
    found = browse(tmp_path, "--dump-dom", probe.as_uri())
    title = re.search(r"<title>(\d+) (\d+)", found)
    assert title, found[:300]
    assert int(title[1]) <= int(title[2]) == width


CLICKS = """<!doctype html><body><iframe src="report.html" style="width:1280px;height:900px">
</iframe><script>
window.onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const table = page.querySelector("#verdicts table");
  const list = () => [...table.tBodies[0].rows].filter(row => !row.hidden)
    .map(row => row.cells[0].textContent.split(",")[0]).join(" ");
  const [, ready] = table.tHead.rows[0].cells;
  const seen = [list()];
  for (let time = 0; time < 3; time++) {
    ready.querySelector("button").click();
    seen.push(`${ready.getAttribute("aria-sort")}: ${list()}`);
  }
  const field = page.querySelector("#claims input");
  field.value = "kernel HOST";
  field.dispatchEvent(new Event("input"));
  seen.push(page.querySelector("#claims [role=status]").textContent);
  document.title = seen.join("; ");
};
</script>"""


def test_tables_are_sorted_by_their_figures_and_filtered_by_words(
    folder: Path, tmp_path: Path
) -> None:
    """The page's policy lets its script run, and figures of several units sort by their size."""
    probe = folder / "clicks.html"
    probe.write_text(CLICKS)
    title = re.search(r"<title>(.*?)</title>", browse(tmp_path, "--dump-dom", probe.as_uri()))
    assert title
    assert title[1].split("; ") == [
        "process namespace vm-direct vm-microvm",
        "ascending: process namespace vm-microvm vm-direct",
        "descending: vm-direct vm-microvm namespace process",
        "null: process namespace vm-direct vm-microvm",
        "2 of 9",
    ]


def test_without_a_script_every_row_and_word_is_there(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    body = text[: text.index("<script>")]
    assert "<button" not in body and "<input" not in body and " hidden" not in body
    assert "<noscript" not in text


def test_on_paper_the_first_page_is_the_answer_alone(folder: Path, tmp_path: Path) -> None:
    """With the printer's rules on, the answer ends above the foot of an A4 page, and breaks it."""
    text = (folder / "report.html").read_text()
    assert ".answer { break-after: page;" in text[text.index("@media print") :]
    (folder / "paper.html").write_text(text.replace("@media print {", "@media all {"))
    probe = folder / "probe-paper.html"
    probe.write_text(
        PROBE.format(width=717)
        .replace("report.html", "paper.html")
        .replace(
            "[root.scrollWidth, root.clientWidth]",
            '[Math.ceil(page.querySelector(".answer").getBoundingClientRect().bottom), 717]',
        )
    )
    found = re.search(r"<title>(\d+) 717", browse(tmp_path, "--dump-dom", probe.as_uri()))
    assert found and 300 < int(found[1]) <= 1046


def test_the_page_prints_whole(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    browse(tmp_path / "profile", f"--print-to-pdf={out}", (folder / "report.html").as_uri())
    data = out.read_bytes()
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 40
