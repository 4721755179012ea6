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


def test_the_page_prints_whole(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    browse(tmp_path / "profile", f"--print-to-pdf={out}", (folder / "report.html").as_uri())
    data = out.read_bytes()
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 40
