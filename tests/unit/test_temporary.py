"""Folders that are thrown away: gone in the end, never under a user's feet, and what stays is
said.
"""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import temporary
from harness.attempt import find_refusal
from harness.overlay import find_overlay_fault
from harness.paths import scratch_root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("in_scratch", [False, True])
def test_a_folder_is_kept_while_it_is_used_and_no_longer(in_scratch: bool) -> None:
    with temporary.start_temporary("x", in_scratch=in_scratch) as folder:
        (folder / "closed").mkdir(mode=0)
        assert temporary.clean_temporary() == []
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["tmp/doctor-1", "scratch/.overlay-1"])
def test_what_a_dead_process_left_is_removed(name: str, cache: Path) -> None:
    (cache / name / "in").mkdir(parents=True)
    (cache / "scratch/20260101-000000-abcd").mkdir(parents=True)
    assert temporary.clean_temporary() == [f"removed {cache / name}"]
    assert (cache / "scratch/20260101-000000-abcd").is_dir()


def test_a_new_folder_is_not_taken_before_it_has_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it is held up just then, while another process cleans."""
    make: Callable[..., str] = tempfile.mkdtemp
    said: list[str] = []
    cleaner = threading.Thread(target=lambda: said.extend(temporary.clean_temporary()))

    def make_and_wait(**how: str) -> str:
        made = make(**how)
        cleaner.start()
        cleaner.join(0.2)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_wait)
    with temporary.start_temporary("x") as folder:
        cleaner.join(5)
        assert folder.is_dir()
    assert said == []


def test_what_cannot_be_removed_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, onerror: object) -> None:
        error = OSError(16, "Device or resource busy")
        assert callable(onerror)
        onerror(os.rmdir, f"{path}/mount", (OSError, error, None))

    monkeypatch.setattr(shutil, "rmtree", fail)
    with temporary.start_temporary("x") as folder:
        pass
    said = f"could not remove {folder}/mount: [Errno 16] Device or resource busy"
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert temporary.clean_temporary() == [said]


def test_a_process_that_dies_of_an_attempt_is_no_consent() -> None:
    refusal = find_refusal(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert refusal is not None
    assert refusal.strerror == "the process that tried it ended with Killed"


def test_an_overlay_that_was_tried_leaves_nothing() -> None:
    assert find_overlay_fault() is None
    assert list(scratch_root().iterdir()) == []
