"""`memory.minimum`: one search a platform and workload, with many starts of its own."""

import pandas as pd

from harness.analysis.aggregate import SERIES

METRIC = "memory.minimum"
TOO_LITTLE = "too_little"


def list_minimum(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per search, in the columns of `aggregate.summarise`.

    The interval is no statistic: it goes from what was too little to what was enough.
    """
    rows = samples[samples["metric"] == METRIC]
    found = rows[rows["phase"] == ""][[*SERIES, "value"]]
    below = rows[rows["phase"] == TOO_LITTLE].set_index(["platform", "workload"])["value"]
    least = [
        below.get((row["platform"], row["workload"]), row["value"])
        for row in found.to_dict("records")
    ]
    return found.rename(columns={"value": "median"}).assign(
        n=1, low=least, high=found["value"], least=least, most=found["value"], marked=0, withheld=""
    )
