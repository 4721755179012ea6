"""The published reference run: whole, honest of its conditions, and what its page says."""

from pathlib import Path

import pytest

from harness.analysis.answer import build_headline
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


@pytest.mark.parametrize("name", ["reference", "reference-isolation", "reference-layers"])
def test_no_file_has_a_path_of_the_machine_that_wrote_it(name: str) -> None:
    for path in (RESULTS / name).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".html", ".csv"):
            assert "/work/" not in path.read_text(), path
