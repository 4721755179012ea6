"""Timings of hyperfine and pyperf: read, shown beside a run, and compared with each other."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyperf
import pytest

from harness.__main__ import main
from harness.analysis.beside import MOST_ROWS, OTHER_METHOD, build_tables, find_reference_values
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.errors import InputError
from harness.store.foreign import ForeignFile, Timing, read_foreign
from harness.system import find_command
from tests.unit.synthetic import Synthetic, write_run

SMALL = Synthetic(("process", "namespace", "vm-direct"), ("namespace",), ("noop",), blocks=6)
TIMES = [0.101, 0.099, 0.1, 0.102, 0.098, 0.1, 0.101, 0.1]


def write_hyperfine(path: Path, results: Mapping[str, Sequence[object]]) -> Path:
    found = [{"command": name, "times": list(times)} for name, times in results.items()]
    path.write_text(json.dumps({"results": found}))
    return path


def write_pyperf(
    path: Path, values: Mapping[str, Sequence[Sequence[float]]], **metadata: str
) -> Path:
    suite = pyperf.BenchmarkSuite(
        [
            pyperf.Benchmark(
                [
                    pyperf.Run(run, metadata={"name": name, **metadata}, collect_metadata=False)
                    for run in runs
                ]
            )
            for name, runs in values.items()
        ]
    )
    suite.dump(str(path), replace=True)
    return path


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the tools themselves write: two commands of hyperfine, 3 processes of pyperf."""
    folder = tmp_path_factory.mktemp("real")
    hyperfine = find_command("hyperfine")
    if hyperfine is None:
        pytest.skip("hyperfine is not installed")
    run(hyperfine, "-N", "--runs", "8", "--export-json", "hyperfine.json",
        "sleep 0.002", "sleep 0.02", cwd=folder)  # fmt: skip
    run(sys.executable, "-m", "pyperf", "timeit", "-p", "3", "-n", "5", "-l", "100",
        "-o", "pyperf.json", "--name", "an empty list", "[]", cwd=folder)  # fmt: skip
    return folder / "hyperfine.json", folder / "pyperf.json"


# ---- reading -----------------------------------------------------------------------------------


def test_real_files_of_both_tools_are_read(real_files: tuple[Path, Path]) -> None:
    hyperfine, suite = map(read_foreign, real_files)
    assert (hyperfine.tool, suite.tool) == ("hyperfine", "pyperf")
    assert [(each.name, len(each.values)) for each in hyperfine.timings] == [
        ("sleep 0.002", 8), ("sleep 0.02", 8),
    ]  # fmt: skip
    assert min(hyperfine.timings[1].values) >= 0.02
    (timing,) = suite.timings
    assert (timing.name, timing.unit, len(timing.values)) == ("an empty list", "s", 3)
    assert suite.facts["host"] == os.uname().nodename
    assert "wall clock" in hyperfine.clock and "perf_counter" in suite.clock


def test_a_pyperf_process_is_one_value_however_many_it_took(tmp_path: Path) -> None:
    path = write_pyperf(tmp_path / "p.json", {"b": [[1.0, 2.0, 9.0], [3.0]]})
    assert read_foreign(path).timings == (Timing("b", "s", (2.0, 3.0)),)


def test_failed_starts_are_counted(tmp_path: Path) -> None:
    document = {"results": [{"command": "false", "times": [1, 2], "exit_codes": [1, None]}]}
    path = tmp_path / "h.json"
    path.write_text(json.dumps(document))
    assert read_foreign(path).timings[0].failures == 2


def test_two_commands_of_one_name_are_told_apart_and_names_are_made_plain(tmp_path: Path) -> None:
    document = {
        "results": [
            {"command": name, "times": [1.0]} for name in ("a", "a", "b\x1b[31m\nc\u202e\ud800", "")
        ]
    }
    path = tmp_path / "h.json"
    path.write_text(json.dumps(document))
    assert [each.name for each in read_foreign(path).timings] == ["a (1)", "a (2)", "b [31m c", "?"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\x00\xff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is neither of hyperfine nor of pyperf"),
        ("3", "is neither of hyperfine nor of pyperf"),
        ('{"results": 3}', "is not of hyperfine"),
        ('{"results": [{"times": [1]}]}', "is not of hyperfine"),
        ('{"results": [{"command": "x", "times": ["1"]}]}', "is not of hyperfine"),
        ('{"results": []}', "holds no benchmark"),
        ('{"results": [{"command": "x"}]}', "'x' has no times"),
        ('{"results": [{"command": "x", "times": []}]}', "'x' has no times"),
        ('{"results": [{"command": "x", "times": [-1]}]}', "holds -1.0, which is no time"),
        ('{"results": [{"command": "x", "times": [1e999]}]}', "which is no time"),
        ('{"benchmarks": 3}', "is not of pyperf"),
        ('{"benchmarks": [], "version": "1.0"}', "is not of pyperf"),
        ('{"benchmarks": [{}], "version": "1.0"}', "is not of pyperf"),
        ('{"benchmarks": [{"runs": [{"values": [0]}]}], "version": "1.0"}', "is not of pyperf"),
        ('{"benchmarks": [{"runs": [{"values": "x"}]}], "version": "9.0"}', "is not of pyperf"),
    ],
)
def test_what_is_no_such_file_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, "latin-1")
    with pytest.raises(InputError) as error:
        read_foreign(path)
    assert said in error.value.message
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_foreign(path)


# ---- beside a run ------------------------------------------------------------------------------


def test_brought_in_timings_have_a_section_of_their_own(
    tmp_path: Path, real_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    render_report(folder, ("html", "md"))
    plain = (folder / "report.md").read_text()
    words = [word for path in real_files for word in ("--beside", str(path))]
    assert main(["report", str(folder), *words]) == 0
    text = (folder / "report.md").read_text()
    assert "Brought in" not in plain
    start, end = text.index("## Brought in"), text.index("## How it was measured")
    assert text[:start] + text[end:] == plain  # nothing else of the report has changed
    section = text[start:end]
    assert section.count(OTHER_METHOD) == 3
    assert "| `sleep 0.02` | hyperfine; `hyperfine.json` |" in section
    assert "Clock of hyperfine: wall clock from starting the command" in section
    assert "Clock of pyperf: what the benchmark itself spans" in section
    assert "Among the timings of hyperfine" in section and re.search(r"\| slower +\|", section)
    assert "Among the timings of pyperf" not in section
    first = (folder / "report.html").read_bytes()
    assert main(["report", str(folder), *words]) == 0
    assert (folder / "report.html").read_bytes() == first
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.md").read_text() == plain


def test_the_ratio_is_that_of_the_medians_to_the_run_s_reference(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", SMALL))
    reference = sorted(find_reference_values(results))
    assert len(reference) == 6
    middle = (reference[2] + reference[3]) / 2
    timing = Timing("x", "s", tuple(value * 2 for value in reference))
    (table,) = build_tables(results, [ForeignFile(Path("x.json"), "hyperfine", (timing,))])
    assert results.find("namespace", "noop", "startup.ready").median == pytest.approx(middle)  # type: ignore[union-attr]
    assert table.rows[0].cells[4].text.startswith("2.00 × (")
    assert table.head[5] == "to `namespace` with `noop`"


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    name = "<script>alert(1)</script> | `x` **b** [a](b) & {{ 7 * 7 }}"
    path = write_hyperfine(tmp_path / "h.json", {name: TIMES, name + "x" * 500: TIMES})
    render_report(folder, ("html", "md"), beside=[path])
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page and "{{ 7 * 7 }}" in page
    assert "x" * 101 not in page
    assert "\\| ʼxʼ" in (folder / "report.md").read_text()


def test_units_are_never_mixed_and_zeros_have_no_ratio(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", SMALL))
    timings = (
        Timing("time", "s", tuple(TIMES)),
        Timing("zeros", "s", (0.0, 0.0, 1.0, 2.0)),
        Timing("size", "B", (10.0, 11.0, 12.0)),
        Timing("other size", "B", (20.0, 22.0, 24.0)),
        Timing("few", "s", (1.0, 2.0)),
    )
    tables = build_tables(results, [ForeignFile(Path("x"), "pyperf", timings)])
    overview, seconds, sizes = tables
    ratios = {row.head: row.cells[4].text for row in overview.rows}
    assert ratios["`size`"] == ratios["`zeros`"] == ratios["`few`"] == "–"
    assert ratios["`time`"].endswith(")")
    assert [row.head for row in seconds.rows] == ["`zeros`", "`few`"]
    assert {row.cells[3].text for row in seconds.rows} == {"no verdict"}
    assert [(row.head, row.cells[3].text) for row in sizes.rows] == [("`other size`", "larger")]


def test_timings_of_another_host_have_no_verdict(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", SMALL))
    files = [
        ForeignFile(
            Path(host), "pyperf", (Timing("x", "s", tuple(each * scale for each in TIMES)),),
            {"host": host},
        )
        for host, scale in (("a", 1.0), ("a", 2.0), ("b", 3.0))
    ]  # fmt: skip
    own = build_tables(results, files)[1]
    verdicts = [(row.cells[3].text, row.cells[3].note) for row in own.rows]
    assert verdicts == [("slower", ""), ("no verdict", "measured with another host")]


def test_ten_thousand_results_are_read_and_the_table_says_what_it_leaves_out(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    path = write_hyperfine(
        tmp_path / "h.json", {f"command {number}": TIMES for number in range(10_000)}
    )
    render_report(folder, ("md",), beside=[path])
    text = (folder / "report.md").read_text()
    assert text.count(OTHER_METHOD) == MOST_ROWS
    assert "9800 more are left out of this table." in text


def test_report_names_a_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    assert main(["report", str(folder), "--beside", str(tmp_path / "no.json")]) == 2
    assert "no.json cannot be read: No such file or directory (bring in what" in (
        capsys.readouterr().err
    )


# ---- against each other ------------------------------------------------------------------------


def compare_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    code = main(["compare", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_two_files_of_hyperfine_are_a_gate_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_hyperfine(tmp_path / "a.json", {"x": TIMES, "y": TIMES})
    slow = write_hyperfine(tmp_path / "b.json", {"x": [2 * each for each in TIMES], "z": TIMES})
    code, document = compare_json(capsys, base, slow)
    assert code == 1
    (row,) = document["comparisons"]
    assert (row["platform"], row["metric"], row["verdict"]) == ("x", "timing", "slower")
    assert {(each["in"], each["platform"]) for each in document["missing"]} == {
        ("new", "y"), ("base", "z"),
    }  # fmt: skip
    assert "BASE: hyperfine stores no host, so that was not checked" in document["notes"]
    assert compare_json(capsys, slow, base)[0] == 0


def test_two_files_of_pyperf_of_another_host_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"x": [[each] for each in TIMES]}
    base = write_pyperf(tmp_path / "a.json", runs, hostname="one")
    new = write_pyperf(tmp_path / "b.json", runs, hostname="two")
    code, document = compare_json(capsys, base, new)
    assert (code, document["refused"][0]["dimension"]) == (2, "host")
    assert compare_json(capsys, base, new, "--allow", "host")[0] == 0


def test_what_is_of_two_methods_is_never_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    hyperfine = write_hyperfine(tmp_path / "h.json", {"x": TIMES})
    suite = write_pyperf(tmp_path / "p.json", {"x": [[each] for each in TIMES]})
    sizes = write_pyperf(tmp_path / "s.json", {"x": [[each] for each in TIMES]}, unit="byte")
    for one, other, said in (
        (hyperfine, suite, "BASE is of hyperfine and NEW of pyperf"),
        (folder, suite, "BASE is of harness and NEW of pyperf"),
        (suite, folder, "BASE is of pyperf and NEW of harness"),
        (suite, sizes, "x is in s in BASE and in B in NEW"),
        (hyperfine, write_hyperfine(tmp_path / "o.json", {"y": TIMES}), "nothing in common"),
    ):
        assert main(["compare", str(one), str(other)]) == 2
        assert said in capsys.readouterr().err


def test_a_suite_of_our_own_can_be_brought_in(tmp_path: Path) -> None:
    from harness.store import write_pyperf as write_suites

    folder = write_run(tmp_path / "r", SMALL)
    path = next(each for each in write_suites(folder) if each.name == "namespace.noop.json")
    found = read_foreign(path)
    assert {each.unit for each in found.timings} == {"s", "B"}
    assert found.facts["host"] == "bench-1"
