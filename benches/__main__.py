"""`python -m benches [REPEATS]`: the figures of the README, measured here and now."""

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from benches import ROOT
from benches.calibration import measure_calibration
from benches.containers import measure_containers
from benches.engines import ENGINES, measure_engines
from benches.machines import PLATFORMS, RESTORED, measure_machines
from harness.units import format_seconds

Row = tuple[str, str, str]


def main(repeats: int) -> None:
    rows = [*_calibrate(repeats), *_compare_containers(3 * repeats), *_compare_engines(3 * repeats)]
    rows += _compare_machines(repeats)
    rows.append(_measure_help(3 * repeats))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, value, limit in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {limit}")


def _calibrate(blocks: int) -> list[Row]:
    found = measure_calibration(blocks)
    medians = {key: statistics.median(values) for key, values in found.items()}
    rows = []
    for (platform, delay), median in sorted(medians.items()):
        if not platform.startswith("vm"):
            error = format_seconds(median - delay)
            rows.append((f"{platform}: error at {delay * 1e3:.0f} ms", error, "under 1 ms"))
    for platform in sorted({platform for platform, _ in medians if platform.startswith("vm")}):
        ratio = (medians[platform, 0.2] - medians[platform, 0.02]) / 0.18
        rows.append((f"{platform}: 200 ms less 20 ms, to the truth", f"{ratio:.3f} ×", "0.95–1.05"))
    return rows


def _ratio(samples: Mapping[str, Sequence[float]], name: str, to: str) -> float:
    """Median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(samples[name], samples[to], strict=True))


def _compare_containers(repeats: int) -> list[Row]:
    samples = measure_containers(repeats)
    rows = [
        (f"{name}, whole" if name != "namespace" else "namespace to ready",
         format_seconds(statistics.median(samples[name])), "")
        for name in ("namespace", "reference", "crun")
    ]  # fmt: skip
    to_reference = _ratio(samples, "namespace", "reference")
    rows.append(("namespace to the C program", f"{to_reference:.2f} ×", "at most 2 ×"))
    to_crun = _ratio(samples, "namespace", "crun")
    return [*rows, ("namespace to crun run", f"{to_crun:.2f} ×", "below 1 ×")]


def _compare_engines(repeats: int) -> list[Row]:
    """From request to end: the harness's figure to hyperfine's of the engine's own command line.

    Docker's client is part of its command line only: its start alone is added to the harness's.
    """
    medians = {name: statistics.median(each) for name, each in measure_engines(repeats).items()}
    rows = []
    for name in (each for each in ENGINES if f"{each}.hand" in medians):
        limit = ENGINES[name]
        own, hand = medians[name], medians[f"{name}.hand"]
        client = medians.get(f"{name}.client", 0.0)
        rows.append((f"{name}: request to end", format_seconds(own), ""))
        rows.append((f"{name}: its command line, by hyperfine", format_seconds(hand), ""))
        rows += [(f"{name}: its client's start", format_seconds(client), "")] if client else []
        ratio = f"{(own + client) / hand:.3f} ×"
        rows.append((f"{name}: the one to the other", ratio, f"within {limit:.0%}"))
    return rows


def _compare_machines(repeats: int) -> list[Row]:
    samples = measure_machines(repeats)
    rows = []
    for platform in (each for each in PLATFORMS if f"{each}.total" in samples):
        for way, text in (("total", "request to init"), ("hand", "QEMU by hand to init")):
            median = statistics.median(samples[f"{platform}.{way}"])
            rows.append((f"{platform}: {text}", format_seconds(median), ""))
        ratio = _ratio(samples, f"{platform}.guest", f"{platform}.hand")
        rows.append(
            (f"{platform}: created to init, to by hand", f"{ratio:.2f} ×", "at most 1.15 ×")
        )
        whole = _ratio(samples, f"{platform}.total", f"{platform}.hand")
        rows.append((f"{platform}: request to init, to by hand", f"{whole:.2f} ×", ""))
    if f"{RESTORED}.ready" not in samples or "vm-direct.ready" not in samples:
        return rows
    restored = statistics.median(samples[f"{RESTORED}.ready"])
    rows.append((f"{RESTORED} to ready", format_seconds(restored), ""))
    ratio = _ratio(samples, "vm-direct.ready", f"{RESTORED}.ready")
    return [*rows, (f"vm-direct to {RESTORED}, ready", f"{ratio:.2f} ×", "at least 2 ×")]


def _measure_help(repeats: int) -> Row:
    return "--help", format_seconds(statistics.median(measure_help(repeats))), "under 250 ms"


def measure_help(repeats: int) -> list[float]:
    """Seconds of `python -m harness --help`."""
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        words = [sys.executable, "-m", "harness", "--help"]
        subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begin)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
