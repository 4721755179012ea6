"""A sandbox tells what it runs on only once it is ready: in every measurement it is asked then."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from harness.channel import Channel
from harness.density import run_density
from harness.drivers import load_driver
from harness.drivers.base import Processes, Toolbox
from harness.drivers.commanded import Command, CommandedInstance
from harness.drivers.docker_engine import DockerDriver, DockerInstance
from harness.drivers.dockerd import DockerDaemon, find_user_daemon
from harness.errors import TrialError
from harness.isolation.model import Limits, Reserve
from harness.isolation.trials import Site, _Trial
from harness.minimum import run_search
from harness.model import choose_accelerator
from harness.moves.link import Speed
from harness.moves.move import Account, Order, _start
from harness.plan import ScheduledTrial
from harness.runner import Bench, build_spec, run_schedule
from harness.starter import Starter
from harness.storm import Storm, run_storm
from harness.variants import parse_variant
from tests.unit.fakes import SPEC, FakeDriver
from tests.unit.test_runner import build_bench, build_trials
from tests.unit.test_storm import build_crowd_bench

STEP = ScheduledTrial(0, 7, 0, "gvisor", "noop", warmup=False)


def measure_trial(bench: Bench, _folder: Path) -> list[str]:
    return [each.accelerator for each in run_schedule(build_trials(2, "gvisor"), bench)]


def measure_density(bench: Bench, _folder: Path) -> list[str]:
    # no instance runs at step 0
    return [each.accelerator for each in run_density(STEP, 2, bench)][1:]


def measure_storm(bench: Bench, _folder: Path) -> list[str]:
    return [each.accelerator for each in run_storm(Storm(STEP, (0.0, 0.0)), bench)]


def measure_search(bench: Bench, _folder: Path) -> list[str]:
    return [run_search(STEP, bench).accelerator]


def measure_move(bench: Bench, _folder: Path) -> list[str]:
    spec = build_spec(STEP, bench)
    spec.folder.mkdir(parents=True)
    account = Account()
    order = Order(bench.drivers["gvisor"], spec, "oci-zstd", "first", Speed(10**8), None)
    _start(order, {}, account)
    return [account.accelerator]


def measure_isolation(bench: Bench, _folder: Path) -> list[str]:
    trial = _Trial(Site(bench, cast(Limits, None), cast(Reserve, None)), STEP)
    with trial._started(build_spec(STEP, bench)):
        return [trial.accelerator]


@pytest.mark.parametrize(
    "measure",
    [measure_trial, measure_density, measure_storm, measure_search, measure_move,
     measure_isolation],
)  # fmt: skip
def test_every_measurement_has_what_a_sandbox_ran_on(
    tmp_path: Path, measure: Callable[[Bench, Path], list[str]]
) -> None:
    driver = FakeDriver("gvisor", "sandbox", accelerator="systrap")
    build = build_crowd_bench if measure is measure_storm else build_bench
    found = measure(build(tmp_path, driver), tmp_path)
    assert found and set(found) == {"systrap"}


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        ("none", "ptrace", "ptrace"),
        ("unknown", "ptrace", "ptrace"),
        ("ptrace", "none", "ptrace"),
        ("ptrace", "unknown", "ptrace"),
        ("none", "none", "none"),
    ],
)
def test_an_answer_stays_when_a_later_instance_gives_none(before: str, now: str, kept: str) -> None:
    assert choose_accelerator(before, now) == kept


# ---- when it is looked for -------------------------------------------------------------------


def build_commanded(asked: list[Processes]) -> CommandedInstance:
    def find(processes: Processes) -> str:
        asked.append(processes)
        return "systrap"

    starter = cast(Starter, None)
    command = Command(("/usr/bin/runsc",), find_accelerator=find)
    return CommandedInstance(SPEC, command, Channel(starter), starter)


def test_the_processes_are_looked_at_once_and_not_before_the_sandbox_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CommandedInstance, "processes", lambda _: Processes((7,)))
    asked: list[Processes] = []
    instance = build_commanded(asked)
    assert (instance.accelerator, asked) == ("none", [])
    instance.milestones["ready"] = 9
    assert [instance.accelerator, instance.accelerator] == ["systrap"] * 2
    assert asked == [Processes((7,))]


@pytest.mark.parametrize(("sandboxed", "found"), [(True, "unknown"), (False, "none")])
def test_a_container_that_its_daemon_no_longer_has_is_on_an_unknown_platform(
    monkeypatch: pytest.MonkeyPatch, sandboxed: bool, found: str
) -> None:
    def fail(_: object) -> Processes:
        raise TrialError("no such container")

    monkeypatch.setattr(DockerInstance, "processes", fail)
    starter = cast(Starter, None)
    daemon = find_user_daemon("unix:///run/docker.sock", "cgroupfs")
    instance = DockerInstance(SPEC, Channel(starter), starter, daemon, None, sandboxed=sandboxed)
    instance.milestones["ready"] = 9
    assert instance.accelerator == found


# ---- what the manifest says of a daemon ------------------------------------------------------

OWN = DockerDaemon("unix:///s/docker/socket", private=True, states=Path("/exec"))
USERS = find_user_daemon("unix:///var/run/docker.sock", "cgroupfs")


@pytest.mark.parametrize(
    ("daemon", "asked", "answers", "private", "runs_on"),
    [
        (OWN, True, True, True, "ptrace"),
        (USERS, True, True, False, "unknown"),
        (None, True, False, True, "ptrace"),
        (None, True, True, False, "unknown"),
        (None, False, False, False, "unknown"),
    ],
    ids=["own", "a user's all the same", "to be started", "one answers", "none asked for"],
)
def test_a_daemon_is_described_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
    daemon: DockerDaemon | None,
    asked: bool,
    answers: bool,
    private: bool,
    runs_on: str,
) -> None:
    module = "harness.drivers.docker_engine"
    monkeypatch.setattr(f"{module}._find_own_fault", lambda: "dockerd is not installed")
    silent = None if answers else ("no daemon", "start it")
    monkeypatch.setattr(f"{module}.find_daemon_fault", lambda _: silent)
    monkeypatch.setattr("harness.drivers.runsc.read_platforms", lambda: ("ptrace", "kvm"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    toolbox = Toolbox(
        Path("/starter"), scratch=Path("/s"), platform="docker+gvisor",
        options=parse_variant("docker+gvisor").options, start_engines=asked,
        shared={"docker": daemon} if daemon else {},
    )  # fmt: skip
    driver = load_driver("docker+gvisor", toolbox)
    assert isinstance(driver, DockerDriver)
    described = driver.describe(SPEC)
    assert described["private"] is private
    assert described["daemon"] == (OWN.host if private else USERS.host)
    assert described["accelerator"] == runs_on
