"""samples.parquet: the tidy samples (METRICS), a projection of the journal and the manifest.

One row per measurement of every trial that succeeded. A failed trial has no rows, because a
missing value is never a number; its evidence stays in the journal. The same journal gives the
same bytes.
"""

import datetime
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.metrics import METRICS
from harness.model import SAMPLE_COLUMNS, Outcome
from harness.store.folder import read_manifest
from harness.store.journal import read_journal
from harness.store.names import JOURNAL, SAMPLES, write_atomically
from harness.store.sandboxes import complete_outcomes

if TYPE_CHECKING:
    import pyarrow as pa

_INTEGERS = ("block", "trial", "order", "instances")
_PER_TRIAL = ("block", "trial", "order", "platform", "kind", "accelerator", "image", "workload",
              "cache", "instances", "warmup")  # fmt: skip


def write_samples(folder: Path) -> Path:
    """Project the journal in ``folder`` to ``samples.parquet``; returns its path."""
    import pyarrow.parquet as pq

    table = build_samples(read_journal(folder / JOURNAL), read_manifest(folder))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(folder / SAMPLES, buffer.getvalue())
    return folder / SAMPLES


def build_samples(outcomes: Iterable[Outcome], manifest: Mapping[str, object]) -> "pa.Table":
    """The samples of ``outcomes`` as an Arrow table with the columns of METRICS, in order."""
    import pyarrow as pa

    columns: dict[str, list[object]] = {name: [] for name in SAMPLE_COLUMNS}
    host = manifest.get("host")
    name = str(host.get("name", "")) if isinstance(host, Mapping) else ""
    for outcome in complete_outcomes(outcomes, manifest):
        if outcome.status == "ok":
            _add_rows(columns, outcome, str(manifest["run_id"]), name)
    return pa.table(columns, schema=_build_schema())


def _add_rows(columns: dict[str, list[object]], outcome: Outcome, run_id: str, host: str) -> None:
    count = len(outcome.measurements)
    columns["run_id"] += [run_id] * count
    columns["host"] += [host] * count
    columns["marks"] += [list(outcome.marks)] * count
    columns["started_at"] += [_parse_instant(outcome)] * count
    for field in _PER_TRIAL:
        columns[field] += [getattr(outcome, field)] * count
    for row in outcome.measurements:
        columns["metric"].append(row.metric)
        columns["phase"].append(row.phase)
        columns["value"].append(float(row.value))
        columns["unit"].append(_find_unit(row.metric))


def _find_unit(metric: str) -> str:
    if metric not in METRICS:
        raise InputError(f"{metric} is not in the table of metrics", hint="add it to metrics.py")
    return METRICS[metric].unit


def _parse_instant(outcome: Outcome) -> datetime.datetime:
    """``started_at`` in UTC; a time without a zone is taken for UTC."""
    try:
        instant = datetime.datetime.fromisoformat(outcome.started_at)
    except ValueError:
        raise InputError(
            f"started_at of trial {outcome.trial} is {outcome.started_at!r}, not a time"
        ) from None
    if instant.tzinfo is None:
        return instant.replace(tzinfo=datetime.UTC)
    return instant.astimezone(datetime.UTC)


def _build_schema() -> "pa.Schema":
    import pyarrow as pa

    special = {
        **dict.fromkeys(_INTEGERS, pa.int64()),
        "value": pa.float64(),
        "warmup": pa.bool_(),
        "marks": pa.list_(pa.string()),
        "started_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, special.get(name, pa.string())) for name in SAMPLE_COLUMNS])
