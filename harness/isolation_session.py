"""An isolation run from order to result folder: built, then asked in the lab, each task in the
journal before the next starts.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import cgroup, lab, preflight
from harness.isolation.model import Limits, Reserve, Task
from harness.isolation.trials import Site, build_schedule, build_workloads, run_tasks
from harness.lab_view import require_kept
from harness.limits import add_writing
from harness.paths import scratch_root
from harness.plan import Plan
from harness.run_manifest import build_manifest
from harness.session import (
    Listener,
    Order,
    build_bench,
    build_toolbox,
    find_drivers,
    list_packed,
    list_used,
    prepare,
    require_described,
    start_engines,
)
from harness.stock.usage import start_use
from harness.store import Store
from harness.store.needs import note_run


@dataclass(frozen=True, slots=True)
class IsolationOrder:
    """What was asked: platforms, tasks, limits, the host's reserve, and how long a hog goes on.

    ``strict`` says whether a platform that cannot run here is an error or is left out.
    """

    platforms: tuple[str, ...]
    tasks: tuple[Task, ...]
    folder: Path
    command: tuple[str, ...]
    run_id: str
    strict: bool
    limits: Limits
    reserve: Reserve
    seconds: float
    start_engines: bool = False


def run_isolation(order: IsolationOrder, listener: Listener) -> int:
    """Build what is missing, then ask in the lab; the exit code of the lab."""
    require_kept(order.folder)
    plain = build_order(order)
    code = prepare(plain, listener.say)
    if code:
        return code
    state = preflight.read_state()
    return lab.run_inside(lambda: _measure(order, plain, listener, state), order.run_id)


def build_order(order: IsolationOrder) -> Order:
    """The same as an order of a run, so that it is prepared and described in the same way."""
    workloads = tuple(each for each in build_workloads() if each.name in order.tasks)
    plan = Plan(
        platforms=order.platforms,
        aa=(),
        workloads=workloads,
        blocks=1,
        warmup=0,
        seed=0,
        cache="warm",
        settle=0.0,
        density=0,
        memory=order.limits.memory,
        cpus=order.limits.cpus,
        budget=None,
        accelerator="auto",
        connection=None,
        start_engines=order.start_engines,
    )
    return Order(plan, order.folder, order.command, order.run_id, order.strict)


def _measure(
    order: IsolationOrder, plain: Order, listener: Listener, state: preflight.State
) -> int:
    scratch = scratch_root() / order.run_id
    scratch.mkdir(parents=True, exist_ok=True)
    tree = cgroup.find_tree(order.run_id)
    tree = None if tree is None else add_writing(tree, order.run_id)
    toolbox = build_toolbox(plain, scratch, listener.say)
    roster = plain.open_roster()
    drivers = find_drivers(plain.plan, toolbox, roster)
    bench = build_bench(plain, drivers, scratch, tree)
    with contextlib.ExitStack() as engines:
        # conmon leaves a file called `oom` where it was called, once a container was killed.
        engines.enter_context(contextlib.chdir(scratch))
        engines.enter_context(start_use(list_used(bench, toolbox)))
        start_engines(plain, drivers, bench, roster, engines, listener.say)
        packed = roster.go_through(drivers, lambda _, each: list_packed(bench.images, each))
        for paths in packed.values():
            engines.enter_context(start_use(paths))
        bench = replace(bench, drivers=drivers)
        require_described(plain.plan, bench, drivers, roster)
        left_out = roster.left_out
        for line in left_out:
            listener.say(f"left out: {line}")
        site = Site(bench, order.limits, order.reserve, order.seconds)
        manifest = build_manifest(plain, site.bench, toolbox, left_out, state)
        manifest["isolation"] = _describe(order)
        _run(order.tasks, site, order.folder, manifest, listener)
    return 0


def _describe(order: IsolationOrder) -> dict[str, object]:
    return {
        "tasks": list(order.tasks),
        "limits": asdict(order.limits),
        "reserve": asdict(order.reserve),
        "seconds": order.seconds,
    }


def _run(
    tasks: Sequence[Task],
    site: Site,
    folder: Path,
    manifest: dict[str, object],
    listener: Listener,
) -> None:
    note_run(str(manifest["run_id"]), folder)
    with Store.create(folder, manifest) as store:
        schedule = build_schedule(tuple(site.bench.drivers), tasks)
        listener.start(len(schedule), 0)
        for outcome in run_tasks(schedule, site):
            store.append(outcome)
            listener.advance(outcome)
