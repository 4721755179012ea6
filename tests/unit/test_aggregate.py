"""From samples to summaries: what is a key, what is left out, what is withheld."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.analysis.aggregate import (
    find_disturbances,
    find_refusal,
    load_samples,
    reduce_to_blocks,
    summarise,
)
from harness.analysis.density import fit_marginal
from harness.analysis.results import load_results
from harness.errors import InputError
from harness.metrics import is_image_size
from harness.model import Measurement
from harness.store import Store, write_samples
from harness.store.samples import build_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, build_series, write_run

SMALL = Synthetic(("namespace", "vm-direct"), (), ("noop",), blocks=8)


def read(tmp_path: Path, plan: Synthetic) -> pd.DataFrame:
    return load_samples(write_run(tmp_path / "r", plan))


def row(summary: pd.DataFrame, platform: str, metric: str, phase: str = "") -> pd.Series:
    """The one row of a series."""
    found = summary[
        (summary["platform"] == platform)
        & (summary["metric"] == metric)
        & (summary["phase"] == phase)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_a_summary_is_the_median_over_measured_blocks(tmp_path: Path) -> None:
    found = row(summarise(read(tmp_path, SMALL), 1), "namespace", "startup.ready")
    values = [
        each.value
        for outcome in build_outcomes(SMALL)
        if outcome.platform == "namespace" and not outcome.warmup
        for each in outcome.measurements
        if each.metric == "startup.ready"
    ]
    assert found["n"] == 8
    assert found["median"] == pytest.approx(np.median(values))
    assert (found["least"], found["most"]) == (min(values), max(values))
    assert found["low"] <= found["median"] <= found["high"]


def test_failed_trials_lower_n_and_are_no_zeros(tmp_path: Path) -> None:
    plan = replace(SMALL, failed_trials=(4, 5))
    found = row(summarise(read(tmp_path, plan), 1), "namespace", "startup.ready")
    assert found["n"] == 7
    assert found["least"] > 0


def test_an_arm_that_failed_as_a_whole_has_no_row(tmp_path: Path) -> None:
    plan = replace(SMALL, failing=[("vm-direct", "noop")])
    assert set(summarise(read(tmp_path, plan), 1)["platform"]) == {"namespace"}


def test_cold_and_warm_and_accelerators_are_never_mixed(tmp_path: Path) -> None:
    one = build_samples(build_outcomes(SMALL), {"run_id": "r"})
    other = build_samples(
        build_outcomes(replace(SMALL, cache="cold", accelerator="kvm")), {"run_id": "r"}
    )
    pq.write_table(pa.concat_tables([one, other]), tmp_path / "samples.parquet")
    summary = summarise(load_samples(tmp_path), 1)
    ready = summary[summary["metric"] == "startup.ready"]
    keys = set(zip(ready["platform"], ready["cache"], ready["accelerator"], strict=True))
    assert keys == {
        ("namespace", "warm", "none"),
        ("namespace", "cold", "none"),
        ("vm-direct", "warm", "tcg"),
        ("vm-direct", "cold", "kvm"),
    }


def test_columns_that_are_not_known_are_ignored(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    table = pq.read_table(folder / "samples.parquet")
    more = table.append_column("colour", pa.array(["blue"] * len(table)))
    pq.write_table(more, folder / "samples.parquet")
    assert len(summarise(load_samples(folder), 1)) > 0


def test_samples_are_projected_from_the_journal_where_a_run_was_cut_short(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    whole = load_samples(folder)
    (folder / "samples.parquet").unlink()
    pd.testing.assert_frame_equal(load_samples(folder), whole)


@pytest.mark.parametrize(("content", "reason"), [(b"", "cannot be read"), (b"x" * 99, "cannot")])
def test_a_damaged_sample_file_is_one_clear_error(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "samples.parquet").write_bytes(content)
    with pytest.raises(InputError, match=rf"samples\.parquet {reason}.*made anew"):
        load_samples(tmp_path)


def test_a_sample_file_without_a_column_names_it(tmp_path: Path) -> None:
    table = build_samples(build_outcomes(SMALL), {"run_id": "r"})
    pq.write_table(table.drop_columns(["phase"]), tmp_path / "samples.parquet")
    with pytest.raises(InputError, match="has no column phase"):
        load_samples(tmp_path)


def test_several_trials_in_a_block_count_once(tmp_path: Path) -> None:
    samples = read(tmp_path, SMALL)
    twice = pd.concat([samples, samples])
    assert len(reduce_to_blocks(twice)) == len(samples)
    assert summarise(twice, 1)["n"].max() == 8


@pytest.mark.parametrize(
    ("marks", "refusal"),
    [
        ([""] * 3, ""),
        (["emulated"] * 10, ""),
        ([""], "only 1 block, 3 are needed"),
        ([""] * 2, "only 2 blocks, 3 are needed"),
        (["steal"] * 3 + [""] * 6, ""),
        (
            ["emulated steal"] * 3 + ["swap steal"] + [""] * 6,
            "4 of 10 trials were disturbed (steal 4, swap 1): use a host of your own",
        ),
    ],
)
def test_what_is_withheld_and_why(marks: list[str], refusal: str) -> None:
    assert find_refusal(marks) == refusal


def test_emulation_is_a_label_and_no_disturbance() -> None:
    assert find_disturbances("emulated steal cache-not-warm") == ["steal", "cache-not-warm"]


def test_marked_trials_withhold_a_figure(tmp_path: Path) -> None:
    marks = {
        outcome.trial: ("steal",)
        for outcome in build_outcomes(SMALL)
        if outcome.platform == "namespace" and outcome.block > 3
    }
    summary = summarise(read(tmp_path, replace(SMALL, marks=marks)), 1)
    found = row(summary, "namespace", "startup.ready")
    assert found["withheld"] == "5 of 8 trials were disturbed (steal 5): use a host of your own"
    assert row(summary, "vm-direct", "startup.ready")["withheld"] == ""
    sizes = summary[(summary["platform"] == "namespace") & summary["metric"].map(is_image_size)]
    assert len(sizes) and set(sizes["withheld"]) == {""}, "nothing in a trial changes an image"


def test_the_cost_of_one_more_instance_is_the_slope(tmp_path: Path) -> None:
    with Store.create(tmp_path / "r", build_manifest(SMALL)) as store:
        for outcome in [*build_outcomes(SMALL), *build_series(200e6, 8)]:
            store.append(outcome)
    write_samples(tmp_path / "r")
    results = load_results(tmp_path / "r")
    found = results.find("vm-direct", "noop", "memory.marginal")
    assert found is not None
    assert found.median == pytest.approx(200e6, rel=0.01)
    assert found.low <= found.median <= found.high
    assert (found.n, found.withheld) == (8, "")
    ready = results.find("vm-direct", "noop", "startup.ready")
    assert ready is not None
    assert ready.n == 8


def test_the_disk_of_one_more_instance_is_the_slope_of_what_they_take(tmp_path: Path) -> None:
    series = [
        replace(each, measurements=(Measurement("disk.occupied", 5e6 + 2e6 * each.instances),))
        for each in build_series(0, 6)
    ]
    pq.write_table(build_samples(series, {"run_id": "r"}), tmp_path / "samples.parquet")
    (row,) = fit_marginal(load_samples(tmp_path)).to_dict("records")
    assert (row["metric"], row["accelerator"], row["n"]) == ("disk.marginal", "tcg", 6)
    assert row["median"] == pytest.approx(2e6)


def test_a_short_series_is_withheld(tmp_path: Path) -> None:
    pq.write_table(
        build_samples(build_series(1e6, 3), {"run_id": "r"}), tmp_path / "samples.parquet"
    )
    found = fit_marginal(load_samples(tmp_path))
    assert list(found["withheld"]) == ["only 3 steps, 4 are needed"]


def test_a_series_of_one_step_has_no_slope(tmp_path: Path) -> None:
    pq.write_table(
        build_samples(build_series(1e6, 1), {"run_id": "r"}), tmp_path / "samples.parquet"
    )
    assert fit_marginal(load_samples(tmp_path)).empty


def test_a_million_samples_aggregate_in_seconds(tmp_path: Path) -> None:
    table = build_samples(build_outcomes(Synthetic(blocks=10)), {"run_id": "r"})
    table = table.filter(pa.compute.invert(table["warmup"]))
    copies = -(-1_000_000 // len(table))
    blocks = np.repeat(np.arange(copies), len(table)) * 100 + np.tile(table["block"], copies)
    many = pa.concat_tables([table] * copies)
    many = many.set_column(many.column_names.index("block"), "block", pa.array(blocks))
    pq.write_table(many, tmp_path / "samples.parquet")
    start = time.perf_counter()
    summary = summarise(load_samples(tmp_path), 1)
    assert time.perf_counter() - start < 20
    assert summary["n"].max() == copies * 10
