"""The report: what it says first, what it says of gaps, and that it is the same every time."""

import base64
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.analysis.report import format_summary, render_report
from harness.analysis.report.render import escape_cell, escape_markdown, mark_up
from harness.errors import InputError
from harness.model import Kind
from harness.store import Store, read_manifest, write_manifest, write_samples
from tests.unit.synthetic import (
    KINDS,
    MACHINES,
    STARTS,
    Synthetic,
    build_manifest,
    build_outcomes,
    build_series,
    write_run,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = Synthetic(("process", "namespace", "vm-direct"), ("namespace",), ("noop",), blocks=6)
VOID = {"meta", "br", "link", "img", "path", "use", "rect", "circle", "line", "wbr"}


class Reader(HTMLParser):
    """Collects what a page holds, and checks that its tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read_page(folder: Path) -> Reader:
    reader = Reader()
    reader.feed((folder / "report.html").read_text())
    assert reader.open == []
    return reader


def render(folder: Path, plan: Synthetic) -> tuple[str, str]:
    """Words of the page, and the Markdown."""
    render_report(write_run(folder, plan))
    words = " ".join("".join(read_page(folder).text).split())
    return words, (folder / "report.md").read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered result folder, for tests that only look at it."""
    folder = write_run(tmp_path_factory.mktemp("small") / "r", SMALL)
    render_report(folder)
    return folder


def test_the_answer_comes_first_with_numbers_and_intervals(small: Path) -> None:
    markdown = (small / "report.md").read_text()
    words = " ".join("".join(read_page(small).text).split())
    answer = (
        r"As a `namespace` container, `noop` is ready \d+ × \(\d+–\d+\) sooner than as "
        r"`vm-direct`, emulated \(TCG\): [\d.]+ ms \([\d.]+–[\d.]+\) against "
        r"[\d.]+ s \([\d.]+–[\d.]+\)\."
    )
    first = markdown.partition("## The answer\n\n")[2].partition("\n")[0]
    assert re.fullmatch(rf"\*\*{answer}\*\*", first)
    assert re.search(answer.replace("`", ""), words)


def test_the_markdown_is_as_agreed(tmp_path: Path) -> None:
    """Set UPDATE_GOLDEN=1 to write it anew, then read the difference."""
    _, markdown = render(tmp_path / "r", replace(SMALL, failed_trials=(13,)))
    golden = GOLDEN / "report.md"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(markdown)
    assert markdown == golden.read_text()


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        render_report(write_run(tmp_path / name, SMALL))
    render_report(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in tmp_path.glob("one/**/*.*"))
    assert len(files) > 12
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), (
            file
        )


def test_the_page_is_one_file_that_works_offline(small: Path) -> None:
    page = read_page(small)
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "form"}
    targets = [value for _, attrs in page.tags for name, value in attrs.items()
               if name in ("href", "src", "xlink:href")]  # fmt: skip
    assert [each for each in targets if not (each or "").startswith("#")] == []
    text = (small / "report.html").read_text()
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_the_page_may_run_its_own_script_and_ask_nothing_of_anyone(small: Path) -> None:
    text = (small / "report.html").read_text()
    policy = next(
        attrs["content"] or "" for tag, attrs in read_page(small).tags
        if tag == "meta" and "http-equiv" in attrs
    )  # fmt: skip
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 1 and text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'", "style-src": "'unsafe-inline'", "img-src": "data:",
        "script-src": f"'sha256-{digest}'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert "on" not in {name[:2] for _, attrs in read_page(small).tags for name in attrs}


def test_ids_are_unique_and_links_lead_somewhere(small: Path) -> None:
    page = read_page(small)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert {f"#{each}" for each in ids} >= links
    used = re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', (small / "report.html").read_text())
    assert set(used) <= set(ids)


def test_figures_and_tables_speak_to_those_who_cannot_see_them(small: Path) -> None:
    page = read_page(small)
    figures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(figures) >= 6
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in figures)
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    names = [tag for tag, _ in page.tags]
    assert names.count("caption") == names.count("table")
    assert names.count("h1") == 1
    levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_emulation_is_said_in_every_table_and_caption(small: Path) -> None:
    markdown = (small / "report.md").read_text()
    for line in markdown.splitlines():
        if "`vm-direct`" in line and line.startswith("|"):
            assert "emulated (TCG)" in line
    captions = [line for line in markdown.splitlines() if line.startswith("*")
                and not line.startswith("**")]  # fmt: skip
    assert captions
    assert [line for line in captions if "emulated (TCG)" not in line] == []
    for path in (small / "plots").glob("*.svg"):
        assert "emulated (TCG)" in path.read_text(), path


def test_hardware_virtualisation_is_no_emulation(tmp_path: Path) -> None:
    words, _ = render(tmp_path / "r", replace(SMALL, accelerator="kvm"))
    assert "vm-direct, KVM" in words
    assert "emulated" not in words.partition("How it was measured")[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"platforms": ("namespace",), "aa": ()}, "there is nothing to compare"),
        ({"platforms": ("vm-direct",), "aa": ()}, "there is nothing to compare"),
        ({"platforms": ("process", "namespace")}, "No virtual machine was measured"),
        ({"platforms": ("process", "vm-direct"), "aa": ()}, "No container was measured"),
        ({"aa": ()}, "noise floor of this run is unknown"),
        ({"blocks": 1}, "only 1 block, 3 are needed"),
        ({"blocks": 4}, "the widest reaches 87.5 %. Six blocks are needed"),
        ({"leave_out": ("memory.pss", "memory.cgroup", "memory.guest_used", "memory.overhead")},
         "No trial has a figure of memory.pss: there is no plot"),
        ({"leave_out": ("startup.ready",)}, "No trial has a figure of startup.ready"),
        ({"failing": [("vm-direct", "noop")]}, "noop on vm-direct was not ready within 60 s"),
        ({"failing": [("namespace", "noop"), ("namespace#2", "noop")]}, "14 of 28 trials failed"),
        ({"platforms": ("namespace",), "failing": [("namespace", "noop"), ("namespace#2", "noop")]},
         "Every one of the 14 trials failed"),
        ({"blocks": 0}, "only warm-up"),
        ({"cache": "cold"}, "evicted from the page cache (cold)"),
    ],
)  # fmt: skip
def test_a_gap_is_said_and_the_page_stays_whole(
    tmp_path: Path, changes: Mapping[str, object], expected: str
) -> None:
    words, markdown = render(tmp_path / "r", replace(SMALL, **changes))  # type: ignore[arg-type]
    assert expected in words
    assert expected in markdown.replace("`", "")
    assert "nan" not in re.findall(r"\b\w+\b", markdown)
    assert format_summary(tmp_path / "r")


def test_a_journal_without_trials_still_makes_a_page(tmp_path: Path) -> None:
    Store.create(tmp_path / "r", {"run_id": "r1"}).close()
    render_report(tmp_path / "r")
    assert "No trial was finished" in "".join(read_page(tmp_path / "r").text)


def test_a_bare_manifest_is_enough(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    (folder / "manifest.json").unlink()
    write_manifest(folder, {"run_id": "r1"})
    write_samples(folder)
    render_report(folder)
    assert "sooner than" in "".join(read_page(folder).text)


@pytest.mark.parametrize(
    "key",
    ["plan", "host", "tools", "images", "guest_kernel", "accelerator", "noise", "left_out",
     "command", "created_at", "harness_version", "platforms"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "text", 7, [None], {"a": None}])
def test_no_shape_of_the_manifest_breaks_the_page(
    tmp_path: Path, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.analysis.report.render.draw_figures", lambda *_: NO_FIGURES)
    folder = write_run(tmp_path / "r", replace(SMALL, blocks=1))
    write_manifest(folder, {**read_manifest(folder), key: value})
    render_report(folder)
    read_page(folder)


NO_FIGURES: dict[str, list[object]] = {
    name: [] for name in ("startup", "memory", "disk", "portability", "run")
}

NASTY = "<script>alert(1)</script>|`x`*_[a](b)$y$\n&amp;"


def test_names_with_markup_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STARTS, NASTY, STARTS["namespace"])
    kinds: dict[str, Kind] = {NASTY: "container"}
    plan = replace(
        SMALL, platforms=(NASTY, "vm-direct"), aa=(NASTY,), workloads=(NASTY,), kinds=kinds,
        failed_trials=(9,),
    )  # fmt: skip
    words, markdown = render(tmp_path / "r", plan)
    page = read_page(tmp_path / "r")
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "<script>alert(1)</script>" in words
    outside = re.sub(r"`[^`\n]*`", "", markdown)
    assert "<script>" not in outside
    rows = [line for line in markdown.splitlines() if line.startswith("| `<script>")]
    assert rows
    for line in rows:
        assert re.search(r"(?<!\\)\|", line.strip("| ")) is not None
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in (tmp_path / "r/plots").iterdir())


def test_brought_in_names_plans_and_claims_with_markup_are_only_words(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    timings = {"results": [{"command": NASTY, "times": [0.1, 0.11, 0.12]}]}
    (tmp_path / "other.json").write_text(json.dumps(timings))
    claim = {"id": "mine", "claim": NASTY, "hypothesis": NASTY, "metric": "startup.ready"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in claim.items()]
    (tmp_path / "mine.toml").write_text("\n".join(["[[claims]]", *lines]))
    manifest = read_manifest(folder)
    manifest.update(command=["harness", "run", NASTY], noise=[NASTY], left_out=[NASTY])
    write_manifest(folder, manifest)
    render_report(folder, beside=(tmp_path / "other.json",), claims=(tmp_path / "mine.toml",))
    page = read_page(folder)
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "".join(page.text).count("<script>alert(1)</script>") >= 5
    markdown = (folder / "report.md").read_text()
    fenced = re.sub(r"```sh\n.*?\n```", "", markdown, flags=re.DOTALL)
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", fenced)


def test_a_second_arm_is_named_in_words(small: Path) -> None:
    words = "".join(read_page(small).text)
    assert "namespace, second arm" in words
    assert "namespace#2" not in words


def test_the_command_to_repeat_has_the_seed_that_was_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    command = [
        "/usr/lib/python3/site-packages/harness/__main__.py",
        "run",
        "--blocks",
        "6",
        "--out",
        "r",
    ]
    write_manifest(folder, {**read_manifest(folder), "command": command})
    render_report(folder)
    page = "".join(read_page(folder).text)
    assert "python -m harness run --blocks 6 --seed 1" in page


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_start_of_no_time_at_all_leaves_the_report_whole(tmp_path: Path, value: float) -> None:
    plan = Synthetic(blocks=6)
    folder = tmp_path / "r"
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in build_outcomes(plan):
            rows = tuple(
                replace(row, value=value)
                if row.metric == "startup.ready" and outcome.platform == "process"
                else row
                for row in outcome.measurements
            )
            store.append(replace(outcome, measurements=rows))
    write_samples(folder)
    render_report(folder)
    assert "a value that is not above zero: no ratio" in (folder / "report.md").read_text()


def test_a_density_series_has_a_figure_and_is_no_trial_of_a_block(tmp_path: Path) -> None:
    with Store.create(tmp_path / "r", build_manifest(SMALL)) as store:
        for outcome in [*build_outcomes(SMALL), *build_series(200e6, 8)]:
            store.append(outcome)
    render_report(tmp_path / "r")
    markdown = (tmp_path / "r/report.md").read_text()
    assert "plots/memory-density.svg" in markdown
    assert "one more instance" in markdown
    assert "- 6 complete blocks after 1 for warm-up" in markdown


def test_disturbed_trials_withhold_the_headline(tmp_path: Path) -> None:
    plan = replace(SMALL, marks=dict.fromkeys(range(4, 20), ("steal",)))
    words, markdown = render(tmp_path / "r", plan)
    assert "withheld: 4 of 6 trials were disturbed (steal 4)" in words
    assert "sooner than as" not in markdown


def test_one_file_can_be_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    assert render_report(folder, ("md",), tmp_path / "mine.md") == [tmp_path / "mine.md"]
    assert not (folder / "report.html").exists()


def test_the_name_of_a_file_chooses_its_format(tmp_path: Path) -> None:
    write_run(tmp_path / "r", Synthetic(workloads=("noop",), blocks=2))
    for name, start in (("x.md", "# "), ("x.html", "<!doctype html>")):
        assert main(["report", str(tmp_path / "r"), "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r", "x.html", "x.md"]


def test_a_pdf_is_printed_from_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    seen = []

    def print_page(page: Path, out: Path) -> None:
        seen.append(page.read_text())
        out.write_bytes(b"%PDF")

    assert render_report(folder, ("pdf",), print_page=print_page) == [folder / "report.pdf"]
    assert seen[0].startswith("<!doctype html>")
    assert not list(folder.glob(".*"))
    with pytest.raises(InputError, match="nothing here can print a PDF"):
        render_report(folder, ("pdf",))


@pytest.mark.parametrize("platforms", [("namespace", "vm-direct"), MACHINES, (NASTY, "vm-disk")])
def test_the_table_for_a_terminal_fits_a_hundred_columns(
    tmp_path: Path, platforms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STARTS, NASTY, STARTS["namespace"])
    folder = write_run(tmp_path / "r", replace(SMALL, platforms=platforms, aa=()))
    table = format_summary(folder).partition("\n\n")[2].splitlines()
    assert len(table) == len(platforms) + 2
    assert max(map(len, table)) <= 100
    assert all("emulated (TCG)" in line for line in table if line.startswith("vm-"))


def test_a_name_cannot_write_to_the_terminal_by_itself(tmp_path: Path) -> None:
    name = "a\x1b[31mb\nc"
    text = format_summary(write_run(tmp_path / "r", replace(SMALL, workloads=(name,))))
    assert "\x1b" not in text and "a [31mb c" in text


def test_the_summary_for_a_terminal_has_no_markup(tmp_path: Path) -> None:
    text = format_summary(write_run(tmp_path / "r", SMALL))
    assert "`" not in text
    assert "As a namespace container, noop is ready" in text.splitlines()[0]
    assert re.search(r"^vm-direct, emulated \(TCG\) +[\d.]+ s ", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "html", "markdown", "cell"),
    [
        ("a `b|c` d", "a <code>b|c</code> d", "a `b|c` d", "a `b\\|c` d"),
        ("<b> & c", "&lt;b&gt; &amp; c", "&lt;b> &amp; c", "&lt;b> &amp; c"),
        ("`<b>`", "<code>&lt;b&gt;</code>", "`<b>`", "`<b>`"),
        ("a_b*c", "a_b*c", "a\\_b\\*c", "a\\_b\\*c"),
        ("one ` tick", "one ` tick", "one \\` tick", "one \\` tick"),
    ],
)
def test_escaping(text: str, html: str, markdown: str, cell: str) -> None:
    assert mark_up(text) == html
    assert escape_markdown(text) == markdown
    assert escape_cell(text) == cell


def test_every_platform_has_a_kind_in_the_invented_runs() -> None:
    assert set(STARTS) == set(KINDS)
