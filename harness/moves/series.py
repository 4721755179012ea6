"""The moves of a run: which there are, in which order, and what became of each.

They come after the trials. Every repeat is a block: all moves once, in an order that the run's seed
gives, so that medians have intervals and a slow minute of the host does not meet one packing alone.
"""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.drivers.base import Driver
from harness.errors import HarnessError, HostError
from harness.model import Outcome
from harness.moves import move
from harness.moves.containers import COMPRESSIONS, REGISTRY
from harness.moves.link import Speed, find_delay_fault, start_link
from harness.moves.machines import FILES
from harness.moves.model import SCENARIOS
from harness.moves.place import Place, start_place
from harness.moves.stock import PLATFORMS, list_packings
from harness.plan import Plan, ScheduledTrial, runs_on
from harness.probes import noise
from harness.runner import Bench, build_outcome, build_spec, describe_error, find_remedy
from harness.starter import read_clock
from harness.system import find_command

DETAIL = "move"
"""The key of an outcome's details that says that it is a move."""

_PROGRAMS = {"docker-registry": "docker-registry", "skopeo": "skopeo", "tc": "iproute2",
             "nsenter": "util-linux", "casync": "casync", "debugfs": "e2fsprogs"}  # fmt: skip
"""Programs of moves, and the packages that have them."""


@dataclass(frozen=True, slots=True)
class Move:
    """One move to come; ``scheduled`` has its number, repeat, platform and workload."""

    scheduled: ScheduledTrial
    scenario: str
    packing: str
    speed: Speed
    cold: bool = False


def build_moves(plan: Plan, drivers: Mapping[str, Driver], number: int) -> list[Move]:
    """Every move of a run, numbered from ``number``; also those that this host cannot do."""
    if not plan.moves:
        return []
    speeds = [Speed(each, plan.delay) for each in plan.bandwidths]
    pairs = [
        (name, work) for name in drivers if (work := _find_workload(plan, name, drivers[name]))
    ]
    kinds = [
        (platform, workload, scenario, packing, speed)
        for platform, workload in pairs
        for packing in list_packings(platform)
        for scenario in SCENARIOS
        for speed in speeds
    ]
    found: list[Move] = []
    for repeat in range(plan.repeats):
        shuffled = list(kinds)
        random.Random(f"{plan.seed}:moves:{repeat}").shuffle(shuffled)
        for order, (platform, workload, scenario, packing, speed) in enumerate(shuffled):
            trial = number + repeat * len(kinds) + order
            scheduled = ScheduledTrial(repeat, trial, order, platform, workload, warmup=False)
            cold = (scenario, packing, speed) == ("first", list_packings(platform)[0], speeds[0])
            found.append(Move(scheduled, scenario, packing, speed, cold))
    return found


def _find_workload(plan: Plan, platform: str, driver: Driver) -> str | None:
    """The plan's first workload that a platform runs; None for a platform that does not move."""
    if platform not in PLATFORMS:
        return None
    fitting = (each for each in plan.workloads if runs_on(each, platform))
    found = (each.name for each in fitting if not (each.network and driver.no_network))
    return next(found, None)


def list_unmovable(plan: Plan, drivers: Mapping[str, Driver]) -> list[str]:
    """A line for each part of the moves that this host cannot do; none without moves."""
    if not plan.moves:
        return []
    if not any(name in PLATFORMS for name in drivers):
        return [f"moves: none of the platforms is one of {', '.join(PLATFORMS)}"]
    faults: dict[str, list[str]] = {}
    for each in build_moves(replace(plan, repeats=1), drivers, 0):
        if fault := find_fault(each):
            faults.setdefault(fault, []).append(each.packing)
    lines = [f"moves by {', '.join(dict.fromkeys(names))}: {fault}"
             for fault, names in faults.items()]  # fmt: skip
    if plan.delay and (fault := _find_netem_fault()):
        lines.append(f"moves with a delay: {fault}")
    return lines


def _find_netem_fault() -> str | None:
    try:
        with start_link() as link:
            return find_delay_fault(link)
    except HostError as error:
        return error.message


def find_fault(each: Move) -> str | None:
    """Why this host cannot do a move; None if it can."""
    needed = ["nsenter", "tc"]
    if each.packing in COMPRESSIONS:
        needed += ["docker-registry", "skopeo"]
    else:
        needed += ["debugfs", *(["casync"] if each.packing == "casync" else [])]
    missing = next((name for name in needed if find_command(name) is None), None)
    if missing is None:
        return None
    return f"{missing} is not installed; the package is called {_PROGRAMS[missing]}"


def choose_moves(moves: Sequence[Move]) -> list[Move]:
    """Those that this host can do, without a delay where the kernel has none to give."""
    found = [each for each in moves if find_fault(each) is None]
    if any(each.speed.delay for each in found) and _find_netem_fault():
        return [replace(each, speed=replace(each.speed, delay=0.0)) for each in found]
    return found


# ---- doing them ------------------------------------------------------------------------------


def run_moves(moves: Sequence[Move], bench: Bench, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Yield the outcome of each move as it ends; after a failure the servers are started anew."""
    needed = {REGISTRY if each.packing in COMPRESSIONS else FILES for each in moves}
    chunks = any(each.packing == "casync" for each in moves)
    waiting = list(moves)
    while waiting:
        folder = bench.scratch / f"moves-{waiting[0].scheduled.trial}"
        with contextlib.ExitStack() as stack:
            try:
                place = stack.enter_context(start_place(folder, needed, say, chunks=chunks))
            except (HarnessError, OSError) as error:
                yield _build_failed(waiting.pop(0), bench, error)
                continue
            while waiting:
                outcome = run_one(waiting.pop(0), bench, place)
                yield outcome
                if outcome.status == "failed":
                    break
        shutil.rmtree(folder, ignore_errors=True)


def run_one(each: Move, bench: Bench, place: Place) -> Outcome:
    """One move. Only an interrupt of the user gets out."""
    order = move.Order(
        driver=bench.drivers[each.scheduled.platform],
        spec=build_spec(each.scheduled, bench),
        packing=each.packing,
        scenario=each.scenario,
        speed=each.speed,
        groups=bench.tree,
        cold=each.cold,
    )
    outcome = build_outcome(each.scheduled, bench)
    before = noise.read_noise(read_clock())
    try:
        account = move.run_move(order, place)
    except (HarnessError, OSError) as error:
        return _build_failed(each, bench, error)
    after = noise.read_noise(read_clock())
    marks = ["emulated"] if account.accelerator == "tcg" else []
    marks += noise.find_marks(before, after)
    marks += ["left-behind"] if account.left else []
    return replace(
        outcome,
        accelerator=account.accelerator,
        measurements=tuple(move.build_rows(order, account)),
        marks=tuple(dict.fromkeys(marks)),
        details={DETAIL: move.build_details(order, account),
                 "noise": noise.build_details(before, after)},
    )  # fmt: skip


def _build_failed(each: Move, bench: Bench, error: HarnessError | OSError) -> Outcome:
    what = f"{each.scenario} by {each.packing} at {each.speed.label}"
    return replace(
        build_outcome(each.scheduled, bench),
        status="failed",
        error=f"moving {what}: {describe_error(error)}",
        hint=find_remedy(error),
        details={DETAIL: {"scenario": each.scenario, "packing": each.packing,
                          "link": each.speed.label}},
    )  # fmt: skip
