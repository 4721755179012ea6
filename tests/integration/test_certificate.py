"""Limits in ordinary runs, on real instances: set, read back from outside, and hit from inside."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from harness.certificate import KEY
from harness.conditions import find_file_system
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.isolation.quota import start_quota
from tests.integration.laboratory import run_in_lab
from tests.integration.test_run import read_outcomes, run_harness

pytestmark = pytest.mark.timeout(600)

PIDS, DISK, IO = 64, 32 << 20, 4 << 20
TRIED = 4 << 20
"""Bytes that are written past the page cache, as many as may be in a second."""

MACHINE = "vm-direct/disk=squashfs/upper=disk"
MICRO = "vm-microvm/disk=squashfs/upper=disk"
PLATFORMS = ("process", "namespace", "runc", "podman", MACHINE, MICRO)
HOGS = f"processes:{2 * PIDS}:0 disk:{2 * DISK >> 20}:0 write:{TRIED >> 20}:0"

# What the agent says of each: what it reached (or how long it took), and what stopped it.
FIGURES = {
    "processes": "processes ([0-9]+) EAGAIN",
    "disk": "disk ([0-9]+) (?:ENOSPC|bound)",
    "write": f"write {TRIED >> 20} bound 1 ([0-9]+)",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with every limit, over the platforms that run here."""
    folder = tmp_path_factory.mktemp("limits")
    figures = "".join(
        f'[[figures]]\nname = "throughput"\nunit = "1/s"\nof = "{name}"\nregex = "{regex}"\n'
        for name, regex in FIGURES.items()
    )
    (folder / "hogs.toml").write_text(
        'name = "hogs"\nimage = "tiny"\nready = "exit"\n'
        f'command = ["sh", "-c", "/.harness/agent --hog {HOGS}"]\n{figures}'
    )
    able = [name for name in PLATFORMS if is_able(name)]
    (folder / "plan.toml").write_text(
        f'platforms = {json.dumps(able)}\nworkloads = ["./hogs.toml"]\n'
        "blocks = 1\nwarmup = 0\naa = []\ndensity = 0\nseed = 1\nsettle = '0s'\n"
        f'pids = {PIDS}\ndisk = "32MiB"\nio = "4MiB"\n'
    )
    result = run_harness("run", str(folder / "plan.toml"), "--out", str(folder / "out"))
    assert result.returncode == 0, result.stderr
    return folder / "out"


def is_able(name: str) -> bool:
    toolbox = Toolbox(starter=Path("starter"), platform=name)
    return load_driver(name, toolbox).unavailable() is None


def read_trials(folder: Path) -> dict[str, Any]:
    trials = {each["platform"]: each for each in read_outcomes(folder)}
    assert {name: each["error"] for name, each in trials.items() if each["status"] != "ok"} == {}
    return trials


def read_value(trial: dict[str, Any], dimension: str) -> object:
    return trial["details"][KEY][dimension]["value"]


def read_figure(trial: dict[str, Any], of: str) -> float:
    (row,) = [each for each in trial["measurements"]
              if each["metric"] == "efficiency.throughput" and each["phase"] == of]  # fmt: skip
    return float(row["value"])


def test_every_platform_has_and_holds_the_same_limit_of_processes(run: Path) -> None:
    for platform, trial in read_trials(run).items():
        assert read_value(trial, "pids") == PIDS, platform
        assert PIDS / 2 < read_figure(trial, "processes") < PIDS, platform


def test_every_platform_has_and_holds_the_same_rate_of_writing(run: Path) -> None:
    least = 1000 * TRIED / IO / 1.3
    for platform, trial in read_trials(run).items():
        assert read_value(trial, "io") == IO, platform
        assert read_figure(trial, "write") > least, platform


def test_a_disk_quota_is_hit_inside_and_an_engine_that_cannot_have_it_says_so(run: Path) -> None:
    for platform, trial in read_trials(run).items():
        written = read_figure(trial, "disk") * (1 << 20)
        if platform == "podman":
            assert read_value(trial, "disk") == "none"
            assert "store of its own" in trial["details"][KEY]["disk"]["how"]
            assert written == 2 * DISK
            continue
        assert read_value(trial, "disk") == DISK, platform
        assert DISK / 2 < written <= DISK, platform


def test_the_certificate_is_stored_and_shown_and_refuses_what_cannot_have_a_limit(
    run: Path,
) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    stored = manifest["certificate"]["hogs"]
    text = (run / "report.md").read_text()
    table = text[text.index("**`hogs`: parity certificate**") :]
    lines = table[: table.index("The same on all")].splitlines()
    for platform in stored:
        (line,) = (each for each in lines if each.startswith(f"| `{platform}`"))
        wanted = {"namespace": "reference", "process": "which is the point",
                  "podman": "refused; not alike in disk"}.get(platform, "all alike")  # fmt: skip
        assert wanted in line, line


def test_a_quota_lies_on_what_its_file_lies_on(tmp_path: Path) -> None:
    def read(_: str) -> str:
        with TemporaryDirectory(dir="/dev/shm") as folder:
            instance = Path(folder, "t7")
            instance.mkdir()
            with start_quota(instance, 8 << 20) as refused:
                assert refused is None
                return find_file_system(instance / "upper")

    assert run_in_lab(read, tmp_path) == "tmpfs"
