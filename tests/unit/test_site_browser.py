"""The site in a real browser: search and choice work, nothing is asked for, nothing scrolls."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.site import publish_site
from tests.unit.site_rig import PLAN, write_dated_run

PROBE = """<!doctype html><body style="margin:0"><iframe src="{page}"
style="width:{width}px;height:900px;border:0"></iframe><script>
window.onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  const type = (name, text) => {{
    page.getElementsByName(name)[0].focus(); page.execCommand("insertText", false, text);
  }};
  const choose = (name, value) => {{
    const field = page.getElementsByName(name)[0];
    field.value = value; field.dispatchEvent(new frame.Event("input", {{ bubbles: true }}));
  }};
  const seen = () => [...page.querySelectorAll(".runs tbody tr")]
    .filter((row) => row.checkVisibility()).map((row) => row.dataset.date).join(",");
  const said = (id) => page.getElementById(id).textContent;
  page.querySelectorAll("details").forEach((each) => each.open = true);
  const root = page.documentElement;
  {steps}
}};
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsed")
    write_dated_run(folder / "runs/a", 1)
    write_dated_run(folder / "runs/b", 2, replace(PLAN, seed=2))
    write_dated_run(folder / "runs/c", 3, replace(PLAN, platforms=("namespace",)), name="away")
    publish_site([folder / "runs"], folder / "site")
    return folder / "site"


def browse(site: Path, tmp_path: Path, page: str, steps: str, width: int = 1280) -> str:
    """What the steps leave as the title; whatever the browser complains of is an error."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "chromium is needed to look at the site"
    probe = site.parent / f"probe-{width}.html"
    probe.write_text(PROBE.format(page=f"site/{page}", width=width, steps=steps))
    done = subprocess.run(
        [browser, "--headless", "--disable-gpu", "--no-first-run", "--enable-logging=stderr",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path}", *(["--no-sandbox"] if os.geteuid() == 0 else []),
         "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    complaints = [each for each in done.stderr.splitlines() if "CONSOLE" in each]
    assert complaints == []
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[:300]
    return title[1]


SEARCHES = [
    ("document.title = seen()", "2025-03-03,2025-03-02,2025-03-01"),
    ('type("words", "AWAY"); document.title = seen() + said("count")', "2025-03-031 of 3 runs"),
    ('type("words", "bench-1 0002"); document.title = seen()', "2025-03-02"),
    ('type("words", "nowhere"); document.title = said("count")', "None of 3 runs"),
    ('choose("host", "away"); document.title = seen()', "2025-03-03"),
    ('choose("platform", "vm-direct"); document.title = seen()', "2025-03-02,2025-03-01"),
    ('choose("workload", "noop"); document.title = said("count")', "3 runs"),
    ('choose("from", "2025-03-02"); choose("until", "2025-03-02"); document.title = seen()',
     "2025-03-02"),
]  # fmt: skip


def test_runs_are_found_by_words_host_platform_workload_and_date(
    site: Path, tmp_path: Path
) -> None:
    clear = 'page.querySelector("form").reset(); choose("host", "");'
    steps = "const found = [];" + "".join(
        f"{step}; found.push(document.title); {clear}" for step, _ in SEARCHES
    )
    found = browse(site, tmp_path, "index.html", f'{steps} document.title = found.join("; ")')
    assert found.split("; ") == [expected for _, expected in SEARCHES]


def test_two_runs_are_chosen_and_their_comparison_is_there(site: Path, tmp_path: Path) -> None:
    one, other = "20250301-092653-0001", "20250302-092653-0002"
    steps = f"""const first = said("picked"); choose("1", "{one}"); choose("2", "{other}");
    document.title = first + "; " + said("picked") + "; "
      + page.querySelector("#picked a").getAttribute("href")"""
    first, second, link = browse(site, tmp_path, "compare.html", steps).split("; ")
    assert first == "Not comparable: host."
    assert second == "The comparison: no regression"
    assert (site / link).is_file()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways_and_every_field_has_a_label(
    site: Path, tmp_path: Path, width: int
) -> None:
    pair = next((site / "compare").glob("*.html")).name
    steps = """const bare = [...page.querySelectorAll("input, select")]
      .filter((each) => !each.labels.length).length;
    document.title = [root.scrollWidth, root.clientWidth, bare,
      page.querySelectorAll("h1").length].join(" ")"""
    for page in ("index.html", "compare.html", "history.html", "harness.html", f"compare/{pair}"):
        found = browse(site, tmp_path, page, steps, width)
        assert found == f"{width} {width} 0 1", page
