"""The published reference run: whole, honest of its conditions, and what its page says."""

from pathlib import Path

import pytest

from harness.analysis.answer import build_headline
from harness.analysis.claim_list import read_claims
from harness.analysis.claims import decide
from harness.analysis.claims_finding import DEPENDS
from harness.analysis.memory import say_shared
from harness.analysis.plots.moves import draw_moves
from harness.analysis.report.render import escape_markdown
from harness.analysis.results import Results, load_results

RESULTS = Path(__file__).parents[2] / "results"
FOLDER = RESULTS / "reference"


@pytest.fixture(scope="module")
def results() -> Results:
    return load_results(FOLDER)


def test_its_headline_is_what_its_samples_say(results: Results) -> None:
    headline = build_headline(results)
    assert headline and escape_markdown(headline) in (FOLDER / "report.md").read_text()


def test_its_machines_are_labelled_on_top(results: Results) -> None:
    top = (FOLDER / "report.md").read_text().partition("## ")[0]
    assert "emulated (TCG)" in top
    assert all(results.is_emulated(name) for name, kind in results.kinds.items() if kind == "vm")


def test_its_pages_words_are_those_of_its_claims(results: Results) -> None:
    """What a review of the page found wrong once: each of these said otherwise."""
    text = (FOLDER / "report.md").read_text()
    claims = text.partition("## Claims")[2].partition("## ")[0]
    assert "**Updates of containers are cheaper**: depends on the packing" in claims
    assert "**The order of layers matters**: supported" in claims
    assert "**Containers start faster**: supported on this host only, emulated (TCG), 2.8" in claims
    assert "the nearest of 20 pairs: `docker`: " in claims
    assert "+ 121 MiB once, for its daemon" in claims
    assert "for its daemon" in text.partition("## The verdicts")[0]
    drawn = draw_moves(results)
    assert drawn is not None and drawn.note in text.replace("\\_", "_")
    assert "medians with ranges of 2 to 3 blocks, which hold the median with at most" in drawn.note
    findings = (decide(results, each) for each in read_claims())
    figures = [each.figure for each in findings if each.verdict in ("supported", DEPENDS)]
    assert len(figures) == 4 and all(each in claims for each in figures)
    assert "Not probed, so nothing here is said of them: `docker`" in text
    assert say_shared(results) in text


@pytest.mark.parametrize("name", ["reference", "reference-isolation", "reference-layers"])
def test_no_file_has_a_path_of_the_machine_that_wrote_it(name: str) -> None:
    for path in (RESULTS / name).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".html", ".csv"):
            assert "/work/" not in path.read_text(), path
