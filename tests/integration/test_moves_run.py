"""Moves over a shaped link, for real: registry, server, link and start, in one small run."""

import json
import subprocess
import sys

import pandas as pd
import pytest

PLAN = """
platforms = ["namespace", "vm-direct"]
workloads = ["noop"]
blocks = 1
warmup = 0
seed = 1
aa = []
density = 0
moves = true
bandwidths = ["100Mbit"]
repeats = 1
"""


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("moves")
    (folder / "plan.toml").write_text(PLAN)
    words = ["run", str(folder / "plan.toml"), "--out", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (folder / "out" / "journal.jsonl").read_text().splitlines())
    assert [line["error"] for line in lines if line.get("status") == "failed"] == []
    return pd.read_parquet(folder / "out" / "samples.parquet")


def read(samples: pd.DataFrame, metric: str) -> dict[tuple[str, str], float]:
    rows = samples[samples.metric == f"portability.{metric}"]
    keys = zip(rows.platform.astype(str), rows.phase.astype(str), strict=True)
    return dict(zip(keys, rows.value.astype(float), strict=True))


@pytest.mark.timeout(300)
def test_the_link_carried_what_the_servers_sent_and_its_headers(samples: pd.DataFrame) -> None:
    for scenario, bodies in (("first", "first_app"), ("update", "update")):
        sent = read(samples, bodies)
        carried = read(samples, f"{scenario}_link")
        assert {packing for _, packing in sent} >= {"oci-gzip", "oci-zstd", "qcow2", "raw-zstd"}
        for (platform, packing), size in sent.items():
            assert 1.0 < carried[platform, f"{packing}@100Mbit"] / size < 1.15


@pytest.mark.timeout(300)
def test_a_transfer_takes_as_long_as_the_bandwidth_makes_it(samples: pd.DataFrame) -> None:
    carried, seconds = read(samples, "first_link"), read(samples, "first_seconds")
    for (platform, phase), size in carried.items():
        if size > 4 << 20:
            least = (size - (1 << 20)) * 8 / 100e6  # the token bucket lets a burst through
            assert seconds[platform, f"{phase}/transfer"] > least
    parts = [name for _, name in seconds if name.startswith("qcow2@100Mbit/")]
    assert sorted(parts) == [f"qcow2@100Mbit/{part}" for part in ("start", "transfer", "unpack")]


@pytest.mark.timeout(300)
def test_less_travels_to_a_host_that_has_the_base(samples: pd.DataFrame) -> None:
    first, shared, update = (read(samples, name) for name in ("first_app", "shared_base", "update"))
    for key in (("namespace", "oci-gzip"), ("vm-direct", "overlay"), ("vm-direct", "casync")):
        assert shared[key] < first[key] and update[key] < first[key]
    assert update["vm-direct", "casync"] < shared["vm-direct", "casync"]  # chunks see one file
