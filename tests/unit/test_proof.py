"""`doctor`'s trials: each platform is told its own reason, never another's, never an exit code."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import doctor, proof
from harness.errors import HostError, InternalError
from harness.session import Order

NAMES = ("process", "namespace", "vm-direct")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))


def prove(monkeypatch: pytest.MonkeyPatch, run: Callable[[Order], int]) -> dict[str, str | None]:
    monkeypatch.setattr(proof, "run_order", lambda order, _listener: run(order))
    proofs = proof.prove_platforms(NAMES, {}, lambda _: None)
    return {name: proofs[name].reason for name in NAMES}


def test_what_is_left_out_has_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(order: Order) -> int:
        roster = order.open_roster()
        for name in NAMES:
            roster.leave_out(name, f"no {name}", "mend it")
        roster.require_any(NAMES)
        return 0

    assert prove(monkeypatch, run) == {name: f"no {name} (mend it)" for name in NAMES}


def test_what_is_true_for_all_is_said_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_order: Order) -> int:
        raise HostError("no mirror answers", hint="look at the network")

    assert prove(monkeypatch, run) == dict.fromkeys(
        NAMES, "no mirror answers (look at the network)"
    )


@pytest.mark.parametrize("broken", ["signal", "fault"])
def test_one_that_ends_the_run_of_all_is_found_by_running_each_alone(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(order: Order) -> int:
        if "vm-direct" not in order.plan.platforms:
            order.open_roster().note()
            return 0
        if broken == "fault":
            raise InternalError("KeyError: 'IPAddress'")
        return 128 + signal.SIGSEGV

    own = {"signal": "it ended the process that ran it: Segmentation fault",
           "fault": "KeyError: 'IPAddress'"}  # fmt: skip
    assert prove(monkeypatch, run) == {
        "process": "the trial did not take place",
        "namespace": "the trial did not take place",
        "vm-direct": own[broken],
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_user_who_ends_it_is_no_fault_of_a_platform(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def run(order: Order) -> int:
        runs.append(order.plan.platforms)
        return 128 + number

    with pytest.raises(KeyboardInterrupt):
        prove(monkeypatch, run)
    assert len(runs) == 1
    monkeypatch.setattr("harness.lab.run_inside", lambda *_: 128 + number)
    doctor._find_lab_fault.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        doctor.check_platform("process", ())


def test_a_driver_that_breaks_is_no_reason_to_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object) -> str | None:
        raise KeyError("IPAddress")

    monkeypatch.setattr("harness.drivers.namespace.NamespaceDriver.unavailable", fail)
    check = doctor.check_platform("namespace", ())
    assert check.reason == "internal error: KeyError: 'IPAddress'"
    assert doctor.check_platform("bubblewrap", ()).reason != check.reason


def test_a_lab_that_cannot_be_made_is_the_reason_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_work: object, _run_id: str) -> int:
        raise HostError("user.max_user_namespaces is 0", hint="as root: sysctl …")

    monkeypatch.setattr("harness.lab.run_inside", refuse)
    doctor._find_lab_fault.cache_clear()
    check = doctor.check_platform("process", ())
    doctor._find_lab_fault.cache_clear()
    assert (check.available, check.reason, check.remedy) == (
        False, "user.max_user_namespaces is 0", "as root: sysctl …"
    )  # fmt: skip
