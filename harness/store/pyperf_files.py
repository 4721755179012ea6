"""pyperf suites: a projection of the journal that `python -m pyperf` reads.

One file per platform and workload, one benchmark per headline metric in seconds or bytes, one
pyperf run per trial (a fresh start is the unit of replication). Three habits of pyperf shape it:
it merges runs that differ only in metadata, so metric, platform, workload and cache state stand
in the benchmark's name; it refuses values of zero, so a benchmark with one is left out as a whole
rather than bent; it knows the units second and byte only. samples.parquet is the whole truth.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.metrics import METRICS
from harness.model import Outcome
from harness.store.journal import read_journal
from harness.store.names import JOURNAL, safe_name, sync_folder

if TYPE_CHECKING:
    import pyperf

_UNITS = {"s": "second", "B": "byte"}

Trials = list[tuple[Outcome, float]]


def write_pyperf(folder: Path) -> list[Path]:
    """Write ``pyperf/<platform>.<workload>.json`` from the journal in ``folder``; their paths."""
    target = folder / "pyperf"
    written = []
    for (platform, workload), benchmarks in _group(read_journal(folder / JOURNAL)).items():
        suite = _build_suite(benchmarks)
        if suite is None:
            continue
        target.mkdir(exist_ok=True)
        path = target / f"{safe_name(platform)}.{safe_name(workload)}.json"
        new = path.with_name(f".{path.name}.new")
        suite.dump(str(new), replace=True)
        new.replace(path)
        written.append(path)
    if written:
        sync_folder(target)
    return written


def benchmark_name(metric: str, outcome: Outcome) -> str:
    """What pyperf calls a benchmark: ``startup.ready[namespace,noop,warm]``."""
    return f"{metric}[{outcome.platform},{outcome.workload},{outcome.cache}]"


def _group(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], dict[str, Trials]]:
    """Trials with their value, by platform and workload, then by benchmark name."""
    files: dict[tuple[str, str], dict[str, Trials]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        if outcome.status != "ok" or outcome.warmup or outcome.instances != 1:
            continue
        benchmarks = files[outcome.platform, outcome.workload]
        for row in outcome.measurements:
            metric = METRICS.get(row.metric)
            if metric and metric.headline and metric.unit in _UNITS and not row.phase:
                benchmarks[benchmark_name(row.metric, outcome)].append((outcome, row.value))
    return files


def _build_suite(benchmarks: Mapping[str, Trials]) -> "pyperf.BenchmarkSuite | None":
    import pyperf

    usable = {
        name: trials for name, trials in benchmarks.items() if all(value > 0 for _, value in trials)
    }
    if not usable:
        return None
    return pyperf.BenchmarkSuite(
        [pyperf.Benchmark(_build_runs(name, trials)) for name, trials in sorted(usable.items())]
    )


def _build_runs(name: str, trials: Trials) -> "list[pyperf.Run]":
    import pyperf

    unit = _UNITS[METRICS[name.partition("[")[0]].unit]
    return [
        pyperf.Run(
            [value],
            metadata={"name": name, "unit": unit, **_build_metadata(outcome)},
            collect_metadata=False,
        )
        for outcome, value in trials
    ]


def _build_metadata(outcome: Outcome) -> dict[str, str | int]:
    metadata: dict[str, str | int] = {
        "platform": outcome.platform,
        "workload": outcome.workload,
        "cache": outcome.cache,
        "accelerator": outcome.accelerator,
        "image": outcome.image,
        "block": outcome.block,
        "trial": outcome.trial,
    }
    if outcome.marks:
        metadata["marks"] = " ".join(outcome.marks)
    return metadata
