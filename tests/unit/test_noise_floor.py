"""The A/A arms: noise floor, smallest effect, and how often the verdicts are false."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.aggregate import load_samples
from harness.analysis.answer import build_answer
from harness.analysis.certainty import build_alarms, build_arms
from harness.analysis.compare_floors import find_floor
from harness.analysis.location import Means, find_means, find_p_values
from harness.analysis.noise_floor import (
    FalseAlarms,
    Floors,
    compare_arms,
    count_false_alarms,
    find_differences,
    find_floors,
    find_share_interval,
    pair_arms,
)
from harness.analysis.pairs import find_effect
from harness.analysis.ratios import compare_platforms, find_verdict
from harness.analysis.results import load_results
from harness.analysis.statistics import correct_holm, summarise_groups
from tests.unit.synthetic import Synthetic, write_run
from tests.unit.test_statistics import number

BOTH = Synthetic(aa=("namespace", "vm-direct"))
CASE = ("noop", "warm", "startup.ready")


def test_the_noise_floor_is_how_far_the_second_arm_may_differ(tmp_path: Path) -> None:
    arms = compare_arms(load_samples(write_run(tmp_path / "r")), 1)
    assert set(arms["platform"]) == {"namespace#2"}
    row = arms[(arms["metric"] == "startup.ready") & (arms["workload"] == "noop")].iloc[0]
    floor = find_floors(arms).find(CASE, "container")
    assert floor == pytest.approx(max(1 / row["low"], row["high"]) - 1)


def test_each_kind_has_the_floor_of_its_own_arm_and_a_process_the_containers(
    tmp_path: Path,
) -> None:
    samples = load_samples(write_run(tmp_path / "r", BOTH))
    arms = compare_arms(samples, 1)
    floors = find_floors(arms)
    container, machine = floors.find(CASE, "container"), floors.find(CASE, "vm")
    assert set(arms["platform"]) == {"namespace#2", "vm-direct#2"}
    assert container != machine
    assert floors.find(CASE, "sandbox") == container
    found = compare_platforms(samples, "namespace", 1)
    ready = found[(found["metric"] == "startup.ready") & (found["workload"] == "noop")]
    by_platform = ready.set_index("platform")["floor"]
    assert by_platform["vm-microvm"] == by_platform["vm-direct"] == machine
    assert by_platform["process"] == container


@pytest.mark.parametrize(
    ("shares", "kind", "floor"),
    [
        ({"container": 0.01, "vm": 0.2}, "process", 0.01),
        ({"container": 0.01, "vm": 0.2}, "sandbox", 0.01),
        ({"container": 0.01, "process": 0.02}, "sandbox", 0.02),
        ({"vm": 0.2}, "container", None),
        ({"vm": 0.2}, "process", None),
        ({"container": 0.01}, "vm", 0.01),
        ({"container": 0.3, "vm": 0.2}, "vm", 0.2),
    ],
)
def test_a_machines_arm_serves_machines_only(
    shares: dict[str, float], kind: str, floor: float | None
) -> None:
    key = ("a-platform", CASE[0], CASE[2], "")
    assert Floors({CASE: shares}).find(CASE, kind) == floor
    assert find_floor([{key[1:]: shares}, {}], key, kind) == floor


def test_without_a_second_arm_the_floor_is_unknown(tmp_path: Path) -> None:
    samples = load_samples(write_run(tmp_path / "r", replace(Synthetic(), aa=())))
    assert compare_platforms(samples, "namespace", 1)["floor"].isna().all()
    assert Floors().find(CASE, "vm") is None
    assert count_false_alarms(pair_arms(samples), 1) == FalseAlarms(0, 0, 0, 0)


@pytest.mark.parametrize(("size", "spread"), [(4, 0.02), (6, 0.02), (10, 0.05), (40, 0.3)])
def test_the_smallest_effect_is_seen_in_80_of_100_runs(size: int, spread: float) -> None:
    error = np.full(1, spread / np.sqrt(size))
    effect = find_effect(Means(np.zeros(1), error, np.full(1, size - 1.0)))
    values = np.random.default_rng(size).normal(np.log1p(effect[0]), spread, (20_000, size))
    assert np.mean(find_p_values(find_means(*number(values))) < 0.05) == pytest.approx(
        0.8, abs=0.01
    )


@pytest.mark.parametrize("size", [4, 10, 30])
def test_alarms_are_counted_by_the_rule_of_the_verdicts(size: int) -> None:
    chance = np.random.default_rng(size)
    logs = chance.normal(0, 0.1, (300, size)) + chance.choice([0, 0.2, -0.5], (300, 1))
    values, groups, count = number(logs)
    blocks = np.tile(np.arange(size), count)
    found = summarise_groups(values, groups, count, blocks)
    means = find_means(values, groups, count)
    p_values = correct_holm(find_p_values(means))
    verdicts = [
        find_verdict("startup.ready", low, high, p, 1.0, float("nan"))
        for low, high, p in zip(np.exp(found.low), np.exp(found.high), p_values, strict=True)
    ]
    called = find_differences(values, groups, blocks, 1, count)[0]
    assert list(called) == [verdict in ("faster", "slower") for verdict in verdicts]
    assert 0 < called.sum() < count


def test_a_quiet_run_raises_no_false_alarms(tmp_path: Path) -> None:
    found = count_false_alarms(pair_arms(load_samples(write_run(tmp_path / "r", BOTH))), 1)
    assert (found.compared, found.called, found.relabelled) == (10, 0, 1000)
    assert found.share < 0.05


def test_an_arm_that_really_differs_is_called_different(tmp_path: Path) -> None:
    """As measured, it is; with labels swapped at random, it is not: that is noise."""
    samples = load_samples(write_run(tmp_path / "r", BOTH))
    samples.loc[samples["platform"] == "namespace#2", "value"] *= 1.5
    found = count_false_alarms(pair_arms(samples), 1)
    assert found.called == 9  # sizes of zero have no ratio
    assert found.share < 0.05


def test_the_same_seed_gives_the_same_alarms(tmp_path: Path) -> None:
    pairs = pair_arms(load_samples(write_run(tmp_path / "r", replace(BOTH, spread=0.5, blocks=6))))
    assert count_false_alarms(pairs, 3) == count_false_alarms(pairs, 3)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1)],
)
def test_a_share_has_its_exact_interval(count: int, total: int, low: float, high: float) -> None:
    """The usual table of Clopper and Pearson's limits."""
    assert find_share_interval(count, total) == pytest.approx((low, high), abs=1e-4)


def test_the_report_says_what_noise_does(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", BOTH))
    noise = next(each for each in build_answer(results) if each.topic == "Noise")
    text = " ".join(noise.sentences)
    assert "Entered twice, `namespace` differed from itself by a ratio of" in text
    assert "Entered twice, `vm-direct`, emulated (TCG), differed from itself" in text
    assert "Of 10 comparisons of a platform with itself, none was called different" in text
    assert "of 1000 tables held a false difference" in text
    arms, alarms = build_arms(results), build_alarms(results)
    assert arms is not None
    assert alarms is not None
    assert [row.cells[0].text for row in alarms.rows] == ["0 of 10", "0 of 1000"]
    assert alarms.rows[1].cells[1].note == "0 % to 0.37 %"


def test_an_arm_of_two_blocks_tells_nothing(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", replace(BOTH, blocks=2)))
    noise = next(each for each in build_answer(results) if each.topic == "Noise")
    assert "tells nothing of the noise: only 2 blocks, 3 are needed" in noise.sentences[0]
    assert build_alarms(results) is None


def test_platforms_that_are_alike_are_rarely_called_different_in_a_whole_run(
    tmp_path: Path,
) -> None:
    """From samples.parquet to verdicts: 30 runs of four platforms that start alike.

    The host drifts by 20 % over each run, and no arm gives a noise floor. More than 6 of 30 would
    come by chance once in a thousand times if the rate were 5 %.
    """
    chance, wrong = np.random.default_rng(1), 0
    for seed in range(30):
        plan = Synthetic(("namespace", "one", "two", "three"), (), ("noop",), seed=seed, spread=0.3)
        samples = load_samples(write_run(tmp_path / str(seed), plan))
        noise = chance.lognormal(0, 0.3, len(samples))
        samples["value"] *= noise * (1 + 0.02 * samples["block"])
        found = compare_platforms(samples, "namespace", seed)
        wrong += int(not set(found["verdict"]) <= {"equivalent", "inconclusive"})
    assert wrong <= 6


def test_a_real_difference_is_found_among_them(tmp_path: Path) -> None:
    """One platform takes a fifth longer; its like are not blamed."""
    plan = Synthetic(("namespace", "one", "two", "three"), ("namespace",), ("noop",), blocks=20)
    samples = load_samples(write_run(tmp_path / "r", plan))
    slow = (samples["platform"] == "two") & (samples["metric"] == "startup.ready")
    samples.loc[slow, "value"] *= 1.2
    found = compare_platforms(samples, "namespace", 1)
    ready = found[found["metric"] == "startup.ready"].set_index("platform")["verdict"]
    assert dict(ready) == {"one": "equivalent", "two": "slower", "three": "equivalent"}
