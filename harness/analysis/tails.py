"""How long a start takes at worst: p50, p95 and p99 over blocks, and their ratios.

A quantile's interval comes from ranks (`quantiles`), and is refused with its reason where the run
has too few blocks. The ratio of two platforms' quantiles is no quantile of their ratios, so its
interval is a bootstrap that draws whole blocks, which keeps the two paired. At the block counts
that are not refused, it held the true ratio in 94 to 98 % of 300 simulated runs.
"""

from collections.abc import Collection, Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.analysis.aggregate import SERIES, find_refusals, reduce_to_blocks
from harness.analysis.arrays import Floats, Integers, iterate_rows
from harness.analysis.pairs import merge_references, select_headlines
from harness.analysis.quantiles import CONFIDENCE, find_quantile_interval, find_quantile_refusal
from harness.analysis.results import Figure, Results, find_seed
from harness.analysis.statistics import RESAMPLES
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import (
    ABSENT,
    describe_platform,
    format_number,
    quote,
    shorten_reason,
    split_figure,
)
from harness.model import AA_SUFFIX

TAILS = (0.95, 0.99)
SHARES = (0.5, *TAILS)
METRICS = ("startup.ready", "startup.response")
_KEYS = ["platform", "workload", "metric"]
_CELLS = 4_000_000

Counts = NDArray[np.signedinteger[Any]]
"""As narrow as the number of blocks allows, which no count exceeds."""


def summarise_quantiles(samples: pd.DataFrame, metrics: Collection[str]) -> pd.DataFrame:
    """One row per series of ``metrics`` and share: the columns of SERIES, then

    ``share`` (0.5, 0.95 or 0.99), ``n`` (blocks), ``value``, ``low``, ``high`` (95 % interval) and
    ``withheld`` (why there is none; then the three are NaN).
    """
    wanted = samples["metric"].isin(list(metrics)) & (samples["phase"] == "")
    blocks = reduce_to_blocks(samples[wanted & (samples["instances"] == 1)])
    keys = blocks.groupby(SERIES, observed=True, sort=True)
    groups = np.asarray(keys.ngroup(), dtype=np.int64)
    table = keys.size().rename("n").reset_index()
    values = blocks["value"].to_numpy(dtype=float)
    refusals = find_refusals(
        blocks["marks"].astype(str).to_numpy(), blocks["disturbed"].to_numpy(), groups, len(table)
    )
    parts = []
    for share in SHARES:
        found = np.full((3, len(table)), np.nan)
        for part, rows in iterate_rows(values, groups, len(table), lambda size: 2 * size):
            if not find_quantile_refusal(rows.shape[1], share):
                low, high = find_quantile_interval(np.sort(rows, axis=1), share)
                found[:, part] = np.quantile(rows, share, axis=1), low, high
        reasons = [
            find_quantile_refusal(size, share) or disturbed
            for size, disturbed in zip(table["n"].tolist(), refusals, strict=True)
        ]
        columns = dict(zip(("value", "low", "high"), found, strict=True))
        parts.append(table.assign(share=share, **columns, withheld=reasons))
    return pd.concat(parts, ignore_index=True)


def compare_quantiles(
    samples: pd.DataFrame, reference: str, seed: int, metrics: Collection[str]
) -> pd.DataFrame:
    """Quantiles of every platform over those of ``reference``, from blocks that both have.

    Columns: ``platform``, ``workload``, ``metric``, ``share``, ``n`` (pairs), ``ratio``, ``low``,
    ``high`` and ``withheld``. Nothing but values above zero has a ratio.
    """
    pairs = merge_references(select_headlines(samples, metrics), lambda _: reference)
    names = pairs["platform"].astype(str)
    pairs = pairs[(names != reference) & ~names.str.endswith(AA_SUFFIX)]
    rows = []
    for key, found in pairs.groupby(_KEYS, observed=True, sort=True):
        one, other = (found[name].to_numpy(float) for name in ("value", "value_reference"))
        for share in SHARES:
            refusal = find_quantile_refusal(len(one), share)
            if min(one.min(), other.min()) <= 0:
                refusal = "a value is not above zero: no ratio"
            ends = (np.nan,) * 3 if refusal else divide_quantiles(one, other, share, seed)
            rows.append((*key, share, len(one), *ends, refusal))
    return pd.DataFrame(rows, columns=[*_KEYS, "share", "n", "ratio", "low", "high", "withheld"])


def divide_quantiles(
    one: Floats, other: Floats, share: float, seed: int
) -> tuple[float, float, float]:
    """The ratio of the quantile ``share`` of ``one`` to that of ``other``, with its 95 % interval.

    Both have one value per block, in the same order. Paired block bootstrap over 10 000 resamples,
    percentile interval.
    """
    size = len(one)
    step = max(1, _CELLS // size)
    ratios = []
    for first in range(0, RESAMPLES, step):
        drawn = (min(step, RESAMPLES - first), seed, first)
        above, below = (_find_quantiles(each, share, drawn) for each in (one, other))
        ratios.append(above / below)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(ratios), (tail, 1 - tail))
    ratio = np.quantile(one, share) / np.quantile(other, share)
    return float(ratio), float(min(low, ratio)), float(max(high, ratio))


@lru_cache(maxsize=1)
def _count_draws(size: int, resamples: int, seed: int, first: int) -> Counts:
    """How often each of ``size`` blocks is drawn by each resample (size × resamples).

    Every comparison of a run draws the same blocks, so they are drawn once.
    """
    drawn = np.random.default_rng((seed, size, first)).integers(0, size, (resamples, size))
    places = drawn * resamples + np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=size * resamples).reshape(size, resamples)
    narrow: Counts = counts.astype(np.int16 if size < 2**15 else np.int32)
    return narrow


def _find_quantiles(values: Floats, share: float, drawn: tuple[int, int, int]) -> Floats:
    """The quantile ``share`` of each resample, as numpy has it, without sorting each of them.

    Going up the sorted values, the value at a place is the first whose counts sum to more than it.
    """
    order, risen = _count_up(values.tobytes(), drawn)
    last = len(values) - 1
    low = int(share * last)
    below, above = (
        values[order[(risen <= place).sum(axis=0)]] for place in (low, min(low + 1, last))
    )
    found: Floats = below + (share * last - low) * (above - below)
    return found


@lru_cache(maxsize=2)
def _count_up(values: bytes, drawn: tuple[int, int, int]) -> tuple[Integers, Counts]:
    """The order of ``values``, and how many up to each of them every resample holds.

    It is the same for all shares of one comparison.
    """
    order = np.argsort(np.frombuffer(values), kind="stable").astype(np.int64)
    counts = _count_draws(len(order), *drawn)
    risen: Counts = np.cumsum(counts[order], axis=0, dtype=counts.dtype)
    return order, risen


def build_tails(results: Results) -> Table | None:
    """Quantiles of starts with their ratios to the reference; None where p95 is refused to all."""
    found = summarise_quantiles(results.samples, METRICS)
    if results.reference is None or not (found["withheld"].eq("") & (found["share"] > 0.5)).any():
        return None
    compared = compare_quantiles(
        results.samples, results.reference, find_seed(results.manifest), METRICS
    )
    keys = [*_KEYS, "share"]
    ratios = {tuple(row[name] for name in keys): row for row in compared.to_dict("records")}
    cells = {
        tuple(row[name] for name in keys): _build_cell(row, ratios.get(tuple(row[n] for n in keys)))
        for row in found.to_dict("records")
    }
    rows = tuple(
        Row(
            describe_platform(results, platform, quoted=True),
            (
                Cell(quote(workload)),
                Cell(quote(metric)),
                *(cells.get((platform, workload, metric, share), Cell(ABSENT)) for share in SHARES),
            ),
            platform,
        )
        for workload in results.workloads
        for metric in METRICS
        for platform in results.first_arms
        if (platform, workload, metric, SHARES[0]) in cells
    )
    heads = (f"p{share * 100:.0f}" for share in SHARES)
    caption = f"How long at worst: quantiles over blocks, and their ratios to {results.reference}"
    return Table(caption, ("platform", "workload", "metric", *heads), rows)


def _build_cell(row: Mapping[Hashable, Any], ratio: Mapping[Hashable, Any] | None) -> Cell:
    if row["withheld"]:
        return Cell("withheld", shorten_reason(str(row["withheld"])), "doubt")
    figure = Figure(*(row[name] for name in ("n", "value", "low", "high", "unit")))
    text, interval = split_figure(figure)
    if ratio is None or ratio["withheld"]:
        return Cell(text, interval)
    shown = [format_number(ratio[name]) for name in ("ratio", "low", "high")]
    return Cell(text, f"{interval}; {shown[0]} × ({shown[1]}–{shown[2]})".removeprefix("; "))
