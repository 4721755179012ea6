"""`compare` on real runs: what is alike is found alike, and a delay is found."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.images.model import Image
from harness.store import Store, read_journal, read_manifest, write_samples
from tests.integration.test_run import PROJECT, run_harness

pytestmark = pytest.mark.timeout(300)

BLOCKS = 24
SLEEP = 0.03
PLAN = f"""
platforms = ["process", "namespace"]
workloads = ["./nap.toml"]
aa = ["namespace"]
blocks = {BLOCKS}
settle = "0s"
density = 0
"""


def measure(folder: Path, seconds: float, seed: int) -> Path:
    """A real run of a workload called `nap`, which sleeps."""
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    (folder / "nap.toml").write_text(
        f'name = "nap"\nimage = "tiny"\ncommand = ["sleep", "{seconds:.4f}"]\nready = "exit"\n'
    )
    out = folder / "out"
    done = run_harness("run", str(folder / "plan.toml"), "--seed", str(seed), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return copy_run(out, folder / "unmarked", (0, 1))


def copy_run(run: Path, folder: Path, halves: Collection[int]) -> Path:
    """The even (0) or odd (1) blocks of a run, or both, as a run of its own.

    Without its marks: other load on the machine that tests may withhold a verdict, and is no
    matter of what is tested here.
    """
    with Store.create(folder, read_manifest(run)) as store:
        for outcome in read_journal(run / "journal.jsonl"):
            if outcome.block % 2 in halves:
                store.append(replace(outcome, marks=()))
    write_samples(folder)
    return folder


def compare(*words: object) -> tuple[int, Any]:
    done = run_harness("compare", *map(str, words), "--json")
    return done.returncode, json.loads(done.stdout)


def find_start(document: Any, platform: str) -> Any:
    return next(
        each
        for each in document["comparisons"]
        if (each["platform"], each["metric"]) == (platform, "startup.ready")
    )


@pytest.fixture(scope="module")
def base_run(tmp_path_factory: pytest.TempPathFactory, tiny_image: Image) -> Path:
    assert tiny_image.digest
    return measure(tmp_path_factory.mktemp("compare") / "base", SLEEP, 1)


def test_two_halves_of_one_run_do_not_differ(base_run: Path, tmp_path: Path) -> None:
    halves = [copy_run(base_run, tmp_path / str(half), (half,)) for half in (0, 1)]
    code, document = compare(*halves)
    assert (code, document["verdict"]) == (0, "no regression")
    start = find_start(document, "namespace")
    assert (start["n_base"], start["n_new"]) == (BLOCKS // 2, BLOCKS // 2)
    assert start["verdict"] in ("equivalent", "inconclusive")


def test_a_delay_of_twice_the_least_detectable_change_is_found(
    base_run: Path, tmp_path: Path
) -> None:
    """The least detectable change is what `compare` says of the run, from its spread and its A/A
    arm; the delay is added to the workload, which keeps its name.
    """
    code, document = compare(base_run, base_run)
    assert code == 0
    start = find_start(document, "namespace")
    assert start["floor"] is not None
    delay = 2 * start["detectable"] * start["base"]
    new = measure(tmp_path / "new", SLEEP + delay, 2)
    code, document = compare(base_run, new)
    assert code == 2
    assert [each["subject"] for each in document["refused"]] == ["nap: command"]
    code, document = compare(base_run, new, "--allow", "workload")
    assert (code, document["verdict"]) == (1, "regression")
    found = find_start(document, "namespace")
    assert (found["verdict"], found["regression"]) == ("slower", True)
    assert found["shift"] == pytest.approx(delay, rel=0.5)
    sizes = [each for each in document["comparisons"] if each["metric"].startswith("disk.")]
    assert sizes and not any(each["regression"] for each in sizes)


def test_the_gate_of_the_readme_ends_with_its_codes(base_run: Path, tmp_path: Path) -> None:
    """Its second command, word by word, in a folder where the two runs are."""
    lines = (PROJECT / "README.md").read_text().splitlines()
    (command,) = [line for line in lines if line.startswith("python -m harness compare ")]
    (tmp_path / "results").mkdir()
    for name in ("base", "new"):
        (tmp_path / "results" / name).symlink_to(base_run)
    words = command.split()[3:]
    done = run_harness(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no regression in" in done.stdout
    (tmp_path / "results/new").unlink()
    done = run_harness(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: NEW: results/new is not there (name a result folder of `run`)\n")
