"""What a report says its figures of memory are of, and that it leaves no platform unsaid."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.answer import Statement, build_answer, build_verdicts
from harness.analysis.memory import find_memory_workload, has_ended, say_ended, say_shared
from harness.analysis.report import render_report
from harness.analysis.report.terminal import format_glance
from harness.analysis.results import Results, load_results
from harness.analysis.tables import Table, build_glance
from harness.analysis.wording import format_figure
from harness.store import Store, write_samples
from tests.unit.synthetic import (
    Synthetic,
    build_manifest,
    build_outcomes,
    build_series,
    write_run,
    write_with_readiness,
)

BOTH = Synthetic(("process", "namespace", "crun", "vm-direct", "vm-direct/tuned"), (),
                 ("noop", "httpd"), blocks=6)  # fmt: skip
ENDED = replace(BOTH, workloads=("noop",))
DAEMON = {"crun": 121 * 2.0**20}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    yield load_results(write_with_readiness(tmp_path_factory.mktemp("both") / "r", BOTH, DAEMON))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    yield load_results(write_with_readiness(tmp_path_factory.mktemp("ended") / "r", ENDED, {}))


def find_said(results: Results, topic: str) -> str:
    return " ".join(find_statement(build_answer(results), topic).sentences)


def find_statement(statements: list[Statement], topic: str) -> Statement:
    return next(each for each in statements if each.topic == topic)


def require_glance(results: Results) -> Table:
    table = build_glance(results, "noop")
    assert table is not None
    return table


# ---- which workload, and whether it still runs ---------------------------------------------------


def test_memory_is_of_a_workload_that_still_runs_where_there_is_one(
    both: Results, ended: Results, tmp_path: Path
) -> None:
    assert find_memory_workload(both, "noop") == "httpd"
    assert find_memory_workload(ended, "noop") == "noop"
    assert (has_ended(both, "noop"), has_ended(both, "httpd")) == (True, False)
    unknown = load_results(write_run(tmp_path / "r", ENDED))  # an old manifest has names alone
    assert say_ended(unknown, "noop") == ""


def test_the_answer_on_memory_names_the_workload_that_runs(both: Results) -> None:
    assert "As a `namespace` container, `httpd` takes" in find_said(both, "Memory")
    first = find_statement(build_verdicts(both), "Memory").sentences[0]
    assert first.startswith("As `vm-direct`, emulated (TCG), `httpd` takes")
    assert "has ended" not in first


def test_without_one_every_sentence_and_head_says_that_it_has_ended(ended: Results) -> None:
    said = find_said(ended, "Memory")
    assert "of host memory (PSS), after its workload has ended." in said
    first = find_statement(build_verdicts(ended), "Memory").sentences[0]
    assert "(PSS), after its workload has ended: " in first
    assert "memory on the host, after its workload has ended" in require_glance(ended).head
    assert "memory, ended" in format_glance(ended, "noop")


def test_the_first_table_has_the_memory_of_the_workload_that_runs(both: Results) -> None:
    table = require_glance(both)
    assert table.head[2] == "memory on the host, `httpd`"
    rows = {row.platform: row.cells[1].text for row in table.rows}
    figure = both.find("vm-direct", "httpd", "memory.pss")
    assert figure is not None
    assert rows["vm-direct"].startswith(f"{figure.median / 2**20:.0f} MiB")
    assert "memory, httpd" in format_glance(both, "noop")


def test_tables_and_captions_say_which_figures_are_of_an_ended_workload(tmp_path: Path) -> None:
    folder = write_with_readiness(tmp_path / "r", BOTH, DAEMON)
    render_report(folder)
    text = (folder / "report.md").read_text()
    assert "`noop`: memory of one instance, after its workload has ended" in text
    assert "`httpd`: memory of one instance**" in text
    memory = [line for line in text.splitlines() if line.startswith("*Memory of one instance")]
    said = ["Read after its workload has ended" in line for line in memory]
    assert said == [True, True, False, False], "two sheets of each workload, noop's first"
    compared = re.findall(r"\| `(\w+)` \| `memory.pss`; after its workload has ended", text)
    assert set(compared) == {"noop"}
    glance = next(line for line in text.splitlines() if line.startswith("*Memory on the host"))
    assert "`httpd`, medians" in glance and "`crun` + 121 MiB once, for its daemon" in glance


# ---- daemons -------------------------------------------------------------------------------------


def test_a_daemon_is_named_beside_every_figure_of_its_instances(both: Results) -> None:
    daemon = "+ 121 MiB once, for its daemon"
    assert daemon in find_said(both, "Memory")
    assert daemon in find_statement(build_verdicts(both), "Memory").sentences[1]
    texts = {row.platform: row.cells[1].text for row in require_glance(both).rows}
    assert [name for name, text in texts.items() if daemon in text] == ["crun"]
    assert f"crun: memory {daemon}" in format_glance(both, "noop")


# ---- nobody is left out, and the reference has its name ------------------------------------------


@pytest.mark.parametrize("topic", ["Startup", "Memory", "Disk", "Transfer"])
def test_every_platform_is_in_the_sentences(both: Results, topic: str) -> None:
    said = find_said(both, topic)
    assert "As a plain process it " in said
    for name in ("namespace", "crun", "vm-direct", "vm-direct/tuned"):
        assert re.search(f"As (a )?`{name}`", said), name


def test_a_platform_without_a_figure_is_said_to_have_none(tmp_path: Path) -> None:
    plan = replace(BOTH, failing=[("process", "httpd")])
    results = load_results(write_with_readiness(tmp_path / "r", plan, {}))
    assert "Not measured with `httpd`: `process`." in find_said(results, "Memory")
    assert "Not measured" not in find_said(results, "Startup")


def test_what_is_ready_sooner_is_named(both: Results) -> None:
    said = find_said(both, "Startup")
    assert re.search(r"As a `crun` container it is ready after [^:]+: `namespace` is ready", said)
    assert "the container is ready" not in said and "in the container" not in said


def test_a_single_instance_is_said_to_overstate_what_one_more_takes(tmp_path: Path) -> None:
    """Only where both are surely known: by PSS and by a slope of the host's memory."""
    plan = replace(ENDED, blocks=6)
    steps = [
        replace(each, platform="crun", kind="container", accelerator="none")
        for each in build_series(100_000, 25)
    ]
    with Store.create(tmp_path / "r", build_manifest(plan)) as store:
        store.append(*build_outcomes(plan), *steps)
    write_samples(tmp_path / "r")
    results = load_results(tmp_path / "r")
    one, more = (results.find("crun", "noop", f"memory.{name}") for name in ("pss", "marginal"))
    assert one and more and more.high < one.low
    said = say_shared(results)
    assert "overstates what one more takes" in said
    assert f"{format_figure(one)} alone and {format_figure(more)} for one more" in said
    with Store.create(tmp_path / "s", build_manifest(plan)) as store:
        store.append(*build_outcomes(plan))
    write_samples(tmp_path / "s")
    assert say_shared(load_results(tmp_path / "s")) == ""
