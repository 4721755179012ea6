"""A run that is gone on with: its folder says what is left out now, and mixes nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import HostError
from harness.run_folder import open_store
from harness.store import read_manifest, write_manifest
from tests.unit.synthetic import Synthetic, write_run

SMALL = Synthetic(("process", "namespace"), ("namespace",), ("noop", "httpd"), blocks=1)
NOTHING: dict[str, object] = {"left_out": [], "left_out_details": []}


def go_on(folder: Path, now: dict[str, object]) -> dict[str, object]:
    """The manifest of a folder after it was opened by a run that finds ``now``."""
    order: Any = SimpleNamespace(folder=folder, run_id="synthetic", resume=True)
    images = read_manifest(folder).get("images")
    open_store(order, {"images": images, **NOTHING, **now}).close()
    return read_manifest(folder)


def leave_out(platform: str, part: str = "") -> dict[str, object]:
    told = {"platform": platform, "reason": "it is gone", "remedy": None, "part": part}
    return {"left_out": [f"{platform}: it is gone"], "left_out_details": [told]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    write_run(tmp_path / "r", SMALL)
    before = {"platforms": {"process": {"kind": "process"}}, "accelerator": {}}
    write_manifest(tmp_path / "r", {**read_manifest(tmp_path / "r"), **before, **leave_out("crun")})
    return tmp_path / "r"


def test_what_was_mended_is_no_longer_left_out_and_is_described(folder: Path) -> None:
    guests = {"vm-direct": {"name": "tcg", "reason": "why"}}
    new = {"process": {"kind": "other"}, "crun": {"kind": "container"}}
    found = go_on(folder, {"platforms": new, "accelerator": guests})
    assert (found["left_out"], found["left_out_details"]) == ([], [])
    assert found["platforms"] == {"process": {"kind": "process"}, "crun": {"kind": "container"}}
    assert found["accelerator"] == guests


def test_what_is_gone_since_then_is_left_out(folder: Path) -> None:
    told = leave_out("runc")
    found = go_on(folder, told)
    assert {key: found[key] for key in told} == told


@pytest.mark.parametrize("part", ["", "with httpd, postgres"])
def test_a_platform_that_has_trials_is_not_left_out(part: str, folder: Path) -> None:
    before = read_manifest(folder)
    what = f"namespace {part}".strip()
    with pytest.raises(HostError, match=f"has trials of {what}, which cannot run here now: it is"):
        go_on(folder, leave_out("namespace", part))
    assert read_manifest(folder) == before
    assert go_on(folder, leave_out("namespace", "with other"))
