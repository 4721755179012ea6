"""The site in a real browser: search and choice work, nothing is asked for, nothing scrolls."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.site import publish_site
from tests.unit.site_rig import PLAN, write_dated_run

PROBE = """<!doctype html><body style="margin:0">{views}<script>
window.onload = () => {{
  {steps}
}};
</script>"""

TOOLS = """const frame = document.querySelector("iframe").contentWindow, page = frame.document;
  const type = (name, text) => {
    page.getElementsByName(name)[0].focus(); page.execCommand("insertText", false, text);
  };
  const choose = (name, value) => {
    const field = page.getElementsByName(name)[0];
    field.value = value; field.dispatchEvent(new frame.Event("input", { bubbles: true }));
  };
  const seen = () => [...page.querySelectorAll(".runs tbody tr")]
    .filter((row) => row.checkVisibility()).map((row) => row.dataset.date).join(",");
  const said = (id) => page.getElementById(id).textContent;
"""

MEASURE = """document.title = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach((each) => each.open = true);
    const bare = [...page.querySelectorAll("input, select")].filter((each) => !each.labels.length);
    return [frame.title, root.scrollWidth, root.clientWidth, bare.length,
      page.querySelectorAll("h1").length].join(" ");
  }).join("; ")"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browsed")
    write_dated_run(folder / "runs/a", 1)
    write_dated_run(folder / "runs/b", 2, replace(PLAN, seed=2))
    small = replace(PLAN, platforms=("namespace",))
    write_dated_run(folder / "runs/c", 3, small, name="away")
    publish_site([folder / "runs"], folder / "site")
    return folder / "site"


def browse(site: Path, tmp_path: Path, page: str, steps: str) -> str:
    """What the steps on a page leave as the title."""
    return run_probe(site, tmp_path, build_views([(page, 1280)]), TOOLS + steps)


def build_views(shown: Sequence[tuple[str, int]]) -> str:
    return "".join(
        f'<iframe title="{name}" src="site/{name}" style="width:{width}px;height:900px;border:0">'
        "</iframe>"
        for name, width in shown
    )


def run_probe(site: Path, tmp_path: Path, views: str, steps: str) -> str:
    """The title that the steps leave; whatever the browser complains of is an error.

    That holds for requests too: no page's policy lets one pass, and each would be complained of.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "chromium is needed to look at the site"
    probe = site.parent / "probe.html"
    probe.write_text(PROBE.format(views=views, steps=steps))
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
    assert first == "The comparison: no regression", "the page opens with two that can be compared"
    assert second == "The comparison: no regression"
    assert (site / link).is_file()


def test_no_page_scrolls_sideways_and_every_field_has_a_label(site: Path, tmp_path: Path) -> None:
    pair = next((site / "compare").glob("*.html")).name
    names = ["index.html", "compare.html", "history.html", "harness.html", f"compare/{pair}"]
    shown = [(name, width) for name in names for width in (390, 1280)]
    assert run_probe(site, tmp_path, build_views(shown), MEASURE).split("; ") == [
        f"{name} {width} {width} 0 1" for name, width in shown
    ]
