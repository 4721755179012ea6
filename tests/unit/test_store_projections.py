"""samples.parquet and the pyperf suites: projections of the journal."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyperf
import pytest

from harness.errors import InputError
from harness.model import SAMPLE_COLUMNS, Measurement, Outcome
from harness.store import Store, write_pyperf, write_samples
from harness.store.samples import build_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, write_run

SMALL = Synthetic(("namespace", "vm-direct"), ("namespace",), ("noop",), blocks=4)


def test_samples_have_the_columns_and_types_of_the_contract(tmp_path: Path) -> None:
    schema = pq.read_schema(write_run(tmp_path / "r", SMALL) / "samples.parquet")
    assert tuple(schema.names) == SAMPLE_COLUMNS
    assert schema.field("value").type == pa.float64()
    assert schema.field("marks").type == pa.list_(pa.string())
    assert schema.field("started_at").type == pa.timestamp("us", tz="UTC")
    assert {schema.field(name).type for name in ("block", "trial", "order", "instances")} == {
        pa.int64()
    }


def test_phases_up_to_ready_sum_to_the_headline(tmp_path: Path) -> None:
    table = pq.read_table(write_run(tmp_path / "r", SMALL) / "samples.parquet").to_pandas()
    phases = table[(table.metric == "startup.phase") & (table.phase != "response")]
    total = table[table.metric == "startup.ready"].set_index("trial")["value"]
    assert phases.groupby("trial")["value"].sum().to_numpy() == pytest.approx(total.to_numpy())


def test_the_same_journal_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", SMALL)
    first = (folder / "samples.parquet").read_bytes()
    assert write_samples(folder).read_bytes() == first
    assert not list(folder.glob(".*"))


def test_a_failed_trial_has_no_samples() -> None:
    plan = replace(SMALL, failed_trials=(0, 5))
    trials = set(build_samples(build_outcomes(plan), {"run_id": "r"})["trial"].to_pylist())
    assert not trials & {0, 5}
    assert 1 in trials


def test_a_metric_out_of_the_table_is_an_error() -> None:
    outcome = replace(
        next(build_outcomes(SMALL)), measurements=(Measurement("startup.magic", 1.0),)
    )
    with pytest.raises(InputError, match=r"startup\.magic is not in the table of metrics"):
        build_samples([outcome], {"run_id": "r"})


@pytest.mark.parametrize("instant", ["2025-03-14T10:00:00+01:00", "2025-03-14T09:00:00"])
def test_instants_are_utc(instant: str) -> None:
    outcome = replace(next(build_outcomes(SMALL)), started_at=instant)
    table = build_samples([outcome], {"run_id": "r"})
    assert table["started_at"][0].as_py().isoformat() == "2025-03-14T09:00:00+00:00"


def test_pyperf_files_have_safe_names_and_telling_benchmarks(tmp_path: Path) -> None:
    paths = write_pyperf(write_run(tmp_path / "r", SMALL))
    assert [path.name for path in sorted(paths)] == [
        "namespace-2-20df0d.noop.json",
        "namespace.noop.json",
        "vm-direct.noop.json",
    ]
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "r/pyperf/vm-direct.noop.json"))
    assert suite.get_benchmark_names() == [
        "disk.image_allocated[vm-direct,noop,warm]",
        "disk.instance_growth[vm-direct,noop,warm]",
        "memory.pss[vm-direct,noop,warm]",
        "portability.first[vm-direct,noop,warm]",
        "startup.ready[vm-direct,noop,warm]",
    ]
    ready = suite.get_benchmark("startup.ready[vm-direct,noop,warm]")
    assert (ready.get_unit(), ready.get_nrun(), ready.get_nvalue()) == ("second", 4, 4)
    assert suite.get_benchmark("memory.pss[vm-direct,noop,warm]").get_unit() == "byte"


def test_a_benchmark_with_a_zero_is_left_out_whole(tmp_path: Path) -> None:
    outcomes = [_with_growth(outcome) for outcome in build_outcomes(SMALL)]
    with Store.create(tmp_path / "r", build_manifest(SMALL)) as store:
        for outcome in outcomes:
            store.append(outcome)
    write_pyperf(tmp_path / "r")
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "r/pyperf/vm-direct.noop.json"))
    assert "disk.instance_growth[vm-direct,noop,warm]" not in suite.get_benchmark_names()


def _with_growth(outcome: Outcome) -> Outcome:
    """The last block's trials have written nothing."""
    growth = 0.0 if outcome.block == 4 else 4096.0
    kept = [row for row in outcome.measurements if row.metric != "disk.instance_growth"]
    return replace(outcome, measurements=(*kept, Measurement("disk.instance_growth", growth)))


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats", "pyperf/namespace.noop.json"],
        ["hist", "pyperf/vm-direct.noop.json"],
        ["compare_to", "pyperf/namespace.noop.json", "../other/pyperf/namespace.noop.json"],
    ],
)
def test_pyperf_commands_work_on_the_files(tmp_path: Path, arguments: list[str]) -> None:
    write_pyperf(write_run(tmp_path / "r", SMALL))
    write_pyperf(write_run(tmp_path / "other", replace(SMALL, seed=2)))
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", *arguments],
        cwd=tmp_path / "r",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "startup.ready[" in done.stdout
