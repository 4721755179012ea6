"""A cache that will not do is named before anything is built or started."""

import os
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.overlay import describe_refusal
from harness.paths import cache_dir
from harness.places import find_fault, require_cache
from harness.temporary import clean_temporary, start_temporary


@pytest.mark.parametrize(
    ("flags", "writable", "fault"),
    [
        (0, True, ""),
        (os.ST_NOSUID, True, ""),
        (os.ST_NOEXEC, True,
         "is on a file system that is mounted noexec, and programs are run from it"),
        (os.ST_RDONLY, False, "is on a file system that is mounted read-only"),
        (0, False, "may not be written by this user"),
    ],
)  # fmt: skip
def test_a_place_is_judged_by_its_mount(flags: int, writable: bool, fault: str) -> None:
    assert find_fault(flags, writable=writable) == fault


def test_a_cache_that_cannot_be_made_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(HostError, match=r"the cache .* cannot be made: .*Not a directory") as error:
        require_cache()
    assert error.value.hint == "HARNESS_CACHE names another folder"


def test_a_user_without_a_home_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no line in passwd
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostError, match="has no home folder") as error:
        cache_dir()
    assert str(error.value.hint).startswith("HARNESS_CACHE names a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_used_is_not_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    dead = tmp_path / "tmp" / "doctor-dead"
    with start_temporary("doctor") as folder:
        dead.mkdir()
        assert clean_temporary() == [f"removed {dead}"]
        assert folder.is_dir()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (19, "this kernel has no overlayfs (install a kernel that has it: CONFIG_OVERLAY_FS)"),
        (22, "overlayfs cannot have its layers in /s: Invalid argument (HARNESS_CACHE names "
             "another folder, on ext4, xfs, btrfs or tmpfs)"),
        (1, "overlayfs cannot be mounted in /s: Operation not permitted"),
    ],
)  # fmt: skip
def test_what_the_kernel_says_of_an_overlay_is_put_into_words(number: int, said: str) -> None:
    assert describe_refusal(OSError(number, os.strerror(number)), Path("/s")) == said
