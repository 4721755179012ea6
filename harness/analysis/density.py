"""What one more running instance costs, from a series of running instances.

`memory.marginal` is the fall of the host's MemAvailable over the number of instances: a slope whose
interval allows for readings that depend on each other (`slopes`). `disk.marginal` is the rise of
what they take on its disk, which is counted and does not wander: the slope by Theil and Sen with
the rank interval of Sen (JASA 63, 1968).

The host's memory has other causes too. Where they may have made the slope, it is withheld: where
too many steps were disturbed, where the cost is not surely above 0, and where memory moved by as
much before the first instance. What one instance takes by its own account is `memory.pss`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.analysis.aggregate import SERIES, find_disturbances, find_refusal
from harness.analysis.arrays import Floats
from harness.analysis.slopes import Slope, find_slope
from harness.units import format_bytes

LEAST_STEPS = 4
SOURCE = "memory.available"
METRIC = "memory.marginal"
DRIFT = "memory.drift"
_CASE = ["platform", "workload", "image", "cache"]


def fit_marginal(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per metric, platform and workload with a series, in the columns of
    `aggregate.summarise`.

    ``n`` counts the steps. The row's ``instances`` is 1: it is the cost of one instance.
    """
    chosen = samples[samples["metric"].isin([DRIFT, *(each.source for each in _FITS)])]
    # no instance runs at step 0, so it has no accelerator yet
    started = chosen[chosen["instances"] > 0]
    first = started.groupby("platform", observed=True)["accelerator"].first().astype(str)
    rows = [
        _fit(series.sort_values("instances"), first, fit)
        for fit in _FITS
        for _, series in chosen.groupby(_CASE, observed=True)
    ]
    return pd.DataFrame([row for row in rows if row is not None])


def _fit(
    series: pd.DataFrame, accelerators: "pd.Series[str]", fit: "_Fit"
) -> dict[str, object] | None:
    steps = series[series["metric"] == fit.source]
    if steps["instances"].nunique() < 2:
        return None
    counts = steps["instances"].to_numpy(dtype=float)
    slope = fit.find(counts, steps["value"].to_numpy(dtype=float) * fit.sign)
    row: dict[str, object] = {name: steps[name].iloc[0] for name in SERIES}
    few = f"only {len(steps)} steps, {LEAST_STEPS} are needed"
    return {
        **row,
        "accelerator": accelerators.get(steps["platform"].iloc[0], "none"),
        "instances": 1,
        "metric": fit.metric,
        "n": len(steps),
        "median": slope.middle,
        "low": slope.low,
        "high": slope.high,
        "least": slope.low,
        "most": slope.high,
        "marked": sum(bool(find_disturbances(marks)) for marks in steps["marks"].astype(str)),
        "withheld": few if len(steps) < LEAST_STEPS else fit.refuse(slope, series),
    }


def _find_rank_slope(counts: Floats, values: Floats) -> Slope:
    from scipy import stats

    middle, _, low, high = map(float, stats.theilslopes(values, counts, 0.95))
    return Slope(middle, low, high)


# ---- when a cost in memory is none to be published -----------------------------------------------


def refuse_memory(slope: Slope, series: pd.DataFrame) -> str:
    """Why a slope of MemAvailable is no cost of an instance; empty where it may be."""
    steps = series[series["metric"] == SOURCE]
    if reason := find_refusal(list(steps["marks"].astype(str))):
        return reason.replace(" trials ", " steps ")
    if slope.middle <= 0:
        return "no cost: free memory rose with more instances, so something else moved it more"
    if slope.low <= 0:
        reach = f"its interval reaches to {format_bytes(slope.low)}"
        return f"no cost for certain: {reach} (more instances narrow it: `density`)"
    drift = find_drift(series)
    if drift >= slope.middle:
        said = f"free memory moved by {format_bytes(drift)} a step before the first instance"
        return f"less than the host's own drift ({said})"
    return ""


def find_drift(series: pd.DataFrame) -> float:
    """Bytes by which free memory moved by itself in the time of a step; 0 where it was not read, as
    in runs of older releases."""
    drift = series.loc[series["metric"] == DRIFT, "value"]
    if drift.empty:
        return 0.0
    begun = series.loc[series["metric"] == SOURCE, "started_at"]
    seconds = pd.to_datetime(begun).diff().dt.total_seconds().median()
    return float(drift.iloc[0]) * float(np.nan_to_num(seconds))


def _refuse_nothing(_slope: Slope, _series: pd.DataFrame) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class _Fit:
    """What is fitted: from which metric, whether a cost makes that rise or fall, how, and what
    withholds it."""

    metric: str
    source: str
    sign: float
    find: Callable[[Floats, Floats], Slope]
    refuse: Callable[[Slope, pd.DataFrame], str]


_FITS = (
    _Fit(METRIC, SOURCE, -1.0, find_slope, refuse_memory),
    _Fit("disk.marginal", "disk.occupied", 1.0, _find_rank_slope, _refuse_nothing),
)
