"""Ratios paired within blocks and the verdicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.aggregate import load_samples
from harness.analysis.ratios import compare_platforms, find_verdict
from harness.certificate import find_reference
from tests.unit.synthetic import KINDS, STARTS, Synthetic, write_run

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "p", "alike", "floor", "verdict"),
    [
        (0.50, 0.60, 0.001, 1.000, 0.02, "faster"),
        (300.0, 310.0, 0.001, 1.000, 0.02, "slower"),
        (0.98, 1.03, 0.600, 0.001, 0.02, "equivalent"),
        (0.98, 1.03, 0.600, 0.060, 0.02, "inconclusive"),
        (0.98, 1.03, 0.600, NAN, 0.02, "inconclusive"),
        (0.96, 0.99, 0.001, 0.001, 0.02, "equivalent"),
        (0.90, 1.20, 0.600, 0.001, 0.02, "inconclusive"),
        (0.93, 0.97, 0.001, 0.001, 0.02, "inconclusive"),
        (1.10, 1.20, 0.200, 1.000, 0.02, "inconclusive"),
        (1.10, 1.20, 0.001, 1.000, 0.15, "inconclusive"),
        (0.98, 1.03, 0.600, 0.001, 0.15, "inconclusive"),
        (1.10, 1.20, 0.001, 1.000, NAN, "slower"),
        (1.10, 1.20, NAN, NAN, NAN, "inconclusive"),
        (1.00, 1.00, 1.000, 0.000, 0.00, "equivalent"),
        (NAN, NAN, NAN, NAN, 0.02, "inconclusive"),
    ],
)
def test_verdicts(
    low: float, high: float, p: float, alike: float, floor: float, verdict: str
) -> None:
    assert find_verdict("startup.ready", low, high, p, alike, floor) == verdict


def test_sizes_have_words_of_their_own() -> None:
    assert find_verdict("memory.pss", 2.0, 2.1, 0.001, 1.0, 0.0) == "larger"
    assert find_verdict("memory.pss", 0.5, 0.6, 0.001, 1.0, 0.0) == "smaller"
    assert find_verdict("metric.of.a.later.release", 2.0, 2.1, 0.001, 1.0, 0.0) == "larger"


def test_the_threshold_is_the_readers() -> None:
    found = find_verdict("startup.ready", 0.88, 0.92, 0.001, 0.001, 0.0, threshold=0.2)
    assert found == "equivalent"


def test_ratios_are_those_of_the_starts(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r"))
    found = compare_platforms(samples, "namespace", 1)
    ready = found[(found["metric"] == "startup.ready") & (found["workload"] == "noop")]
    expected = sum(STARTS["vm-direct"].values()) / sum(STARTS["namespace"].values())
    row = ready[ready["platform"] == "vm-direct"].iloc[0]
    assert row["ratio"] == pytest.approx(expected, rel=0.05)
    assert row["verdict"] == "slower"
    assert row["n"] == 10
    assert set(found["platform"]) == {"process", "vm-direct", "vm-microvm"}


def test_swapping_the_two_gives_the_reciprocal(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r", replace(Synthetic(), blocks=9)))
    keys = ["workload", "metric"]
    one = compare_platforms(samples, "namespace", 1)
    other = compare_platforms(samples, "process", 1)
    one = one[one["platform"] == "process"].set_index(keys)
    other = other[other["platform"] == "namespace"].set_index(keys).loc[one.index]
    for name, counterpart in (("ratio", "ratio"), ("low", "high"), ("shift", "shift")):
        theirs = 1 / other[counterpart].to_numpy()
        assert one[name].to_numpy() == pytest.approx(theirs, nan_ok=True)
    assert one["p"].to_numpy() == pytest.approx(other["p"].to_numpy(), nan_ok=True)


def test_pairs_are_of_the_same_block(tmp_path: Path) -> None:
    """A host that slows down by ten over the run leaves paired ratios as they are."""
    samples = load_samples(write_run(tmp_path / "r", replace(Synthetic(), spread=0.001)))
    slow = samples.copy()
    slow["value"] *= 1.3 ** slow["block"]
    before = compare_platforms(samples, "namespace", 1)
    after = compare_platforms(slow, "namespace", 1)
    assert after["low"].to_numpy() == pytest.approx(before["low"].to_numpy(), nan_ok=True)


def test_a_block_without_its_partner_makes_no_pair(tmp_path: Path) -> None:
    plan = replace(Synthetic(("namespace", "vm-direct"), (), ("noop",)), failed_trials=(4, 7))
    found = compare_platforms(load_samples(write_run(tmp_path / "r", plan)), "namespace", 1)
    assert set(found["n"]) == {8}


def test_values_of_zero_have_no_ratio_and_say_so(tmp_path: Path) -> None:
    found = compare_platforms(load_samples(write_run(tmp_path / "r")), "namespace", 1)
    grown = found["metric"] == "disk.instance_growth"
    numbers = ["ratio", "low", "high", "shift", "p", "p_permutation", "p_equivalence"]
    assert found.loc[grown, numbers].isna().all(axis=None)
    reason = "10 of 10 pairs hold a value that is not above zero: no ratio"
    assert set(found.loc[grown, "withheld"]) == {reason}
    assert np.isfinite(found.loc[~grown, numbers].to_numpy()).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_one_value_of_zero_withholds_the_ratio_and_not_its_block_alone(
    tmp_path: Path, value: float
) -> None:
    plan = Synthetic(("namespace", "vm-direct"), (), ("noop",))
    samples = load_samples(write_run(tmp_path / "r", plan))
    ready = (samples["metric"] == "startup.ready") & (samples["platform"] == "vm-direct")
    samples.loc[samples[ready].index[0], "value"] = value
    found = compare_platforms(samples, "namespace", 1).set_index("metric")
    row = found.loc["startup.ready"]
    assert row["withheld"] == "1 of 10 pairs hold a value that is not above zero: no ratio"
    assert np.isnan(row["ratio"])
    assert row["verdict"] == "inconclusive"
    assert found.loc["memory.pss", "withheld"] == ""


def test_constant_samples_differ_for_certain_or_not_at_all(tmp_path: Path) -> None:
    found = compare_platforms(load_samples(write_run(tmp_path / "r")), "namespace", 1)
    sizes = found[(found["metric"] == "disk.image_allocated") & (found["workload"] == "noop")]
    rows = sizes.set_index("platform")
    process, machine = rows.loc["process"], rows.loc["vm-direct"]
    assert (process["ratio"], process["p"], process["verdict"]) == (1.0, 1.0, "equivalent")
    assert process["p_equivalence"] == machine["p"] == 0.0
    assert machine["low"] == machine["ratio"] == machine["high"]
    assert machine["verdict"] == "larger"


@pytest.mark.parametrize("blocks", [1, 2])
def test_too_few_blocks_give_no_verdict(tmp_path: Path, blocks: int) -> None:
    samples = load_samples(write_run(tmp_path / "r", replace(Synthetic(), blocks=blocks)))
    found = compare_platforms(samples, "namespace", 1)
    assert set(found["verdict"]) == {"inconclusive"}
    positive = found["metric"] != "disk.instance_growth"
    assert found.loc[positive, "withheld"].str.startswith("only ").all()
    assert (found.loc[~positive, "withheld"] != "").all()


@pytest.mark.parametrize(
    ("platforms", "reference"),
    [
        (["process", "crun", "namespace"], "namespace"),
        (["process", "vm-direct", "crun"], "crun"),
        (["process", "vm-direct"], "process"),
        (["vm-direct"], "vm-direct"),
        (["crun#2"], None),
        ([], None),
    ],
)
def test_what_the_others_are_compared_with(platforms: list[str], reference: str | None) -> None:
    assert find_reference(platforms, KINDS) == reference


def test_fewer_than_six_pairs_tell_no_difference_but_of_sizes() -> None:
    certain = (2.0, 2.1, 0.001, 1.0, 0.0)
    assert find_verdict("startup.ready", *certain, pairs=5) == "inconclusive"
    assert find_verdict("startup.ready", *certain, pairs=6) == "slower"
    assert find_verdict("disk.image_allocated", *certain, pairs=3) == "larger"
    assert find_verdict("startup.ready", 0.99, 1.01, 0.9, 0.001, 0.0, pairs=5) == "inconclusive"
