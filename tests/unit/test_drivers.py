"""What every platform says of itself: members of the interface, and no guess at a missing one."""

import ast
import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.drivers import PLATFORMS, load_driver
from harness.drivers.base import Driver, Toolbox
from harness.ground import check_kept, made_folder
from harness.images.model import Image
from harness.probes import page_cache
from harness.probes.page_cache import Residency
from tests.unit.fakes import SPEC, FakeDriver

HARNESS = Path(__file__).parents[2] / "harness"
MEMBERS = ("own_store", "sets_limits")


class Stored(FakeDriver):
    @property
    def own_store(self) -> bool:
        return True


class Dropping(FakeDriver):
    def list_dropped(self, _image: Image, /) -> Sequence[Path]:
        return self.watched[:1]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_platform_has_every_member_of_the_interface(platform: str) -> None:
    driver = load_driver(platform, Toolbox(Path("/starter"), platform=platform))
    assert driver.daemon is None
    assert {name: type(getattr(driver, name)) for name in MEMBERS} == {
        "own_store": bool,
        "sets_limits": bool,
    }
    assert driver.own_store is (platform == "podman")
    assert driver.sets_limits is False


@pytest.mark.parametrize("platform", PLATFORMS)
def test_its_class_has_a_kind_for_those_that_cannot_make_one(platform: str) -> None:
    module, _, name = PLATFORMS[platform].partition(":")
    assert getattr(importlib.import_module(module), name).kind


def test_no_member_of_a_driver_is_guessed_by_its_name() -> None:
    calls = [
        (path.name, call.lineno)
        for path in HARNESS.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "getattr"
        and ast.unparse(call.args[0]).split(".")[-1] == "driver"
    ]
    assert not calls


@pytest.mark.parametrize(("driver", "asked"), [(Stored(), False), (FakeDriver(), True)])
def test_a_quota_is_set_where_an_instance_writes_to_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: Driver, asked: bool
) -> None:
    sizes: list[int] = []

    class Quota:
        def __init__(self, _folder: Path, size: int) -> None:
            sizes.append(size)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("harness.ground.start_quota", Quota)
    with made_folder(replace(SPEC, folder=tmp_path / "t", disk=9), driver):
        pass
    assert sizes == ([9] if asked else [])


def test_a_file_that_the_platform_drops_itself_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[Path] = []

    def read(files: Sequence[Path]) -> Residency:
        looked.extend(files)
        return Residency(1, 1)

    monkeypatch.setattr(page_cache, "read_residency", read)
    check_kept(Dropping(watched=(Path("/a"), Path("/b"))), cast(Image, None))
    assert looked == [Path("/b")]
