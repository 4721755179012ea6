"""pyperf suites: a projection of the journal that `python -m pyperf` reads.

One file per platform and workload, one benchmark per headline metric in seconds or bytes, one
pyperf run per trial (a fresh start is the unit of replication). Three habits of pyperf shape it:
it merges runs that differ only in metadata, so metric, platform, workload and cache state stand
in the benchmark's name; it refuses values of zero, so a benchmark with one is left out as a whole
rather than bent; it knows the units second and byte only. samples.parquet is the whole truth.

The trials of warm-up blocks are the warm-up values of the first run: they came before all values
and do not count. Metadata has pyperf's names where it has one (`hostname`, `cpu_model_name`,
`cpu_count`, `python_version`, `load_avg_1min`, `date`, `duration`); `platform` is a platform of
the harness. What a run does not know is left out, as pyperf takes no None.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.metrics import METRICS
from harness.model import Outcome
from harness.store.folder import read_manifest
from harness.store.journal import read_journal
from harness.store.names import JOURNAL, MANIFEST, safe_name, sync_folder
from harness.store.sandboxes import complete_outcomes

if TYPE_CHECKING:
    import pyperf

_UNITS = {"s": "second", "B": "byte"}

Trials = list[tuple[Outcome, float]]
Metadata = Mapping[str, object]


def write_pyperf(folder: Path) -> list[Path]:
    """Write ``pyperf/<platform>.<workload>.json`` from the journal in ``folder``; their paths."""
    target = folder / "pyperf"
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else {}
    written = []
    outcomes = complete_outcomes(read_journal(folder / JOURNAL), manifest)
    for (platform, workload), benchmarks in _group(outcomes).items():
        suite = _build_suite(benchmarks, build_common(manifest, _find_kind(benchmarks)))
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


def build_common(manifest: Mapping[str, object], kind: str) -> Metadata:
    """Metadata that a platform's trials share, as far as the manifest tells it."""
    kernel = _get_mapping(manifest, "guest_kernel") if kind == "vm" else {}
    host, tools = _get_mapping(manifest, "host"), _get_mapping(manifest, "tools")
    return _keep_known(
        {
            "host": host.get("name"),
            "hostname": host.get("name"),
            "cpu_model_name": host.get("cpu"),
            "cpu_count": host.get("cpus"),
            "kernel": host.get("kernel"),
            "os": host.get("os"),
            "hypervisor": host.get("hypervisor"),
            "load_avg_1min": host.get("load"),
            "guest_kernel": kernel.get("release"),
            "python_version": tools.get("python"),
            "harness_version": manifest.get("harness_version"),
            "run_id": manifest.get("run_id"),
        }
    )


def _find_kind(benchmarks: Mapping[str, Trials]) -> str:
    return next(iter({outcome.kind for trials in benchmarks.values() for outcome, _ in trials}), "")


def _get_mapping(manifest: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = manifest.get(key)
    return found if isinstance(found, Mapping) else {}


def _keep_known(metadata: Mapping[str, object]) -> Metadata:
    """Only what pyperf takes: numbers, and texts that are not empty."""
    return {
        name: " ".join(value.split()) if isinstance(value, str) else value
        for name, value in metadata.items()
        if (isinstance(value, int | float) and not isinstance(value, bool))
        or (isinstance(value, str) and value.strip())
    }


def _group(outcomes: Iterable[Outcome]) -> dict[tuple[str, str], dict[str, Trials]]:
    """Trials with their value, by platform and workload, then by benchmark name."""
    files: dict[tuple[str, str], dict[str, Trials]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        if outcome.status != "ok" or outcome.instances != 1:
            continue
        benchmarks = files[outcome.platform, outcome.workload]
        for row in outcome.measurements:
            metric = METRICS.get(row.metric)
            if metric and metric.headline and metric.unit in _UNITS and not row.phase:
                benchmarks[benchmark_name(row.metric, outcome)].append((outcome, row.value))
    return files


def _build_suite(
    benchmarks: Mapping[str, Trials], common: Metadata
) -> "pyperf.BenchmarkSuite | None":
    import pyperf

    usable = {
        name: trials
        for name, trials in benchmarks.items()
        if all(value > 0 for outcome, value in trials if not outcome.warmup)
        and not all(outcome.warmup for outcome, _ in trials)
    }
    if not usable:
        return None
    return pyperf.BenchmarkSuite(
        [pyperf.Benchmark(_build_runs(name, usable[name], common)) for name in sorted(usable)]
    )


def _build_runs(name: str, trials: Trials, common: Metadata) -> "list[pyperf.Run]":
    import pyperf

    unit = _UNITS[METRICS[name.partition("[")[0]].unit]
    warmups = [(1, value) for outcome, value in trials if outcome.warmup and value >= 0]
    counted = [(outcome, value) for outcome, value in trials if not outcome.warmup]
    return [
        pyperf.Run(
            [value],
            warmups=warmups if number == 0 else None,
            metadata={"name": name, "unit": unit, **common, **_build_metadata(outcome)},
            collect_metadata=False,
        )
        for number, (outcome, value) in enumerate(counted)
    ]


def _build_metadata(outcome: Outcome) -> Metadata:
    return _keep_known(
        {
            "platform": outcome.platform,
            "kind": outcome.kind,
            "workload": outcome.workload,
            "cache": outcome.cache,
            "accelerator": outcome.accelerator,
            "image": outcome.image,
            "block": outcome.block,
            "trial": outcome.trial,
            "marks": " ".join(outcome.marks),
            "date": _format_date(outcome.started_at),
            "duration": _find_duration(outcome),
        }
    )


def _format_date(instant: str) -> str | None:
    """The time of a start as pyperf writes dates: without a zone, here in UTC."""
    try:
        found = datetime.datetime.fromisoformat(instant)
    except ValueError:
        return None
    if found.tzinfo is not None:
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return found.isoformat(sep=" ")


def _find_duration(outcome: Outcome) -> float | None:
    """Seconds from the request to the last milestone."""
    stamps = outcome.milestones.values()
    return (max(stamps) - min(stamps)) / 1e9 if stamps else None
