"""The moves of a run: which there are, in which order, and what became of each.

They come after the trials. Every repeat is a block: all moves once, in an order that the run's seed
gives, so that medians have intervals and a slow minute of the host does not meet one packing alone.
"""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.drivers.base import Driver
from harness.images.rooted import tool_path
from harness.model import Kind, Outcome
from harness.moves import move
from harness.moves.containers import COMPRESSIONS, REGISTRY
from harness.moves.link import Speed, find_delay_fault, find_link_fault
from harness.moves.machines import FILES
from harness.moves.model import SCENARIOS
from harness.moves.place import Place, start_place
from harness.moves.stock import PLATFORMS, list_packings
from harness.plan import Plan, ScheduledTrial, find_kind, runs_on
from harness.probes import noise
from harness.runner import Bench, build_outcome, build_spec, describe_error, find_remedy
from harness.starter import read_clock

DETAIL = "move"
"""The key of an outcome's details that says that it is a move."""

_LINK = ("nsenter", "tc")
_CONTAINER = ("docker-registry", "skopeo")
_MACHINE = ("debugfs",)
_PACKAGES = {"docker-registry": "docker-registry", "skopeo": "skopeo", "tc": "iproute2",
             "nsenter": "util-linux", "casync": "casync", "debugfs": "e2fsprogs"}  # fmt: skip
"""Programs of moves, and the packages that have them."""


@dataclass(frozen=True, slots=True)
class Move:
    """One move to come; ``scheduled`` has its number, repeat, platform and workload.

    After the ``cold`` ones a second start tells what a start reads.
    """

    scheduled: ScheduledTrial
    scenario: str
    packing: str
    speed: Speed
    cold: bool = False


def build_moves(plan: Plan, drivers: Mapping[str, Driver], number: int) -> list[Move]:
    """Every move of a run on the platforms that run here; also those that this host cannot do.

    They are numbered from ``number``, and shuffled, over all platforms of the plan.
    """
    if not plan.moves:
        return []
    workloads = {name: _find_workload(plan, name, driver) for name, driver in drivers.items()}
    kinds = _list_kinds(plan)
    moves: list[Move] = []
    for repeat in range(plan.repeats):
        shuffled = list(kinds)
        random.Random(f"{plan.seed}:moves:{repeat}").shuffle(shuffled)
        for order, (platform, scenario, packing, speed) in enumerate(shuffled):
            workload = workloads.get(platform)
            if workload is None:
                continue
            trial = number + repeat * len(kinds) + order
            scheduled = ScheduledTrial(repeat, trial, order, platform, workload, warmup=False)
            cold = (scenario, packing, speed) == (
                "first", list_packings(platform)[0], Speed(plan.bandwidths[0], plan.delay)
            )  # fmt: skip
            moves.append(Move(scheduled, scenario, packing, speed, cold))
    return moves


def count_moves(plan: Plan) -> int:
    """How many moves a plan may have on any host."""
    return plan.repeats * len(_list_kinds(plan)) if plan.moves else 0


def _list_kinds(plan: Plan) -> list[tuple[str, str, str, Speed]]:
    """Platform, scenario, packing and speed of every move of a repeat, on whatever host."""
    return [
        (platform, scenario, packing, Speed(bandwidth, plan.delay))
        for platform in plan.platforms
        if platform in PLATFORMS
        and not _is_apart(plan, find_kind(platform))
        and any(runs_on(each, platform) for each in plan.workloads)
        for packing in list_packings(platform)
        for scenario in SCENARIOS
        for bandwidth in plan.bandwidths
    ]


def _find_workload(plan: Plan, platform: str, driver: Driver) -> str | None:
    """The plan's first workload that a platform runs; None for a platform that does not move."""
    if platform not in PLATFORMS or _is_apart(plan, driver.kind):
        return None
    fitting = (each for each in plan.workloads if runs_on(each, platform))
    found = (each.name for each in fitting if not (each.network and driver.no_network))
    return next(found, None)


def _is_apart(plan: Plan, kind: Kind) -> bool:
    """Whether a libvirt other than the run's own has the machines: it has its own disks too."""
    return kind == "vm" and plan.connection is not None


# ---- what this host cannot do ----------------------------------------------------------------


def list_unmovable(plan: Plan, drivers: Mapping[str, Driver]) -> list[str]:
    """A line for each part of the moves that this host cannot do; none without moves."""
    if not plan.moves:
        return []
    apart = [name for name in PLATFORMS if name in drivers and _is_apart(plan, drivers[name].kind)]
    lines = [f"moves of {name}: its disks are those of {plan.connection}" for name in apart]
    moves = build_moves(replace(plan, repeats=1), drivers, 0)
    if not moves:
        return lines or [f"moves: none of the platforms is one of {', '.join(PLATFORMS)}"]
    if fault := find_missing(_LINK) or find_link_fault():
        return [*lines, f"moves: {fault}"]
    faults: dict[str, list[str]] = {}
    for each in moves:
        if fault := find_fault(each.packing):
            faults.setdefault(fault, []).append(each.packing)
    for fault, packings in faults.items():
        lines.append(f"moves by {', '.join(sorted(set(packings)))}: {fault}")
    if plan.delay and (fault := find_delay_fault()):
        lines.append(f"moves with a delay: {fault}")
    return lines


def find_fault(packing: str) -> str | None:
    """Why a packing cannot move here for want of a program; None if it can."""
    if packing in COMPRESSIONS:
        return find_missing(_CONTAINER)
    return find_missing((*_MACHINE, *(["casync"] if packing == "casync" else [])))


def find_command(name: str) -> str | None:
    """The path of a program, looked for where administrators' tools are too."""
    return shutil.which(name, path=tool_path()["PATH"])


def find_missing(programs: Iterable[str]) -> str | None:
    """The first of ``programs`` that is not installed, with its package; None if all are."""
    missing = next((name for name in programs if find_command(name) is None), None)
    if missing is None:
        return None
    return f"{missing} is not installed; the package is called {_PACKAGES[missing]}"


def choose_moves(moves: Sequence[Move]) -> list[Move]:
    """Those that this host can do, without a delay where the kernel has none to give."""
    if not moves or find_missing(_LINK) or find_link_fault():
        return []
    found = [each for each in moves if find_fault(each.packing) is None]
    if any(each.speed.delay for each in found) and find_delay_fault():
        return [replace(each, speed=replace(each.speed, delay=0.0)) for each in found]
    return found


# ---- doing them ------------------------------------------------------------------------------


def run_moves(moves: Sequence[Move], bench: Bench, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Yield the outcome of each move as it ends; servers that have ended are started anew."""
    waiting = list(moves)
    while waiting:
        folder = bench.scratch / f"moves-{waiting[0].scheduled.trial}"
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                place = stack.enter_context(start_place(folder, *_list_needs(waiting), say))
            except Exception as error:
                yield _build_failed(waiting.pop(0), bench, error)
                continue
            while waiting and place.is_whole():
                yield run_one(waiting.pop(0), bench, place)


def _list_needs(moves: Sequence[Move]) -> tuple[set[str], bool]:
    """The servers that moves need, and whether some of them need chunks."""
    packings = {each.packing for each in moves}
    services = {REGISTRY if packing in COMPRESSIONS else FILES for packing in packings}
    return services, "casync" in packings


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
    except Exception as error:
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


def _build_failed(each: Move, bench: Bench, error: Exception) -> Outcome:
    what = f"{each.scenario} by {each.packing} at {each.speed.label}"
    return replace(
        build_outcome(each.scheduled, bench),
        status="failed",
        error=f"moving {what}: {describe_error(error)}",
        hint=find_remedy(error),
        details={DETAIL: {"scenario": each.scenario, "packing": each.packing,
                          "link": each.speed.label}},
    )  # fmt: skip
