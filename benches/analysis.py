"""`python -m benches.analysis`: a million samples, from samples.parquet to the table of verdicts.

20 platforms × 10 workloads × 50 metrics × 100 blocks: medians with their intervals and 10 000
bootstrap resamples of each, ratios to a reference with tests, shifts, corrections and verdicts. It
runs in a process of its own, whose whole time and peak memory count. Beside it stands what a loop
of `scipy.stats.bootstrap` over the same groups takes, extrapolated from a few of them.
"""

import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benches import ROOT
from harness.analysis.aggregate import load_samples, summarise
from harness.analysis.ratios import compare_platforms
from harness.analysis.statistics import RESAMPLES
from harness.model import AA_SUFFIX, SAMPLE_COLUMNS
from harness.store.names import SAMPLES
from harness.units import format_bytes, format_seconds

PLATFORMS, WORKLOADS, METRICS, BLOCKS = 20, 10, 50, 100
LOOPED = 30
"""Groups that scipy's loop is timed on."""

_NAMES = [f"metric.{number:02}" for number in range(METRICS)]
_REFERENCE = "platform-00"


def measure_analysis(
    blocks: int = BLOCKS, workloads: int = WORKLOADS, looped: int = LOOPED
) -> Mapping[str, float]:
    """``samples``, ``seconds`` and ``peak_bytes`` of the child, ``comparisons``, and
    ``loop_seconds``: scipy's loop, extrapolated to all groups and ratios.
    """
    with tempfile.TemporaryDirectory() as name:
        samples = write_samples(Path(name), blocks, workloads)
        begin = time.perf_counter()
        words = [sys.executable, "-m", "benches.analysis", name]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        told = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words)
    series, comparisons = map(int, told.split())
    per_group = time_loop(blocks, looped)
    return {
        "samples": samples,
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024.0,
        "series": series,
        "comparisons": comparisons,
        "loop_seconds": per_group * (series + comparisons),
    }


def write_samples(folder: Path, blocks: int, workloads: int) -> int:
    """Write invented samples, the last platform a second arm of the first; their number."""
    chance = np.random.default_rng(1)
    platforms = [f"platform-{number:02}" for number in range(PLATFORMS - 1)]
    platforms.append(_REFERENCE + AA_SUFFIX)
    shape = (blocks, PLATFORMS, workloads, METRICS)
    block, platform, workload, metric = (each.ravel() for each in np.indices(shape))
    level = 1 + 0.1 * (platform % (PLATFORMS - 1)) + 0.2 * block / blocks
    words = {
        "platform": np.array(platforms)[platform],
        "workload": np.array([f"load-{number}" for number in range(workloads)])[workload],
        "metric": np.array(_NAMES)[metric],
        "value": level * chance.lognormal(0, 0.05, len(block)),
    }
    fixed = {
        "run_id": "r", "host": "h", "kind": "container", "accelerator": "none", "image": "tiny",
        "cache": "warm", "instances": 1, "phase": "", "unit": "s", "warmup": False, "marks": [],
        "started_at": datetime.datetime(2025, 3, 14, tzinfo=datetime.UTC),
    }  # fmt: skip
    trial = (block * PLATFORMS + platform) * workloads + workload
    numbers = {"block": block, "trial": trial, "order": trial}
    _write({**fixed, **words, **numbers}, len(block), folder / SAMPLES)
    return len(block)


def _write(columns: Mapping[str, object], length: int, path: Path) -> None:
    """One value stands for a whole column of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"marks": pa.list_(pa.string())}
    arrays = [
        pa.array(each) if isinstance(each, np.ndarray)
        else pa.repeat(pa.scalar(each, types.get(name)), length)
        for name, each in ((name, columns[name]) for name in SAMPLE_COLUMNS)
    ]  # fmt: skip
    pq.write_table(pa.table(arrays, names=list(SAMPLE_COLUMNS)), path, compression="zstd")


def analyse(folder: Path) -> tuple[int, int]:
    """What is measured: every series and every comparison; how many there were of each."""
    samples = load_samples(folder)
    summary = summarise(samples, seed=1)
    ratios = compare_platforms(samples, _REFERENCE, seed=1, metrics=_NAMES)
    assert summary["bootstrap_low"].notna().all()
    assert ratios["verdict"].ne("").all()
    return len(summary), len(ratios)


def time_loop(blocks: int, groups: int) -> float:
    """Seconds that `scipy.stats.bootstrap` takes for the median of one group of ``blocks``."""
    from scipy import stats

    values = np.random.default_rng(2).lognormal(size=(groups, blocks))
    begin = time.perf_counter()
    for row in values:
        stats.bootstrap((row,), np.median, n_resamples=RESAMPLES, method="percentile")
    return (time.perf_counter() - begin) / groups


def main() -> None:
    found = measure_analysis()
    loop, seconds = found["loop_seconds"], found["seconds"]
    groups = found["series"] + found["comparisons"]
    rows = [
        (f"{found['samples']:.0f} samples to {found['series']:.0f} medians and "
         f"{found['comparisons']:.0f} verdicts", format_seconds(seconds), "under 20 s"),
        ("its peak memory", format_bytes(found["peak_bytes"]), "under 2 GiB"),
        (f"a loop of scipy.stats.bootstrap, from {LOOPED} of {groups:.0f} groups",
         format_seconds(loop), ""),
        ("the loop to ours", f"{loop / seconds:.0f} ×", "at least 10 ×"),
    ]  # fmt: skip
    width = max(len(name) for name, _, _ in rows)
    for name, value, limit in rows:
        print(f"{name:{width}}  {value:>8}  {limit}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*analyse(Path(sys.argv[1])))
    else:
        main()
