"""How often `compare` is wrong, and what it finds: simulated pairs of runs, seeded.

A run is invented as a host would make it: ten platforms and six metrics, log-normal, every trial of
a block shifted by the block's own luck, and a host that drifts by 20 % from the first block to the
last. Two of the platforms are entered twice.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.analysis.compare import compare_sides
from harness.analysis.compare_result import Comparison, Report, Terms
from harness.analysis.compare_sides import Key, Series, Side
from harness.analysis.statistics import Floats, correct_holm
from harness.analysis.two_samples import find_p_values
from harness.model import AA_SUFFIX, base_platform

METRICS = ("startup.ready", "startup.cpu", "startup.stopped", "startup.response", "memory.pss",
           "memory.host_delta")  # fmt: skip
PLATFORMS = ("process", *(f"platform-{number}" for number in range(9)))
TWICE = ("platform-0", "platform-1")
DRIFT = 0.2
PAIRS = 500
SEEN = "platform-0"
EVERY = Terms(every=True)


def build_side(
    label: str,
    chance: np.random.Generator,
    slower: Mapping[str, float] = {},
    blocks: int = 10,
    host: float = 1.0,
) -> Side:
    """One run; ``slower`` multiplies startup.ready of a platform, ``host`` all there is."""
    drift = np.linspace(-0.5, 0.5, blocks) * math.log1p(DRIFT)
    luck = chance.normal(0, 0.05, blocks)
    series: dict[Key, Series] = {}
    for platform in [*PLATFORMS, *(name + AA_SUFFIX for name in TWICE)]:
        for place, metric in enumerate(METRICS):
            noise = chance.normal(0, 0.1 + place / 50, blocks)
            values = np.exp(noise + luck + drift) * host
            if metric == "startup.ready":
                values *= slower.get(base_platform(platform), 1.0)
            series[platform, "noop", metric, ""] = Series(
                "container", "s", np.arange(blocks, dtype=float), values, ("",) * blocks
            )
    return Side(label, Path(label), label, "harness", 1, series, {})


def find_seen(report: Report) -> Comparison:
    return next(
        each
        for each in report.comparisons
        if (each.platform, each.metric) == (SEEN, "startup.ready")
    )


def test_of_500_pairs_of_alike_runs_at_most_one_in_twenty_raises_an_alarm() -> None:
    chance = np.random.default_rng(20)
    reports = [
        compare_sides(build_side("BASE", chance), build_side("NEW", chance), EVERY)
        for _ in range(PAIRS)
    ]
    assert {len(report.comparisons) for report in reports} == {60}
    assert sum(report.verdict == "regression" for report in reports) <= 0.05 * PAIRS


def test_the_corrected_test_keeps_its_level_without_threshold_and_floor() -> None:
    """Any p below 5 % in a table of 60, both ways: near 5 %, not far below it.

    With 2 000 tables, three standard errors are 1.5 %. Without the correction it is some 90 %.
    """
    chance = np.random.default_rng(21)
    tables = 2000
    logs = [chance.normal(0, 0.1, (tables * 60, 10)) for _ in range(2)]
    p_values = find_p_values(*(np.sort(each, axis=1) for each in logs))[0].reshape(tables, 60)
    corrected = np.array([correct_holm(each) for each in p_values])
    assert 0.02 * tables <= _count_any(corrected) <= 0.065 * tables
    assert _count_any(p_values) > 0.8 * tables


def _count_any(p_values: Floats) -> int:
    return int((p_values < 0.05).any(axis=1).sum())


def test_twice_the_detectable_change_is_found_in_nearly_every_pair() -> None:
    """`detectable` promises 80 % power before the correction; twice as much is to be certain."""
    chance = np.random.default_rng(22)
    found = 0
    for _ in range(100):
        base = build_side("BASE", chance)
        said = find_seen(compare_sides(base, build_side("NEW", chance), Terms())).detectable
        assert said is not None
        new = build_side("NEW", chance, {SEEN: 1 + 2 * said})
        report = compare_sides(base, new, Terms())
        found += report.verdict == "regression" and find_seen(report).verdict == "slower"
    assert found >= 90


def test_a_change_the_size_of_the_noise_is_mostly_not_called_and_never_called_equivalent() -> None:
    chance = np.random.default_rng(23)
    reports = [
        compare_sides(build_side("BASE", chance), build_side("NEW", chance, {SEEN: 1.1}), Terms())
        for _ in range(100)
    ]
    verdicts = [find_seen(report).verdict for report in reports]
    assert verdicts.count("slower") < 30
    assert verdicts.count("equivalent") == verdicts.count("faster") == 0


def test_a_host_that_slowed_down_as_a_whole_is_told_from_a_platform_that_did() -> None:
    chance = np.random.default_rng(24)
    control = Terms(relative_to="process")
    plain = relative = 0
    for _ in range(40):
        base, new = build_side("BASE", chance), build_side("NEW", chance, host=1.6)
        report = compare_sides(base, new, Terms())
        plain += report.verdict == "regression"
        assert any("the control moved" in note for note in report.notes)
        relative += compare_sides(base, new, control).verdict == "regression"
    assert plain == 40
    assert relative <= 4
    slower = build_side("NEW", chance, {SEEN: 2.0}, host=1.6)
    report = compare_sides(build_side("BASE", chance), slower, control)
    assert [each.platform for each in report.regressions] == [SEEN]
