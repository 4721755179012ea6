"""One whole run as an ordinary user: user namespaces and an embedded libvirt without root."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
PLATFORMS = ("process", "namespace", "vm-microvm")
BLOCKS = 3


def run_as_user(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.integration.as_user", str(folder), sys.executable]
    return subprocess.run(
        [*command, "-m", "harness", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="harness-user-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.mark.timeout(320)
def test_a_whole_run_without_root(folder: Path) -> None:
    out = folder / "home" / "out"
    words = [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = run_as_user(
        folder, "run", "--blocks", str(BLOCKS), "--seed", "1", "--workload", "noop",
        "--accelerator", "tcg", "--out", str(out), *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = [
        document
        for line in (out / "journal.jsonl").read_text().splitlines()
        if "platform" in (document := json.loads(line))
    ]
    failed = [outcome for outcome in outcomes if outcome["status"] != "ok"]
    assert failed == []
    for platform in PLATFORMS:
        measured = [each for each in outcomes if each["platform"] == platform]
        assert len([each for each in measured if not each["warmup"] and each["block"]]) == BLOCKS
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["privileged"] is False
    assert manifest["differ"]["plan"] == ["cpus", "memory"]
    text = (out / "report.md").read_text()
    assert "gave the run no control groups" in text
    assert "refused;" not in text and "| refused" not in text
    assert (out / "report.html").stat().st_size > 10_000
    assert out.stat().st_uid != 0
    assert not list((folder / "home" / "cache" / "scratch").iterdir())
