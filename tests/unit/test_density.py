"""What one more instance costs in memory: when the slope is published, and when it is withheld."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.analysis.aggregate import load_samples
from harness.analysis.density import fit_marginal
from harness.analysis.plots.density import draw_density
from harness.analysis.results import load_results
from harness.model import Measurement, Outcome
from harness.store import Store, write_samples
from harness.store.samples import build_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, build_series

MIB = 1 << 20


def build_steps(
    fall: Sequence[float], marks: Sequence[str] = (), drift: float | None = None
) -> list[Outcome]:
    """A series whose free memory falls so far with 0, 1, 2 … instances; steps are a second apart.
    ``drift`` is in bytes per second."""
    steps = []
    for each, down in zip(build_series(0, len(fall)), fall, strict=True):
        rows = [Measurement("memory.available", 20e9 - down)]
        if drift is not None and each.instances == 0:
            rows.append(Measurement("memory.drift", drift))
        begun = f"2025-01-01T00:00:{each.instances:02}+00:00"
        steps.append(replace(each, measurements=tuple(rows), marks=tuple(marks), started_at=begun))
    return steps


def fit(folder: Path, steps: Sequence[Outcome]) -> dict[str, object]:
    pq.write_table(build_samples(steps, {"run_id": "r"}), folder / "samples.parquet")
    (row,) = fit_marginal(load_samples(folder)).to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_memory_that_rises_with_more_instances_is_no_cost(tmp_path: Path) -> None:
    """The host gave back more than they took: with Sen's interval it was a figure below zero."""
    fall = [-1.6 * MIB * number + 0.1 * MIB * (number % 3) for number in range(25)]
    row = fit(tmp_path, build_steps(fall))
    assert float(str(row["median"])) < 0
    assert str(row["withheld"]).startswith("no cost: free memory rose with more instances")


def test_a_cost_that_may_be_none_is_withheld(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    fall = 0.1 * MIB * np.arange(25) + np.cumsum(chance.normal(0, MIB, 25))
    row = fit(tmp_path, build_steps(list(fall)))
    assert float(str(row["low"])) <= 0 < float(str(row["median"]))
    assert str(row["withheld"]).startswith("no cost for certain: its interval reaches to -")


@pytest.mark.parametrize(
    ("drift", "withheld"),
    [(None, ""), (0.4 * MIB, ""),
     (0.6 * MIB, "less than the host's own drift (free memory moved by 614 KiB a step before the "
                 "first instance)")],
    ids=["an older run", "less", "more"],
)  # fmt: skip
def test_a_cost_below_the_drift_before_the_first_instance_is_withheld(
    tmp_path: Path, drift: float | None, withheld: str
) -> None:
    fall = [0.5 * MIB * number for number in range(25)]
    assert fit(tmp_path, build_steps(fall, drift=drift))["withheld"] == withheld


@pytest.mark.parametrize(("disturbed", "withheld"), [(8, False), (9, True)])
def test_too_many_disturbed_steps_withhold_it(
    tmp_path: Path, disturbed: int, withheld: bool
) -> None:
    steps = [
        replace(each, marks=("emulated", "outside-load") if number < disturbed else ("emulated",))
        for number, each in enumerate(build_steps([200.0 * MIB * n for n in range(25)]))
    ]
    row = fit(tmp_path, steps)
    assert row["marked"] == disturbed
    said = "9 of 25 steps were disturbed (outside-load 9): stop other work on this host"
    assert row["withheld"] == (said if withheld else "")


def test_a_withheld_slope_is_not_drawn_as_one(tmp_path: Path) -> None:
    plan = Synthetic(workloads=("noop",))
    with Store.create(tmp_path / "r", build_manifest(plan)) as store:
        for outcome in [*build_outcomes(plan), *build_steps([-1.6 * MIB * n for n in range(25)])]:
            store.append(outcome)
    write_samples(tmp_path / "r")
    (drawing,) = draw_density(load_results(tmp_path / "r"))
    assert "withheld, no cost" in drawing.alt and "MiB (" not in drawing.alt
