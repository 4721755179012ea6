"""The same samples give the same bytes, and bad folders one line: by the command, as users do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.model import SAMPLE_COLUMNS
from harness.store.names import JOURNAL, MANIFEST, SAMPLES
from tests.unit.synthetic import Synthetic, write_run

ROOT = Path(__file__).parents[2]
FORMATS = "html,md,pdf"


def render(folder: Path, cwd: Path, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "report", str(folder), *more],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True, text=True, timeout=330, check=False,
    )  # fmt: skip


def read_all(folder: Path) -> Mapping[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_neither_place_nor_time_zone_nor_language_nor_hashes_change_a_byte(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one" / "r", Synthetic(workloads=("noop",), blocks=6))
    other = tmp_path / "elsewhere, much deeper" / "ünder" / "another name"
    shutil.copytree(one, other)
    here = partial(render, one, ROOT, "--format", FORMATS)
    there = partial(render, other, tmp_path, "--format", FORMATS)
    settings = (
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Kolkata", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8"},
    )
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda run, env: run(**env), (here, there), settings))
    assert [each.returncode for each in made] == [0, 0], made
    first, second = read_all(one), read_all(other)
    assert {Path(name).suffix for name in first} >= {".html", ".md", ".pdf", ".svg", ".png"}
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Synthetic(platforms=("namespace",), aa=(), workloads=("noop",), blocks=3)
    return write_run(tmp_path_factory.mktemp("good") / "r", plan)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def damage(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"{")


def end_journal(folder: Path) -> None:
    """A whole line that is no trial."""
    with (folder / JOURNAL).open("ab") as journal:
        journal.write(b'{"trial": 1}\n')


def block_plots(folder: Path) -> None:
    (folder / "plots").write_text("a file, where a folder is to be")


BAD = {
    "no manifest": (remove(MANIFEST), 2, "manifest.json cannot be read"),
    "a damaged manifest": (damage(MANIFEST), 2, "manifest.json is damaged"),
    "no journal": (remove(JOURNAL), 2, "journal.jsonl cannot be read"),
    "a damaged line": (end_journal, 2, "not a trial"),
    "damaged samples": (damage(SAMPLES), 2, "samples.parquet cannot be read"),
    "nowhere for the plots": (block_plots, 3, "plots"),
}


@pytest.mark.parametrize(("spoil", "code", "said"), BAD.values(), ids=BAD)
def test_a_bad_folder_is_one_line(
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    code: int,
    said: str,
) -> None:
    folder = tmp_path / "r"
    shutil.copytree(good, folder)
    spoil(folder)
    assert main(["report", str(folder)]) == code
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert said in line
    assert line.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_samples_with_columns_of_a_newer_release_are_read(good: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "r"
    shutil.copytree(good, folder)
    table = pq.read_table(folder / SAMPLES)
    assert tuple(table.column_names) == SAMPLE_COLUMNS
    table = table.append_column("colour", pa.array(["blue"] * len(table)))
    pq.write_table(table, folder / SAMPLES)
    assert main(["report", str(folder), "--format", "md"]) == 0


def test_a_run_of_no_trial_still_has_a_report(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(good, folder)
    (folder / SAMPLES).unlink()
    header = (folder / JOURNAL).read_bytes().splitlines(keepends=True)[0]
    (folder / JOURNAL).write_bytes(header)
    assert main(["report", str(folder), "--format", "html,md"]) == 0
    assert (folder / "report.html").stat().st_size > 1000


def test_without_a_browser_there_is_no_pdf_and_one_line(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["report", str(good), "--format", "pdf"]) == 3
    line = capsys.readouterr().err
    assert "Chromium" in line
    assert line.count("\n") == 1
    assert not (good / "report.pdf").exists()
