"""Prove platforms by one real trial of `noop` on each: what `doctor` says is then a fact.

The trials are those of an ordinary small run, in a folder that is thrown away.
"""

import datetime
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.model import NO_ACCELERATOR, Outcome
from harness.plan_file import read_plan
from harness.session import Order, build_run_id, run_order
from harness.store import read_journal, read_manifest


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

    Never raises for what the host cannot do: that is the proof's reason.
    """
    if not names:
        return {}
    keys = {"platforms": tuple(names), "workloads": ("noop",), "blocks": 1, "warmup": 0}
    plan = read_plan(None, {**keys, "aa": (), "density": 0, **options}, new_seed=1)
    with tempfile.TemporaryDirectory(prefix="harness-doctor-") as folder:
        run_id = build_run_id(datetime.datetime.now(datetime.UTC))
        order = Order(plan, Path(folder) / "out", (), run_id, strict=False)
        try:
            code = run_order(order, Quiet(say))
        except HarnessError as error:
            return {name: Proof(reason=str(error)) for name in names}
        if code != 0:
            return {name: Proof(reason=f"the trials ended with {code}") for name in names}
        return _read_proofs(names, order.folder)


def _read_proofs(names: Sequence[str], folder: Path) -> Mapping[str, Proof]:
    outcomes = {each.platform: each for each in read_journal(folder / "journal.jsonl")}
    lines = read_manifest(folder).get("left_out")
    left_out = dict(str(line).split(": ", 1) for line in lines) if isinstance(lines, list) else {}
    return {name: _build_proof(outcomes.get(name), left_out.get(name)) for name in names}


def _build_proof(outcome: Outcome | None, reason: str | None) -> Proof:
    if outcome is None:
        return Proof(reason=reason or "the trial did not take place")
    if outcome.status != "ok":
        hint = f" ({outcome.hint})" if outcome.hint else ""
        return Proof(reason=f"{outcome.error}{hint}")
    stamps = outcome.milestones
    accelerator = None if outcome.accelerator == NO_ACCELERATOR else outcome.accelerator
    return Proof((stamps["ready"] - stamps["request"]) / 1e9, accelerator)
