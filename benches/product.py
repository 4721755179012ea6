"""One run of the harness by its own command line, and what its samples say."""

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benches import ROOT
from benches.available import list_available

CONTAINER = "namespace"
MACHINES = ("vm-direct", "vm-microvm", "vm-restore")
PLATFORMS = ("process", CONTAINER, "crun", "podman", *MACHINES)

Values = Mapping[int, float]
"""By block."""


def measure_product(
    blocks: int, platforms: tuple[str, ...] = PLATFORMS
) -> Mapping[tuple[str, str], Values]:
    """The values of each metric without a phase, and of bytes to ship in the smallest form.

    Raises CalledProcessError where the run fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [sys.executable, "-m", "harness", "run", "--workload", "noop"]
        words += ["--blocks", str(blocks), "--seed", "1", "--out", str(out)]
        words += [word for name in list_available(platforms) for word in ("--platform", name)]
        subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return read_values(out / "samples.parquet")


def read_values(path: Path) -> Mapping[tuple[str, str], Values]:
    """By platform and metric, the value of each block."""
    import pyarrow.parquet as pq

    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    columns = ["platform", "metric", "phase", "block", "instances", "warmup", "value"]
    for row in pq.read_table(path, columns=columns).to_pylist():
        shipped = row["metric"] == "portability.first"
        if row["warmup"] or row["instances"] != 1 or (row["phase"] and not shipped):
            continue
        values = found[row["platform"], row["metric"]]
        known = values.get(row["block"], row["value"])
        values[row["block"]] = min(known, row["value"]) if shipped else row["value"]
    return dict(found)
