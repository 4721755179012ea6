"""samples.parquet and the journal with damage of every kind: one clear line, never a number."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.__main__ import main
from harness.analysis.aggregate import load_samples, summarise
from harness.analysis.certainty import build_verdicts
from harness.analysis.ratios import compare_platforms
from harness.analysis.results import load_results
from harness.errors import InputError
from tests.unit.synthetic import Synthetic, write_run

SMALL = Synthetic(("namespace", "vm-direct"), ("namespace",), ("noop",), blocks=6)


def change(folder: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    path = folder / "samples.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def put(name: str, column: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, column)


def replace_value(value: float) -> Callable[[pa.Table], pa.Table]:
    """The first measured row gets another value."""

    def edit(table: pa.Table) -> pa.Table:
        values = table["value"].to_numpy().copy()
        values[int(np.flatnonzero(~table["warmup"].to_numpy())[0])] = value
        return put("value", pa.array(values))(table)

    return edit


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_value_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    change(folder, replace_value(value))
    reason = rf"1 values that are no numbers; the first is {value} for \S+ in trial \d+ on \S+ \("
    with pytest.raises(InputError, match=reason):
        load_samples(folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda t: put("value", t["value"].cast(pa.string()))(t), "value .* of type string"),
        (lambda t: put("warmup", t["warmup"].cast(pa.int8()))(t), "warmup .* of type int8"),
        (lambda t: put("marks", pa.array(["x"] * len(t)))(t), "marks .* of type string"),
        (lambda t: put("block", t["block"].cast(pa.float64()))(t), "block .* of type double"),
        (lambda t: put("metric", pa.array(range(len(t))))(t), "metric .* of type int64"),
        (lambda t: put("value", pa.nulls(len(t), pa.float64()))(t), "value .* has 266 gaps"),
        (lambda t: put("unit", pa.array([None] + ["s"] * (len(t) - 1)))(t), "unit .* has 1 gaps"),
        (lambda t: t.drop_columns(["cache"]), "has no column cache"),
    ],
)
def test_columns_of_another_release_are_refused(
    tmp_path: Path, edit: Callable[[pa.Table], pa.Table], reason: str
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    change(folder, edit)
    with pytest.raises(InputError, match=reason.replace(" 266", r" \d+")):
        load_samples(folder)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_sample_file_is_one_clear_error(tmp_path: Path, kept: float) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    path = folder / "samples.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(InputError, match=r"samples\.parquet cannot be read: .*made anew"):
        load_samples(folder)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_give_a_traceback(tmp_path: Path, seed: int) -> None:
    """Damage is an error, or hits nothing that is read."""
    folder = write_run(tmp_path / "r", SMALL)
    path = folder / "samples.parquet"
    data = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(0, len(data), 8).tolist():
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    try:
        assert len(load_samples(folder)) > 0
    except InputError as error:
        assert "\n" not in str(error)


def damage_schema(folder: Path, version: str) -> None:
    for name in ("manifest.json", "journal.jsonl"):
        text = (folder / name).read_text()
        for space in ("", " "):
            old = f'"schema_version":{space}1'
            text = text.replace(old, f'"schema_version":{space}{version}', 1)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("version", "hint"),
    [("2", "use a newer release"), ("0", "use the release that wrote it"), ("null", "no schema")],
)
def test_another_schema_is_refused_by_report(tmp_path: Path, version: str, hint: str) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    damage_schema(folder, version)
    with pytest.raises(InputError, match=hint):
        load_results(folder)


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.999])
def test_a_truncated_journal_is_read_as_far_as_it_goes(tmp_path: Path, kept: float) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    path = folder / "journal.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    (folder / "samples.parquet").unlink()
    whole, lines = load_results(folder), data[: int(kept * len(data))].count(b"\n")
    assert len(whole.outcomes) == lines - 1


def test_where_every_trial_of_an_arm_failed_the_verdict_is_withheld(tmp_path: Path) -> None:
    plan = Synthetic(blocks=6, failing=[("vm-direct", "noop")])
    results = load_results(write_run(tmp_path / "r", plan))
    table = build_verdicts(results, ["startup.ready"])
    assert table is not None
    found = {(row.platform, row.cells[0].text): row.cells[-1] for row in table.rows}
    cell = found["vm-direct", "`noop`"]
    assert (cell.text, cell.note) == ("withheld", "all 6 trials of `vm-direct` failed")
    assert found["vm-direct", "`httpd`"].text == "slower"


def test_where_every_trial_of_the_reference_failed_nothing_is_compared(tmp_path: Path) -> None:
    plan = Synthetic(blocks=6, failing=[("namespace", "httpd"), ("namespace#2", "httpd")])
    results = load_results(write_run(tmp_path / "r", plan))
    table = build_verdicts(results, ["startup.ready"])
    assert table is not None
    notes = {row.cells[-1].note for row in table.rows if row.cells[0].text == "`httpd`"}
    assert notes == {"all 6 trials of `namespace` failed"}


def test_constant_samples_have_a_median_without_an_interval(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r", SMALL))
    samples["value"] = 3.0
    found = summarise(samples, 1)
    assert (found[["median", "low", "high", "bootstrap_low"]] == 3.0).all(axis=None)
    assert (found["drift"] == 0).all()
    ratios = compare_platforms(samples, "namespace", 1)
    assert set(ratios["verdict"]) == {"equivalent"}
    assert (ratios[["p", "p_permutation"]] == 1.0).all(axis=None)


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    change(folder, replace_value(float("inf")))
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "are no numbers" in line
