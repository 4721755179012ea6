"""The page in a real browser: on a phone and a desk, light, dark and on paper."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from harness.analysis.report import render_report
from harness.cli.printing import print_page
from tests.unit.browser import LOOKS, Look, Visit, open_page, start_browser
from tests.unit.synthetic import MACHINES, Synthetic, write_run

PAPER = 957
"""Pixels that Chromium lays a page out in for A4 at least; it shrinks up to 1436 to fit."""

A4_WIDTH, A4_HEIGHT = 717, 1046
"""Pixels of a sheet within its margins."""

LAYOUT = Path(__file__).with_name("layout.js").read_text()

RUNS = {
    "usual": Synthetic(failed_trials=(20, 31)),
    "machines": Synthetic(
        platforms=("process", "namespace", *MACHINES), workloads=("noop",), blocks=6, told=True
    ),
    "one platform": Synthetic(platforms=("namespace",), aa=(), blocks=1),
    "all failed": Synthetic(failed_trials=range(1000)),
}

PLANTED = {
    "<p style='color:#ccc;background:#fff'>pale words</p>": "color-contrast",
    "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>": "image-alt",
    "<table><tr><td>1</td><th></th></tr></table><a href='#x'></a>": "link-name",
}
"""Defects to put into a page, and the rule of axe-core that each breaks."""

SPOILT = {
    "<figure><svg viewBox='0 0 90 9' width='90'><text x='70' y='8'>far out</text></svg></figure>":
        "«far out» is cut",
    "<figure><svg viewBox='0 0 90 30'><text y='20'>one</text><text x='3' y='20'>two</text></svg>":
        "«one» overlaps «two»",
    "<figure><svg width='0' height='0'></svg></figure>": "an empty figure",
    "<p style='width:3000px'>so wide</p>": "P «so wide» sticks out of the page",
    "<p style='width:40px;overflow:hidden;white-space:nowrap'>a long line</p>":
        "P «a long line» is cut",
}  # fmt: skip
"""Defects of layout, and what is said of each."""


ENDS = (Look(390, "dark"), Look(1280, "print"))
"""Looks that differ in everything; enough for runs that differ in their content alone."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a run by its name, made when it is first asked for."""

    @cache
    def build(name: str) -> Path:
        folder = write_run(tmp_path_factory.mktemp("page") / name, RUNS[name])
        render_report(folder, ("html",))
        return folder / "report.html"

    return build


@pytest.fixture(params=RUNS)
def folder(request: pytest.FixtureRequest, pages: Callable[[str], Path]) -> Path:
    return pages(request.param)


@pytest.fixture
def usual(pages: Callable[[str], Path]) -> Path:
    return pages("usual")


@pytest.fixture
def short(pages: Callable[[str], Path]) -> Path:
    """A page that has every part, and takes axe-core a fraction of the time."""
    return pages("one platform")


def test_axe_finds_nothing_wrong_and_nothing_is_cut_or_covered(
    browser: Browser, folder: Path
) -> None:
    with open_page(browser, folder) as visit:
        found = {}
        for look in LOOKS if folder.parent.name == "usual" else ENDS:
            visit.look(look)
            defects = visit.find_violations()
            if look.width >= PAPER or look.media != "print":
                defects += visit.run(LAYOUT)
            if defects:
                found[str(look)] = defects
    assert found == {}
    assert visit.errors == []


def test_a_page_asks_for_nothing_but_itself(browser: Browser, folder: Path) -> None:
    with open_page(browser, folder) as visit:
        for look in LOOKS:
            visit.look(look)
        visit.page.wait_for_load_state("networkidle")
    others = [url for url in visit.requests if not url.startswith("data:")]
    assert others == [folder.as_uri()]


def test_a_page_that_asks_for_more_is_seen(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>t</title><img src='http://127.0.0.1:9/x.png' alt=''>")
    with open_page(browser, page) as visit:
        pass
    assert "http://127.0.0.1:9/x.png" in visit.requests


@pytest.mark.parametrize(("defect", "rule"), PLANTED.items(), ids=PLANTED.values())
def test_a_planted_violation_is_reported(
    browser: Browser, short: Path, tmp_path: Path, defect: str, rule: str
) -> None:
    page = plant(short, tmp_path, defect)
    with open_page(browser, page) as visit:
        visit.look(Look(1280, "light"))
        assert rule in {each.partition(":")[0] for each in visit.find_violations()}


@pytest.mark.parametrize(("defect", "said"), SPOILT.items(), ids=SPOILT.values())
def test_a_spoilt_layout_is_reported(
    browser: Browser, short: Path, tmp_path: Path, defect: str, said: str
) -> None:
    page = plant(short, tmp_path, defect)
    with open_page(browser, page) as visit:
        visit.look(Look(390, "light"))
        assert [each for each in visit.run(LAYOUT) if each.endswith(said)]


def plant(page: Path, folder: Path, defect: str) -> Path:
    whole = page.read_text()
    spoilt = folder / "spoilt.html"
    spoilt.write_text(re.sub(r"(<main\b[^>]*>)", lambda main: main[1] + defect, whole, count=1))
    assert defect in spoilt.read_text()
    return spoilt


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, usual: Path, width: int) -> None:
    with open_page(browser, usual) as visit:
        visit.look(Look(width, "light"))
        root = "document.documentElement"
        assert visit.run(f"{root}.scrollWidth") <= visit.run(f"{root}.clientWidth") == width


def test_tables_are_sorted_by_their_figures_and_filtered_by_words(
    browser: Browser, usual: Path
) -> None:
    """The page's policy lets its script run, and figures of several units sort by their size."""
    with open_page(browser, usual) as visit:
        head = visit.page.locator("#verdicts thead th").nth(1)
        seen = [list_platforms(visit)]
        for _ in range(3):
            head.locator("button").press("Enter")
            seen.append(f"{head.get_attribute('aria-sort')}: {list_platforms(visit)}")
        visit.page.locator("#claims input").press_sequentially("kernel HOST")
        seen.append(visit.page.locator("#claims [role=status]").inner_text())
    assert seen == [
        "process namespace vm-direct vm-microvm",
        "ascending: process namespace vm-microvm vm-direct",
        "descending: vm-direct vm-microvm namespace process",
        "None: process namespace vm-direct vm-microvm",
        "2 of 9",
    ]


def list_platforms(visit: Visit) -> str:
    """The platforms of the verdicts, from above."""
    heads = visit.page.locator("#verdicts tbody tr:visible > :first-child").all_inner_texts()
    return " ".join(head.split(",")[0] for head in heads)


def test_without_a_script_every_row_and_word_is_there(browser: Browser, usual: Path) -> None:
    text = usual.read_text()
    body = text[: text.index("<script>")]
    assert "<button" not in body and "<input" not in body and " hidden" not in body
    with open_page(browser, usual) as visit:
        visit.look(Look(1280, "light"))
        with_scripts = visit.page.locator("main td:visible").count()
    with open_page(browser, usual, scripts=False) as plain:
        assert plain.page.locator("main td").count() >= with_scripts > 0


def test_on_paper_the_first_page_is_the_answer_alone(browser: Browser, usual: Path) -> None:
    """With the printer's rules on, the answer ends above the foot of an A4 page, and breaks it."""
    with open_page(browser, usual) as visit:
        visit.look(Look(A4_WIDTH, "print"))
        box = visit.page.locator(".answer").bounding_box()
        after = "getComputedStyle(document.querySelector('.answer')).breakAfter"
        assert visit.run(after) == "page"
    assert box and 300 < box["y"] + box["height"] <= A4_HEIGHT


def test_on_paper_what_heads_stays_with_it_and_numbers_are_named_not_shown(
    browser: Browser, usual: Path
) -> None:
    with open_page(browser, usual) as visit:
        visit.look(Look(A4_WIDTH, "print"))
        for heads in ("h2", ".lead", "caption", "thead"):
            after = f"getComputedStyle(document.querySelector('main {heads}')).breakAfter"
            assert visit.run(after) == "avoid", heads
        numbers, instead = (visit.page.locator(each) for each in (".unprinted", ".instead"))
        assert numbers.count() == instead.count() > 2
        assert not any(each.is_visible() for each in numbers.all())
        assert all("plots/" in each.inner_text() for each in instead.all())
        visit.look(Look(1280, "light"))
        assert all(each.is_visible() for each in numbers.all())


def test_the_page_prints_whole(usual: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    print_page(usual, out)
    data = out.read_bytes()
    assert data.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 40
