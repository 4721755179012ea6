"""Whether 95 % means 95 %, and whether noise alone is called a difference: by simulation.

Every bound is the one that was promised (93 to 97 %, at most 5 %); so many runs are simulated that
chance cannot carry a right method over it: 20 000 runs know a coverage to 0.3 % (two standard
errors). One test makes sure that an interval a tenth too narrow would be caught.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from harness.analysis.arrays import Floats
from harness.analysis.noise_floor import find_differences
from harness.analysis.statistics import Summaries, bootstrap_groups, summarise_groups
from tests.unit.test_statistics import number

RUNS = 20_000
BLOCKS = (10, 20, 50)
DRIFT = 0.2

Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
"""Noise on the logarithm: runs × … × blocks."""


def spread(width: float) -> Draw:
    return lambda chance, shape: chance.normal(0, width, shape)


def modes(slow: float, gap: float, width: float) -> Draw:
    """A share of ``slow`` starts that take ``gap`` longer."""

    def draw(chance: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        late = chance.random(shape) < slow
        return np.where(late, np.log1p(gap), 0.0) + chance.normal(0, width, shape)

    return draw


NOISE: Mapping[str, Draw] = {
    "log-normal, quiet": spread(0.03),
    "log-normal": spread(0.3),
    "log-normal, wild": spread(1.0),
    "bimodal": modes(0.3, 0.3, 0.05),
    "bimodal, rarely slow": modes(0.1, 1.0, 0.03),
    "bimodal, half and half": modes(0.5, 0.3, 0.1),
}

DRIFTING: Mapping[str, Draw] = {
    "nearly without noise": spread(0.01),
    "quiet": spread(0.03),
    "some noise": spread(0.05),
    "noise like the drift": spread(0.1),
    "noisy": spread(0.3),
    "bimodal": modes(0.3, 0.3, 0.05),
}


def simulate(draw: Draw, blocks: int, drift: float = 0.0, runs: int = RUNS) -> Floats:
    """Values of runs × blocks; the level rises by the share ``drift`` over the run."""
    chance = np.random.default_rng(blocks)
    return build_levels(blocks, drift) * np.exp(draw(chance, (runs, blocks)))


def build_levels(blocks: int, drift: float) -> Floats:
    return np.linspace(1.0, 1.0 + drift, blocks)


def find_truth(draw: Draw, blocks: int, drift: float = 0.0) -> float:
    """The median over the run's blocks: of many values of each block, all together."""
    noise = np.sort(draw(np.random.default_rng(99), (1_000_000,)))
    levels = np.log(build_levels(blocks, drift))

    def miss(value: float) -> float:
        return float(np.mean(np.searchsorted(noise, value - levels)) / len(noise) - 0.5)

    return float(np.exp(optimize.brentq(miss, -5, 5)))


def summarise(values: Floats) -> Summaries:
    blocks = np.tile(np.arange(values.shape[1]), len(values))
    return summarise_groups(*number(values), blocks)


def cover(found: Summaries, truth: float) -> float:
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("name", NOISE)
def test_intervals_hold_the_median_in_95_of_100_runs(name: str, blocks: int) -> None:
    found = summarise(simulate(NOISE[name], blocks))
    assert 0.93 <= cover(found, find_truth(NOISE[name], blocks)) <= 0.97


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("name", DRIFTING)
def test_intervals_hold_the_median_of_a_run_that_drifts(name: str, blocks: int) -> None:
    found = summarise(simulate(DRIFTING[name], blocks, DRIFT))
    assert 0.93 <= cover(found, find_truth(DRIFTING[name], blocks, DRIFT)) <= 0.97


@pytest.mark.parametrize("drift", [0.0, DRIFT])
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("name", NOISE)
def test_intervals_hold_the_ratio_in_95_of_100_runs(name: str, blocks: int, drift: float) -> None:
    """Both arms drift with the host; one is three times as slow."""
    chance = np.random.default_rng(blocks)
    level = np.log(build_levels(blocks, drift))
    arms = [level + NOISE[name](chance, (RUNS, blocks)) for _ in range(2)]
    found = summarise(np.log(3.0) + arms[0] - arms[1])
    assert 0.93 <= cover(found, np.log(3.0)) <= 0.97


SHARP = 0.944
"""What the interval of log-normal noise, the simplest case, must reach: it is at 95 to 95.2 %."""


@pytest.mark.parametrize("blocks", BLOCKS)
def test_an_interval_one_tenth_too_narrow_would_be_noticed(blocks: int) -> None:
    found = summarise(simulate(spread(0.03), blocks))
    narrow = replace(
        found,
        low=found.median - 0.9 * (found.median - found.low),
        high=found.median + 0.9 * (found.high - found.median),
    )
    assert cover(narrow, 1.0) < SHARP <= cover(found, 1.0)


def test_the_percentile_bootstrap_falls_short_with_few_blocks() -> None:
    """Why it is not what the report shows."""
    values = simulate(NOISE["bimodal"], 10, runs=4000)
    low, high = bootstrap_groups(*number(values), 1)
    truth = find_truth(NOISE["bimodal"], 10)
    assert np.mean((low <= truth) & (truth <= high)) < 0.935


def test_two_equal_modes_far_apart_are_covered_by_steps() -> None:
    """The limit that the documentation names: no interval by rank does better at ten blocks."""
    draw = modes(0.5, 3.0, 0.02)
    found = summarise(simulate(draw, 10))
    narrow, wide = (1 - 2 * stats.binom.cdf(count, 10, 0.5) for count in (2, 1))
    assert narrow - 0.01 < cover(found, 2.0) < wide + 0.01


TABLES = {10: 1500, 20: 1000, 50: 600}
COMPARED = 60


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("name", NOISE)
def test_at_most_5_of_100_tables_hold_a_false_difference(name: str, blocks: int) -> None:
    """A platform against itself, 60 times over, on a host that drifts by 20 % over the run.

    Without a noise floor, which would only make false differences rarer. The bound allows for what
    so few tables can know: 5 % would be passed by chance once in a thousand times.
    """
    tables = TABLES[blocks]
    chance = np.random.default_rng(blocks)
    shape = (tables, COMPARED, blocks)
    level = np.log(build_levels(blocks, DRIFT))
    values = [np.exp(level + NOISE[name](chance, shape)) for _ in range(2)]
    logs = np.log(values[0] / values[1]).reshape(-1, blocks)
    order = np.tile(np.arange(blocks), len(logs))
    found = find_differences(*number(logs)[:2], order, tables, COMPARED)
    assert found.any(axis=1).sum() <= stats.binom.ppf(0.999, tables, 0.05)
