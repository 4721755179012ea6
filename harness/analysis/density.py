"""What one more running instance costs, from a series of running instances.

`memory.marginal` is the fall of the host's MemAvailable over the number of instances, and
`disk.marginal` the rise of what they take on its disk: the slope by Theil and Sen, which is the
median of the slopes of all pairs of steps, with the rank interval of Sen (JASA 63, 1968).
"""

import pandas as pd

from harness.analysis.aggregate import SERIES

LEAST_STEPS = 4
SOURCE = "memory.available"
METRIC = "memory.marginal"
_CASE = ["platform", "workload", "image", "cache"]
SLOPES = {METRIC: (SOURCE, -1.0), "disk.marginal": ("disk.occupied", 1.0)}
"""What is fitted: from which metric, and whether a cost makes that rise or fall."""


def fit_marginal(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per metric, platform and workload with a series, in the columns of
    `aggregate.summarise`.

    ``n`` counts the steps. The row's ``instances`` is 1: it is the cost of one instance.
    """
    rows = []
    for metric, (source, sign) in SLOPES.items():
        steps = samples[samples["metric"] == source].copy()
        # no instance runs at step 0, so it has no accelerator yet
        started = steps.loc[steps["instances"] > 0]
        first = started.groupby("platform", observed=True)["accelerator"].first().astype(str)
        rows += [
            _fit(series, first, metric, sign)
            for _, series in steps.groupby(
                ["platform", "workload", "image", "cache"], observed=True
            )
        ]
    return pd.DataFrame([row for row in rows if row is not None])


def _fit(
    series: pd.DataFrame, accelerators: "pd.Series[str]", metric: str, sign: float
) -> dict[str, object] | None:
    from scipy import stats

    if series["instances"].nunique() < 2:
        return None
    cost = series["value"] * sign
    slope, _, low, high = map(float, stats.theilslopes(cost, series["instances"], 0.95))
    row: dict[str, object] = {name: series[name].iloc[0] for name in SERIES}
    few = len(series) < LEAST_STEPS
    return {
        **row,
        "accelerator": accelerators.get(series["platform"].iloc[0], "none"),
        "instances": 1,
        "metric": metric,
        "n": len(series),
        "median": slope,
        "low": low,
        "high": high,
        "least": low,
        "most": high,
        "marked": 0,
        "withheld": f"only {len(series)} steps, {LEAST_STEPS} are needed" if few else "",
    }
