"""One platform's trouble is its own: what fails for it leaves out that platform and no other."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from harness.drivers.base import Driver, Toolbox
from harness.errors import HostError
from harness.plan_file import read_plan
from harness.preparation import Failed, build_own
from harness.roster import LeftOut, Roster
from harness.session import find_drivers, list_left_out, list_unreachable
from tests.unit.fakes import FakeDriver

NAMES = ("process", "namespace", "crun")


def build_drivers() -> dict[str, Driver]:
    return {name: cast(Driver, FakeDriver(name=name)) for name in NAMES}


def fail_for(name: str, error: Exception) -> Callable[[str, Driver], str]:
    def step(each: str, _driver: Driver) -> str:
        if each == name:
            raise error
        return each.upper()

    return step


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (HostError("no mkfs.erofs", hint="install erofs-utils"),
         "namespace: no mkfs.erofs (install erofs-utils)"),
        (OSError(28, "No space left on device", "/c/images"),
         "namespace: /c/images: No space left on device (free some space, or point HARNESS_CACHE "
         "at a larger disk)"),
        (KeyError("IPAddress"),
         "namespace: internal error: KeyError: 'IPAddress' (a fault of the harness: "
         "logs/left-out-namespace.log shows where)"),
        (ModuleNotFoundError("x", name="libvirt"),
         "namespace: the Python package libvirt is not installed (`make run` sets it up)"),
    ],
    ids=["family", "kernel", "unexpected", "package"],
)  # fmt: skip
def test_a_step_that_fails_for_one_leaves_out_that_one(
    error: Exception, line: str, tmp_path: Path
) -> None:
    roster, drivers = Roster(strict=False, logs=tmp_path / "logs"), build_drivers()
    found = roster.go_through(drivers, fail_for("namespace", error))
    assert found == {"process": "PROCESS", "crun": "CRUN"}
    assert list(drivers) == ["process", "crun"]
    assert [str(each) for each in roster.left_out] == [line]
    kept = tmp_path / "logs" / "left-out-namespace.log"
    assert kept.exists() == isinstance(error, KeyError)
    assert not kept.exists() or "in step" in kept.read_text()


def test_one_that_was_asked_for_by_name_is_an_error(tmp_path: Path) -> None:
    roster = Roster(strict=True, logs=tmp_path)
    with pytest.raises(HostError, match="namespace cannot run here: internal error: KeyError: 'x'"):
        roster.go_through(build_drivers(), fail_for("namespace", KeyError("x")))


def test_where_none_is_left_every_reason_is_told(tmp_path: Path) -> None:
    roster = Roster(strict=False, logs=tmp_path)
    for name in NAMES:
        roster.leave_out(name, f"no {name} here", f"mend {name}")
    with pytest.raises(HostError, match="no platform of the plan can run here") as caught:
        roster.require_any(NAMES)
    assert caught.value.hint == "; ".join(f"{n}: no {n} here (mend {n})" for n in NAMES)


def test_a_trace_that_is_not_kept_is_not_pointed_at() -> None:
    roster = Roster(strict=False, logs=None)
    roster.go_through(build_drivers(), fail_for("crun", KeyError("x")))
    assert roster.left_out[0].remedy == (
        "a fault of the harness: `python -m harness run --platform crun` keeps its trace"
    )


def test_what_is_out_in_part_still_takes_part(tmp_path: Path) -> None:
    roster = Roster(strict=False, logs=tmp_path)
    roster.note(LeftOut("crun", "no bridge", part="with httpd"))
    assert not roster.is_out("crun")
    assert str(roster.left_out[0]) == "crun with httpd: no bridge"


def test_what_could_not_be_built_is_not_tried_again_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fail(_say: object) -> None:
        asked.append(1)
        raise HostError("the mirror does not answer")

    monkeypatch.setattr("harness.preparation.require_guest_kernel", fail)
    failed: Failed = {}
    for platform in ("vm-direct", "vm-microvm"):
        with pytest.raises(HostError, match="mirror"):
            build_own(platform, {}, failed, print)
    build_own("namespace", {}, failed, print)
    assert len(asked) == 1


def test_a_driver_that_breaks_when_it_is_asked_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeDriver):
        def unavailable(self) -> str | None:
            raise RuntimeError("libvirt is confused")

    class Closed(FakeDriver):
        def unavailable(self) -> str | None:
            return "not today"

    kinds = {"process": FakeDriver, "namespace": Broken, "crun": Closed}
    monkeypatch.setattr("harness.session.load_driver", lambda name, _: kinds[name](name=name))
    plan = read_plan(None, {"platforms": NAMES}, new_seed=1)
    roster = Roster(strict=False, logs=tmp_path)
    assert list(find_drivers(plan, Toolbox(Path("starter")), roster)) == ["process"]
    assert [each.reason for each in roster.left_out] == [
        "internal error: RuntimeError: libvirt is confused",
        "not today",
    ]


def test_a_platform_without_a_network_is_left_out_in_part(tmp_path: Path) -> None:
    plan = read_plan(None, {"platforms": NAMES, "workloads": ("noop", "httpd")}, new_seed=1)
    drivers = {**build_drivers(), "crun": cast(Driver, FakeDriver(no_network="no bridge"))}
    found = list_unreachable(plan, drivers, Roster(strict=False, logs=tmp_path))
    assert [str(each) for each in found] == ["crun with httpd: no bridge"]


def test_one_that_breaks_when_its_network_is_asked_for_is_told_too(tmp_path: Path) -> None:
    class Broken(FakeDriver):
        def __getattribute__(self, name: str) -> object:
            if name == "no_network":
                raise RuntimeError("it has lost its bridge")
            return super().__getattribute__(name)

    plan = read_plan(None, {"platforms": NAMES, "workloads": ("httpd",)}, new_seed=1)
    drivers = {**build_drivers(), "crun": cast(Driver, Broken())}
    found = list_left_out(plan, drivers, Roster(strict=False, logs=tmp_path), grouped=True)
    assert [each.platform for each in found if isinstance(each, LeftOut)] == ["crun"]
