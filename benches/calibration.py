"""How true are the reported times? Workloads that sleep a known time, measured as users do."""

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benches import ROOT
from benches.available import list_available
from harness.store import read_journal

DELAYS = {"calibration-0": 0.0, "calibration-20": 0.020, "calibration-200": 0.200}
PLATFORMS = ("process", "namespace", "vm-microvm")


def measure_calibration(blocks: int = 10) -> Mapping[tuple[str, float], Sequence[float]]:
    """Reported seconds from `exec` to `ready`, by (platform, true delay in seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        plan = Path(folder) / "plan.toml"
        plan.write_text(
            f"platforms = {list_available(PLATFORMS)}\nworkloads = {list(DELAYS)}\n"
            f"blocks = {blocks}\nseed = 1\naa = []\ndensity = 0\n"
        )
        words = [sys.executable, "-m", "harness", "run", str(plan), "--out", str(out)]
        subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        outcomes = read_journal(out / "journal.jsonl")
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for outcome in outcomes:
        for row in outcome.measurements:
            if (row.metric, row.phase) == ("startup.phase", "ready") and not outcome.warmup:
                found[outcome.platform, DELAYS[outcome.workload]].append(row.value)
    return found
