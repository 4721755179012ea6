"""`memory.marginal`: what one more running instance costs, from a series of running instances.

The slope of the host's MemAvailable over the number of instances, by Theil and Sen: the median of
the slopes of all pairs of steps, with the rank interval of Sen (JASA 63, 1968).
"""

import pandas as pd

from harness.analysis.aggregate import SERIES

LEAST_STEPS = 4
SOURCE = "memory.available"
METRIC = "memory.marginal"


def fit_marginal(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per platform and workload with a series, in the columns of `aggregate.summarise`.

    ``n`` counts the steps. The row's ``instances`` is 1: it is the cost of one instance.
    """
    steps = samples[samples["metric"] == SOURCE].copy()
    # no instance runs at step 0, so it has no accelerator yet
    names = steps.loc[steps["instances"] > 0].groupby("platform", observed=True)["accelerator"]
    first = names.first().astype(str)
    rows = [
        _fit(series, first)
        for _, series in steps.groupby(["platform", "workload", "image", "cache"], observed=True)
    ]
    return pd.DataFrame([row for row in rows if row is not None])


def _fit(series: pd.DataFrame, accelerators: "pd.Series[str]") -> dict[str, object] | None:
    from scipy import stats

    if series["instances"].nunique() < 2:
        return None
    slope, _, low, high = stats.theilslopes(series["value"], series["instances"], 0.95)
    row: dict[str, object] = {name: series[name].iloc[0] for name in SERIES}
    few = len(series) < LEAST_STEPS
    return {
        **row,
        "accelerator": accelerators.get(series["platform"].iloc[0], "none"),
        "instances": 1,
        "metric": METRIC,
        "n": len(series),
        "median": -float(slope),
        "low": -float(high),
        "high": -float(low),
        "least": -float(high),
        "most": -float(low),
        "marked": 0,
        "withheld": f"only {len(series)} steps, {LEAST_STEPS} are needed" if few else "",
    }
