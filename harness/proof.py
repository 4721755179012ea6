"""Prove platforms by one real trial of `noop` on each: what `doctor` says is then a fact.

The trials are those of an ordinary small run, in a folder that is thrown away.
"""

import datetime
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import lab
from harness.errors import HarnessError, InternalError
from harness.model import NO_ACCELERATOR, Outcome
from harness.plan_file import read_plan
from harness.roster import format_rerun
from harness.runner import SEE_TRACE
from harness.session import Order, build_run_id, run_order
from harness.store import read_journal
from harness.temporary import start_temporary

_SIGNALLED = 128
"""What is above it in an exit code is the number of the signal that ended a process."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of a trial: ``seconds`` to ready, or the reason why there was none.

    ``accelerator`` is what a guest ran on, ``kvm`` or ``tcg``, or a sandbox (gVisor's platform);
    None without one.
    """

    seconds: float | None = None
    accelerator: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Quiet:
    """A listener that hands on what is said and shows no progress."""

    tell: Callable[[str], None]

    def say(self, text: str) -> None:
        if not text.startswith("left out: "):  # it comes back as a reason
            self.tell(text)

    def start(self, total: int, done: int) -> None:
        """Nothing to show."""

    def extend(self, total: int) -> None:
        """Nothing shows how far it is."""

    def advance(self, outcome: Outcome) -> None:
        """Nothing to show."""


def prove_platforms(
    names: Sequence[str],
    options: Mapping[str, object],
    say: Callable[[str], None],
) -> Mapping[str, Proof]:
    """Run `noop` once on each of ``names``; ``options`` are further keys of a plan.

    Never raises for what the host cannot do: that is the proof's reason. KeyboardInterrupt where
    the user asks it to end, by whatever signal.
    """
    if not names:
        return {}
    proofs = _prove_together(names, options, say)
    missing = [name for name in names if name not in proofs]
    if len(names) > 1:
        # What ended the run for all may be the doing of one.
        for name in missing:
            proofs |= _prove_together([name], options, say)
    return proofs


def _prove_together(
    names: Sequence[str], options: Mapping[str, object], say: Callable[[str], None]
) -> dict[str, Proof]:
    """One run of these platforms. Those are missing that something ended with which may be
    another's doing, unless there is only one."""
    keys = {"platforms": tuple(names), "workloads": ("noop",), "blocks": 1, "warmup": 0}
    plan = read_plan(None, {**keys, "aa": (), "density": 0, **options}, new_seed=1)
    with start_temporary("doctor") as folder:
        run_id = build_run_id(datetime.datetime.now(datetime.UTC))
        order = Order(plan, folder / "out", (), run_id, strict=False, kept=False)
        reason, shared = _run(order, say)
        left_out = {each.platform: str(each).partition(": ")[2] for each in order.left_out}
        proofs = {name: Proof(reason=left_out[name]) for name in names if name in left_out}
        if reason is None or shared or len(names) == 1:
            outcomes = _read_outcomes(order.folder)
            for name in names:
                if name not in proofs:
                    proofs[name] = _build_proof(outcomes.get(name), reason)
    return proofs


def _run(order: Order, say: Callable[[str], None]) -> tuple[str | None, bool]:
    """Carry it out. Why it did not come to its end, None if it did; whether that is true for every
    platform."""
    try:
        code = run_order(order, Quiet(say))
    except HarnessError as error:
        return str(error), not isinstance(error, InternalError)
    lab.raise_interrupt(code)
    if code > _SIGNALLED:
        return f"it ended the process that ran it: {signal.strsignal(code - _SIGNALLED)}", False
    return (f"the run ended with {code}" if code else None), False


def _read_outcomes(folder: Path) -> dict[str, Outcome]:
    journal = folder / "journal.jsonl"
    found = read_journal(journal) if journal.exists() else []
    return {each.platform: each for each in found}


def _build_proof(outcome: Outcome | None, reason: str | None) -> Proof:
    if outcome is None:
        return Proof(reason=reason or "the trial did not take place")
    if outcome.status != "ok":
        # The trial's logs are thrown away with its folder.
        hint = format_rerun(outcome.platform) if outcome.hint == SEE_TRACE else outcome.hint
        return Proof(reason=f"{outcome.error} ({hint})" if hint else outcome.error)
    stamps = outcome.milestones
    accelerator = None if outcome.accelerator == NO_ACCELERATOR else outcome.accelerator
    return Proof((stamps["ready"] - stamps["request"]) / 1e9, accelerator)
