"""asv on this project: distributions are kept, and a slowed driver is a reported regression."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.site.own_history import read_own_history
from harness.paths import cache_dir

pytestmark = pytest.mark.timeout(300)

PROJECT = Path(__file__).parents[2]
CLONING = "return (pid_t)syscall(SYS_clone3"
DELAY = "usleep(400000); "  # far more than a busy machine adds
ENVIRONMENT = {
    "HARNESS_BENCH_ROUNDS": "8",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
CONTAINERS = "yardsticks.Containers.track_namespace_to_crun"


class Clone:
    """A scratch clone of the project, in which asv has a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        home = {"HOME": str(folder), "HARNESS_CACHE": str(cache_dir())}
        self.environment = {**os.environ, **ENVIRONMENT, **home}
        self.run("git", "clone", "-q", str(PROJECT), str(self.folder), cwd=folder)
        self.run("git", "checkout", "-q", "-B", "main")
        self.asv("machine", "--yes", "--machine", "here")

    def run(self, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            words, cwd=cwd or self.folder, env=self.environment, timeout=750,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def asv(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "asv", *words, cwd=self.folder / "benches")

    def measure(self, *patterns: str) -> str:
        """Run the benchmarks on the present commit and return its name."""
        commit = self.run("git", "rev-parse", "HEAD").strip()
        words = [word for each in patterns for word in ("--bench", each)]
        options = ("--python=same", "--machine", "here", "--record-samples", "--show-stderr")
        self.asv("run", *options, f"--set-commit-hash={commit}", *words)
        return commit

    def read_result(self, commit: str, benchmark: str) -> dict[str, Any]:
        """What asv has stored of a benchmark without parameters, by its columns."""
        (path,) = self.folder.glob(f".asv/results/here/{commit[:8]}-*.json")
        document = json.loads(path.read_text())
        row = document["results"][benchmark]
        return dict(zip(document["result_columns"], row, strict=False))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    yield Clone(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def commits(clone: Clone) -> tuple[str, str]:
    """Two measured commits: this one, and one whose driver sleeps before it starts anything."""
    before = clone.measure("Containers", "CommandLine")
    starter = clone.folder / "harness/agent/starter.c"
    text = starter.read_text()
    assert text.count(CLONING) == 1
    starter.write_text(text.replace(CLONING, DELAY + CLONING))
    clone.run("git", "commit", "-q", "--all", "--message", "starter: sleep")
    return before, clone.measure("Containers", "CommandLine")


def test_the_asv_that_is_pinned_is_the_one_that_is_tested() -> None:
    pins = dict(line.split("==") for line in (PROJECT / "constraints.txt").read_text().splitlines()
                if "==" in line)  # fmt: skip
    assert version("asv") == pins["asv"]


def test_asv_keeps_the_samples_of_a_tracked_figure(clone: Clone, commits: tuple[str, str]) -> None:
    for benchmark in ("own.CommandLine.track_help", CONTAINERS):
        found = clone.read_result(commits[0], benchmark)
        (samples,) = found["samples"]
        assert len(samples) == 8 and min(samples) > 0
        (low,), (high,) = found["stats_ci_99_a"], found["stats_ci_99_b"]
        assert low < found["result"][0] < high
        assert found["result"][0] == pytest.approx(statistics.median(samples), rel=1e-3)


def test_a_slowed_driver_is_a_reported_regression(clone: Clone, commits: tuple[str, str]) -> None:
    told = clone.asv("compare", "--machine", "here", "--split", *commits)
    worse = told.partition("Benchmarks that have got worse")[2].partition("Benchmarks that")[0]
    assert "track_namespace_to_crun" in worse
    assert "track_namespace_to_c_program" in worse


def test_the_history_becomes_pages(clone: Clone, commits: tuple[str, str]) -> None:
    clone.asv("publish")
    pages = clone.folder / ".asv/html"
    index = json.loads((pages / "index.json").read_text())
    assert CONTAINERS in index["benchmarks"]
    assert (pages / "index.html").is_file()
    published = read_own_history(pages).series
    assert CONTAINERS in {each.benchmark for each in published}, "and `publish` can read them"


BENCHMARKS = """
from benches.suite.figure import as_figure


class Broken:
    def track_wrong(self):
        raise ValueError("it is broken")

    def track_elsewhere(self):
        return as_figure([])

    def track_kept(self):
        return 1.0


Broken.track_wrong.unit = Broken.track_elsewhere.unit = Broken.track_kept.unit = "seconds"
"""


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Path]:
    """A shallow clone that is another user's, a commit checked out, with benchmarks of its own."""
    folder = tmp_path / "strange, é 'clone'"
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", str(folder))
    run("git", "clone", "-q", "--depth", "2", f"file://{PROJECT}", str(folder))
    (folder / "benches/suite/broken.py").write_text(BENCHMARKS)
    run(*git, "checkout", "-q", "--detach")
    run(*git, "add", "--all")
    run(*git, "commit", "-q", "--message", "benches: a broken one")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12_345, 12_345, follow_symlinks=False)
    yield folder


def run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=180)


def test_make_asv_says_what_is_missing_and_makes_the_pages(strange: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": os.devnull}
    environment = {**os.environ, **home, "HARNESS_BENCH_ROUNDS": "2"}
    words = [sys.executable, "-m", "benches.history", "--bench", "Broken"]
    done = subprocess.run(
        words,
        cwd=strange,
        env=environment,
        timeout=750,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout.splitlines()[-3:]
    assert told[0] == "failed, and missing in the pages: broken.Broken.track_wrong"
    assert told[1] == "not on this host: broken.Broken.track_elsewhere"
    assert told[2] == f"pages: {strange / '.asv/html/index.html'}"
    published = read_own_history(strange / ".asv/html").series
    assert {each.benchmark for each in published} == {"broken.Broken.track_kept"}


def test_nothing_is_taken_for_a_benchmark_by_its_name(
    clone: Clone, commits: tuple[str, str]
) -> None:
    listed = json.loads((clone.folder / ".asv/results/benchmarks.json").read_text())
    names = {name for name in listed if name != "version"}
    assert CONTAINERS in names
    assert all(".track_" in name for name in names), names
    assert {listed[name]["unit"] for name in names} == {"seconds", "bytes", "ratio"}
