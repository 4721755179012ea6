"""`publish`: what a site holds, and that it is always whole, the same, and nothing but its own."""

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urldefrag

import pytest

from harness.__main__ import main
from harness.analysis.report import render_report
from harness.analysis.results import get_mapping
from harness.analysis.site import Published, publish_site
from harness.analysis.site.making import Task
from harness.analysis.site.own_history import read_own_history
from harness.analysis.site.place import RECORD
from harness.errors import InputError
from harness.store import Store, read_manifest, write_samples
from harness.store.names import JOURNAL, MANIFEST, SAMPLES
from tests.unit.site_rig import (
    LINK,
    PLAN,
    copy,
    read_files,
    read_json,
    write_asv_pages,
    write_dated_run,
)
from tests.unit.synthetic import Synthetic, build_manifest
from tests.unit.test_isolation import build_outcomes as build_walls

MARKUP = "<img src=x onerror=alert(1)>`|"
OLD, NEW, OTHER = "20250301-092653-0001", "20250302-092653-0002", "20250303-092653-0003"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one host, and one of another whose name is markup."""
    folder = tmp_path_factory.mktemp("results")
    write_dated_run(folder / "a", 1)
    write_dated_run(folder / "b", 2, replace(PLAN, seed=2, marks={5: ("steal",)}))
    write_dated_run(folder / "c", 3, replace(PLAN, accelerator="kvm"), name=MARKUP)
    return folder


@pytest.fixture(scope="module")
def site(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    publish_site([runs], folder / "site", read_own_history(write_asv_pages(folder / "asv")))
    return folder / "site"


@pytest.fixture
def mine(site: Path, tmp_path: Path) -> Path:
    """A copy of the site that a test may change."""
    return copy(site, tmp_path / "mine")


# ---- what it holds -----------------------------------------------------------------------------


def read_words(page: Path) -> str:
    """A page's text without its markup."""
    body = page.read_text().partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_index_tells_of_every_run_the_newest_first(site: Path) -> None:
    words = read_words(site / "index.html")
    places = [words.index(each) for each in (OTHER, NEW, OLD)]
    assert places == sorted(places)
    for each in ("bench-1", "emulated (TCG)", "Virtual machines: KVM", "6 blocks, 18 trials",
                 "Disturbed trials: steal 1 of 18", "sooner than as vm-direct"):  # fmt: skip
        assert each in words.replace(" ,", ","), each


def test_names_with_markup_are_text(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "<img" not in page and html.escape(MARKUP).replace("&#x27;", "&#39;") in page


def test_every_link_leads_to_a_file_of_the_site(site: Path) -> None:
    pages = [*site.glob("*.html"), *site.glob("compare/*.html"), *site.glob("runs/*/report.html")]
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text())]
    assert len(links) > 40
    for page, link in links:
        assert (page.parent / urldefrag(html.unescape(link)).url).exists(), (page.name, link)


def test_no_page_may_ask_anything_of_the_network(site: Path) -> None:
    for page in [*site.glob("*.html"), *site.glob("compare/*.html")]:
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.read_text())
        assert policy.startswith("default-src 'none';")
        assert "http" not in policy and "unsafe-eval" not in policy


def test_a_run_comes_with_report_figures_csv_and_samples(site: Path) -> None:
    found = {each.name for each in (site / "runs" / OLD).iterdir()}
    assert found == {"report.html", "report.md", "plots", "samples.csv", "samples.parquet",
                     "manifest.json", "journal.jsonl", "facts.json"}  # fmt: skip


def test_a_report_on_the_site_leads_back_and_elsewhere_stays_as_it_is(
    site: Path, runs: Path, tmp_path: Path
) -> None:
    page = (site / "runs" / OLD / "report.html").read_text()
    way = re.search(r'<nav class="home".*?</nav>\n', page)
    assert way and LINK.findall(way[0]) == [
        "../../index.html", f"../../compare.html#{OLD}", "../../history.html",
    ]  # fmt: skip
    alone = copy(runs / "a", tmp_path / "alone")
    render_report(alone)
    assert (alone / "report.html").read_text() == page.replace(way[0], "")


def test_a_report_has_the_chapters_of_the_nearest_other_runs_of_its_host(
    runs: Path, tmp_path: Path
) -> None:
    for day in (2, 9):
        write_isolation(tmp_path / f"walls-{day}", day)
    write_isolation(tmp_path / "away", 1, name="away")
    walls = [tmp_path / name for name in ("walls-2", "walls-9", "away")]
    done = publish_site([runs / "a", *walls], tmp_path / "site")
    assert (done.made, done.left_out) == (4, ())
    page = (tmp_path / "site/runs" / OLD / "report.html").read_text()
    assert '<section id="isolation">' in page and "walls-2" in page
    assert "walls-9" not in page and "walls-1" not in page
    assert publish_site([runs / "a", *walls], tmp_path / "site").kept == 4
    journal = (walls[0] / JOURNAL).read_bytes()
    (walls[0] / JOURNAL).write_bytes(journal.replace(b'"block":0', b'"block":"x"', 1))
    done = publish_site([runs / "a", *walls], tmp_path / "site")
    assert (done.made, done.kept, len(done.left_out)) == (1, 2, 1)
    assert "walls-9" in (tmp_path / "site/runs" / OLD / "report.html").read_text()
    words = read_words(tmp_path / "site/index.html")
    assert "3 runs: 1 of the same workloads both ways, 2 of what isolates the platforms" in words
    assert "System calls that the host's kernel carries out" in words, "all of its answer"


def write_isolation(folder: Path, day: int, **host: object) -> Path:
    """A run of `isolation` on the host of the other runs, or one that differs in ``host``."""
    manifest = build_manifest(Synthetic(("namespace", "gvisor"), (), ("probe",)))
    manifest |= {"isolation": {}, "run_id": f"walls-{day}"}
    manifest["created_at"] = f"2025-03-{day:02}T09:30:00+00:00"
    manifest["host"] = {**get_mapping(manifest, "host"), **host}
    with Store.create(folder, manifest) as store:
        for outcome in build_walls():
            store.append(outcome)
    write_samples(folder)
    return folder


def test_what_got_worse_comes_first(runs: Path, tmp_path: Path) -> None:
    worse = write_dated_run(tmp_path / "worse", 4, replace(PLAN, seed=2))
    journal = worse / JOURNAL
    slow = [json.loads(line) for line in journal.read_text().splitlines()]
    for each in slow:
        if each.get("platform") == "namespace":
            begin = each["milestones"]["request"]
            each["milestones"] = {
                name: begin + 3 * (at - begin) for name, at in each["milestones"].items()
            }
            for row in each["measurements"]:
                row["value"] *= 3
    journal.write_text("".join(f"{json.dumps(each)}\n" for each in slow))
    (worse / SAMPLES).unlink()
    write_samples(worse)
    publish_site([runs / "a", worse], tmp_path / "site")
    (page,) = (tmp_path / "site/compare").glob("*.html")
    words = read_words(page)
    places = [words.index(each) for each in ("What got worse", "BASE", "Every comparison")]
    assert places == sorted(places)
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", page.read_text())
    flags = ["regression" in each for each in rows]
    assert any(flags) and not all(flags) and flags == sorted(flags, reverse=True)


def test_two_runs_of_one_host_are_compared(site: Path) -> None:
    name = f"{OLD}--{NEW}"
    assert read_json(site / f"compare/{name}.json")["verdict"] == "no regression"
    words = read_words(site / f"compare/{name}.html")
    assert "No regression" in words and "vm-direct, emulated (TCG) noop startup.ready" in words
    assert str(site.parent.parent) not in (site / f"compare/{name}.json").read_text()


def test_runs_that_cannot_be_compared_are_named_with_what_differs(site: Path) -> None:
    words = read_words(site / "compare.html")
    assert "Not comparable" in words and "host, accelerator" in words
    assert "accelerator of vm-direct is tcg in BASE and kvm in NEW" in words
    assert [each.stem for each in (site / "compare").glob("*.html")] == [f"{OLD}--{NEW}"]


def test_a_history_joins_runs_of_one_host_only(site: Path) -> None:
    page = (site / "history.html").read_text()
    assert page.count('<svg role="img"') == 2, "start and memory of one line of runs"
    assert "2 runs, 2025-03-01 to 2025-03-02" in page and "Virtual machines: emulated" in page
    assert (site / "headlines.csv").read_text().count("startup.ready") == 9


def test_the_history_of_the_harness_is_that_of_asv(site: Path) -> None:
    words = read_words(site / "harness.html")
    assert "own.track_help branch main, machine here 50 ms 60 ms 1.20 ×" in words
    assert "own.track_size ('b') branch main, machine here 4 KiB 4 KiB –" in words
    assert "/usr" not in words and "_usr" not in words


# ---- the same, and whole -----------------------------------------------------------------------


def test_the_same_runs_give_the_same_bytes_whatever_their_folders_and_order(
    site: Path, runs: Path, tmp_path: Path
) -> None:
    copies = [copy(runs / name, tmp_path / f"elsewhere-{name}") for name in "cab"]
    before = read_files(runs)
    publish_site(copies, tmp_path / "site", read_own_history(write_asv_pages(tmp_path / "asv")))
    assert read_files(tmp_path / "site") == read_files(site)
    assert read_files(runs) == before, "what is published stays as it is"


def test_what_has_not_changed_is_taken_over(mine: Path, runs: Path) -> None:
    before = read_files(mine)
    done = publish_site([runs], mine)
    assert (done.made, done.kept) == (0, 3)
    after = read_files(mine)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"harness.html", RECORD}, "asv was not named this time"


def test_a_page_that_somebody_changed_is_made_anew(mine: Path, runs: Path, site: Path) -> None:
    report = mine / "runs" / OLD / "report.html"
    report.write_text("smaller")
    assert publish_site([runs], mine).made == 1
    assert report.read_bytes() == (site / "runs" / OLD / "report.html").read_bytes()


def test_pages_of_a_removed_run_vanish(mine: Path, runs: Path) -> None:
    publish_site([runs / "a"], mine)
    assert [each.name for each in (mine / "runs").iterdir()] == [OLD]
    assert not [name for name in read_files(mine) if NEW in name or OTHER in name]
    assert "There is one run on this site" in read_words(mine / "compare.html")
    assert "make asv" in read_words(mine / "harness.html")


def interrupt(make: Callable[[Task], str], tasks: Sequence[Task]) -> list[str]:
    make(tasks[0])
    raise KeyboardInterrupt


def test_an_interrupted_publish_leaves_the_old_site(mine: Path, runs: Path) -> None:
    (mine / "runs" / OLD / "report.html").write_text("to be made anew")
    before = read_files(mine)
    with pytest.raises(KeyboardInterrupt):
        publish_site([runs], mine, work=interrupt)
    assert read_files(mine) == before
    assert [each.name for each in mine.parent.iterdir()] == ["mine"]


def test_what_a_killed_publish_left_is_cleared_away(mine: Path, runs: Path) -> None:
    (mine.parent / ".mine.publish/runs").mkdir(parents=True)
    (mine.parent / ".mine.publish/runs/half").write_text("")
    publish_site([runs], mine)
    assert [each.name for each in mine.parent.iterdir()] == ["mine"]


# ---- bad input ---------------------------------------------------------------------------------


def damage_journal(folder: Path) -> None:
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"block":1', b'"block":"x"', 1))


def damage_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[")


def make_of_the_future(folder: Path) -> None:
    manifest = read_json(folder / MANIFEST)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def change_samples(folder: Path) -> None:
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes().rpartition(b'{"block"')[0])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_journal, "journal.jsonl, line"),
        (damage_manifest, "manifest.json is damaged"),
        (make_of_the_future, "has schema version 99, this release reads version 1"),
        (remove_manifest, "it is no result folder: it has no manifest.json"),
    ],
)
def test_a_bad_run_is_named_and_stops_nothing(
    mine: Path, runs: Path, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    bad = copy(runs / "b", tmp_path / "bad")
    spoil(bad)
    done = publish_site([runs / "a", bad], mine)
    (left_out,) = done.left_out
    assert left_out.name == "bad" and left_out.fault and reason in left_out.reason
    assert reason in read_words(mine / "index.html") and (done.made, done.kept) == (0, 1)
    assert str(tmp_path) not in (mine / "index.html").read_text()


def test_a_run_that_goes_on_is_left_out_without_blame(
    mine: Path, runs: Path, tmp_path: Path
) -> None:
    with Store.create(tmp_path / "going", {**read_manifest(runs / "b"), "run_id": "going"}):
        done = publish_site([runs / "a", tmp_path / "going"], mine)
    assert [(each.name, each.fault) for each in done.left_out] == [("going", False)]


def test_two_folders_with_one_run_id(mine: Path, runs: Path, tmp_path: Path) -> None:
    same = copy(runs / "a", tmp_path / "same")
    done = publish_site([runs / "a", runs / "b", same], mine)
    assert (done.kept, done.left_out) == (2, ()), "the same run twice is one run"
    change_samples(same)
    done = publish_site([runs / "a", runs / "b", same], mine)
    (left_out,) = done.left_out
    assert left_out.name == OLD and "two folders have this run id and differ" in left_out.reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["publish", "--site", "out"], "Missing argument 'DIR…'"),
        (["publish", "results"], "Missing option '--site'"),
        (["publish", "absent", "--site", "out"], "absent is not there"),
        (["publish", "notes.txt", "--site", "out"], "notes.txt is no folder"),
        (["publish", "empty", "--site", "out"], "empty: it is no result folder"),
        (["publish", "results", "--site", "notes.txt"], "notes.txt is a file"),
        (["publish", "results", "--site", "full"], "something else than a site"),
        (["publish", "results", "--site", "results/out"], "lies inside results"),
        (["publish", "results/a", "--site", "results"], "lies inside results"),
        (["publish", "results", "--site", "no/out"], "no is not there"),
        (["publish", "results", "--site", "out", "--asv", "empty"], "holds no pages of asv"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], words: list[str], reason: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    copy(runs, tmp_path / "results")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("")
    before = read_files(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and reason in said.err
    assert read_files(tmp_path) == before


def test_a_file_in_the_site_that_is_not_of_it_is_never_lost(mine: Path, runs: Path) -> None:
    (mine / "CNAME").write_text("example")
    with pytest.raises(InputError, match="holds CNAME, which is not of the site"):
        publish_site([runs], mine)
    assert (mine / "CNAME").exists()


def test_a_second_publish_at_once_is_refused(mine: Path, runs: Path) -> None:
    def meet(make: Callable[[Task], str], tasks: Sequence[Task]) -> list[str]:
        with pytest.raises(InputError, match="another publish is writing"):
            publish_site([runs], mine)
        return []

    assert isinstance(publish_site([runs], mine, work=meet), Published)


@pytest.mark.parametrize(("spoil", "code"), [(None, 0), (damage_manifest, 2)])
def test_the_exit_code_tells_whether_all_runs_are_there(
    mine: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None] | None, code: int,
) -> None:  # fmt: skip
    results = copy(runs, tmp_path / "results")
    if spoil:
        spoil(results / "b")
    (results / "README.md").write_text("no run")
    assert main(["publish", str(results), "--site", str(mine)]) == code
    said = capsys.readouterr()
    assert said.out.endswith("mine/index.html\n")
    assert ("left out: b: manifest.json is damaged" in said.err) == bool(spoil)
