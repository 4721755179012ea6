"""The agent and the starter: same sources and compiler, same bytes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.images.programs import NAMES, SOURCES, build_compile, build_programs

PROGRAM = '#include <linux/virtio_ids.h>\n#include "part.h"\nint main(void) { return CODE; }\n'


def write_sources(folder: Path, code: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.c").write_text(PROGRAM)
    (folder / "part.h").write_text(f"#define CODE {code}\n")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["ca che,'\"ü:c", "ca\\che"])
def test_the_cache_may_be_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of the compiler leave their files there too."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / name))
    built = build_programs(write_sources(tmp_path / "src"))
    assert sorted(each.name for each in built.agent.parent.iterdir()) == ["agent", "starter"]


def test_programs_are_static_and_the_same_from_any_folder(tmp_path: Path) -> None:
    here = build_programs(write_sources(tmp_path / "here"))
    code = here.agent.read_bytes()
    shutil.rmtree(here.agent.parent)
    there = build_programs(write_sources(tmp_path / "there"))
    assert there.agent.read_bytes() == code
    assert b"ld-" not in code
    assert subprocess.run([there.agent]).returncode == 0


def test_a_changed_header_makes_other_programs(tmp_path: Path) -> None:
    before = build_programs(write_sources(tmp_path / "src"))
    after = build_programs(write_sources(tmp_path / "src", code=3))
    assert before.agent != after.agent
    assert subprocess.run([after.agent]).returncode == 3


def test_a_source_that_does_not_compile_is_named_with_the_error(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "src")
    (sources / "agent.c").write_text("int main(void) { return missing; }\n")
    with pytest.raises(HostError, match=r"agent\.c cannot be compiled: .*missing"):
        build_programs(sources)
    assert not list((tmp_path / "cache/programs").glob("*"))


def test_without_a_compiler_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="musl-tools"):
        build_programs()


def test_no_date_and_no_build_id_goes_in() -> None:
    words = build_compile(("gcc",), SOURCES / "agent.c", Path("agent"))
    assert "-Wl,--build-id=none" in words
    assert f"-ffile-prefix-map={SOURCES}=." in words
