"""Runs to publish, and a look at what a site holds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from harness.store import write_samples
from harness.store.names import MANIFEST, SAMPLES
from tests.unit.synthetic import Synthetic, write_run

NO_SIZES = (
    "disk.image_allocated",
    "disk.image_apparent",
    "disk.image_virtual",
    "portability.first",
)
PLAN = Synthetic(
    platforms=("process", "namespace", "vm-direct"), workloads=("noop",), blocks=6, aa=(),
    leave_out=NO_SIZES,
)  # fmt: skip
"""Small, as every run has its report made: the fewer figures, the sooner."""

LINK = re.compile(r'\b(?:href|src)="([^"]*)"')


def write_dated_run(
    folder: Path, day: int, plan: Synthetic = PLAN, run_id: str = "", **host: object
) -> Path:
    """A run of a day in March on a host with the given traits."""
    write_run(folder, plan)
    manifest = read_json(folder / MANIFEST)
    manifest["run_id"] = run_id or f"202503{day:02}-092653-{day:04x}"
    manifest["created_at"] = f"2025-03-{day:02}T09:26:53+00:00"
    manifest["host"] |= host
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / SAMPLES).unlink()
    write_samples(folder)
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    paths = (each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): each.read_bytes() for each in paths}


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def write_asv_pages(folder: Path) -> Path:
    """Pages in asv's format: one plain benchmark, and one with a parameter and a gap."""
    where = folder / "graphs/branch-main/machine-here/python-_usr_bin_python3"
    where.mkdir(parents=True)
    index = {
        "revision_to_date": {"7": 1741944413000, "9": 1742030813000},
        "benchmarks": {
            "own.track_help": {"params": [], "unit": "seconds"},
            "own.track_size": {"params": [["'a'", "'b'"]], "unit": "bytes"},
        },
    }
    (folder / "index.json").write_text(json.dumps(index))
    (where / "own.track_help.json").write_text("[[7, 0.05], [9, 0.06]]")
    (where / "own.track_size.json").write_text("[[7, [1024, null]], [9, [2048, 4096]]]")
    (folder / "graphs/summary").mkdir()
    (folder / "graphs/summary/own.track_help.json").write_text("[[7, 0.05], [9, 0.06]]")
    return folder
