"""The ladder of base images for real: one web server on each base, as container and as machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.images.catalog import require_image
from harness.process import run_command

pytestmark = pytest.mark.timeout(300)  # images are built where the cache has none

ROOT = Path(__file__).parents[2]
PLAN = """
platforms = ["namespace", "vm-direct"]
workloads = ["webserver@web-scratch", "webserver@web-musl", "webserver@web-slim"]
blocks = 1
warmup = 0
density = 0
aa = []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of one trial of each."""
    place = tmp_path_factory.mktemp("ladder")
    (place / "plan.toml").write_text(PLAN)
    words = ["run", str(place / "plan.toml"), "--out", str(place / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place / "run"


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_the_same_server_answers_on_every_base_as_container_and_as_machine(folder: Path) -> None:
    outcomes = read_outcomes(folder)
    assert [each["error"] for each in outcomes if each["error"]] == []
    assert {(each["platform"], each["image"]) for each in outcomes} == {
        (platform, image)
        for platform in ("namespace", "vm-direct")
        for image in ("web-scratch", "web-musl", "web-slim")
    }
    assert all("response" in each["milestones"] for each in outcomes)


def test_the_images_and_the_report_know_their_packages_and_files(folder: Path) -> None:
    images = json.loads((folder / "manifest.json").read_text())["images"]
    assert images["web-scratch"]["facts"] == {"files": 2, "packages": 0}
    assert images["web-musl"]["facts"]["packages"] == 0
    assert images["web-slim"]["facts"]["packages"] > 50
    text = (folder / "report.md").read_text()
    assert "**Base images**" in text and re.search(r"`web-scratch` +\| 0 +\| 2 +\|", text)


def test_the_server_is_static_except_on_musl_where_it_has_musls_own_loader() -> None:
    programs = {name: require_image(name, print).tree / "usr/bin/webserver"
                for name in ("web-scratch", "web-musl", "web-slim")}  # fmt: skip
    assert programs["web-scratch"].read_bytes() == programs["web-slim"].read_bytes()
    shown = run_command(["readelf", "-l", "-d", programs["web-musl"]], timeout=30).stdout
    assert "/lib/ld-musl-x86_64.so.1" in shown and "libc.so" in shown
