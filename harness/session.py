"""A run from a decided plan to a result folder: the measuring half, put together.

The order: what needs the host's network (building images) comes first, then the lab is entered,
then trials run and each is in the journal before the next starts. Nothing here analyses.
"""

import contextlib
import datetime
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from harness import cgroup, lab, parity, preflight
from harness.certificate import build_certificate
from harness.certificate import build_report as build_certificate_report
from harness.drivers import load_driver
from harness.drivers.base import Driver, InstanceSpec, Toolbox
from harness.errors import HarnessError, HostError, InputError
from harness.ground import format_refused
from harness.images.bootable import require_forms
from harness.images.catalog import require_image, require_packing
from harness.images.kernel import require_guest_kernel
from harness.images.model import Image
from harness.images.pack import EXTRA_PATHS
from harness.images.programs import build_programs
from harness.launch import require_launches
from harness.limits import add_writing
from harness.load import require_generators
from harness.minimum import list_exempt
from harness.model import Measurement, Outcome
from harness.moves.series import list_unmovable
from harness.pace import Budget, Judge, Pace
from harness.paths import scratch_root
from harness.plan import (
    Plan,
    ScheduledTrial,
    choose_arms,
    parse_document,
)
from harness.precision import Ending, find_next_look, format_ending
from harness.probes import disk, portability
from harness.room import build_reserve, require_room
from harness.run_manifest import build_manifest
from harness.runner import Bench, build_spec
from harness.stock.usage import start_use
from harness.store import Store, read_manifest
from harness.store.needs import note_run
from harness.variants import parse_variant
from harness.work import Work, build_work

LOGS = "logs"
_VM_PREFIX = "vm-"
_FROM_DISK = "vm-disk"


class Listener(Protocol):
    """Who is told how a run goes: the command line's progress bar, or nobody."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def start(self, total: int, done: int) -> None:
        """Trials begin: ``total`` of them, ``done`` of these already stored."""

    def extend(self, total: int) -> None:
        """There will be so many trials: more, or fewer, than was thought."""

    def advance(self, outcome: Outcome) -> None:
        """A trial is stored."""


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked: the plan, where results go, and the words typed to ask it."""

    plan: Plan
    folder: Path
    command: tuple[str, ...]
    run_id: str
    strict: bool = True
    """Whether a platform that cannot run here is an error (asked by name) or is left out."""
    resume: bool = False


def build_run_id(now: datetime.datetime) -> str:
    """A new run's id: the UTC time, and four random letters against a collision."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def read_order(folder: Path, command: tuple[str, ...]) -> Order:
    """The order of an interrupted run, to go on with it; InputError if the folder has none."""
    manifest = read_manifest(folder)
    plan = manifest.get("plan")
    if not isinstance(plan, Mapping):
        raise InputError(f"{folder} has no plan to go on with", hint="begin a new run")
    strict = bool(manifest.get("strict", True))
    return Order(
        parse_document(plan), folder, command, str(manifest["run_id"]), strict, resume=True
    )


def run_order(order: Order, listener: Listener, judge: Judge | None = None) -> int:
    """Build what is missing, then measure in the lab; the exit code of the lab.

    ``judge`` looks at a run that is to go on until its ratios are narrow enough. Raises HostError
    or InputError for what is known before the lab is entered.
    """
    code = prepare(order, listener.say)
    if code:
        return code
    state = preflight.read_state()  # from outside: the lab sees no processes but its own
    judge = None if order.plan.precision is None else judge
    return lab.run_inside(lambda: _measure(order, listener, state, judge), order.run_id)


def prepare(order: Order, say: Callable[[str], None]) -> int:
    """Clean up after dead runs and build what is missing; an exit code, 0 if all is there."""
    for line in lab.clean_dead_runs():
        say(line)
    if os.geteuid() == 0:
        return build_parts(order.plan, say)
    return lab.run_inside(lambda: build_parts(order.plan, say), order.run_id, network=False)


def build_parts(plan: Plan, say: Callable[[str], None]) -> int:
    """Build whatever the plan needs and the cache has not; needs the host's network."""
    require_generators(plan.workloads)
    build_programs()
    images: dict[str, Image] = {}
    for name in sorted({workload.image for workload in plan.workloads}):
        image = images[name] = require_image(name, say)
        for variant in map(parse_variant, plan.platforms):
            if variant.options.disk in EXTRA_PATHS:
                require_packing(name, str(variant.options.disk), say)
            if variant.base == _FROM_DISK:
                require_forms(image, say)
    require_launches(plan.workloads, images)
    if _needs_kernel(plan):
        require_guest_kernel(say)
    return 0


def _needs_kernel(plan: Plan) -> bool:
    return any(platform.startswith(_VM_PREFIX) for platform in plan.platforms)


# ---- in the lab ------------------------------------------------------------------------------


def _measure(order: Order, listener: Listener, state: preflight.State, judge: Judge | None) -> int:
    plan = order.plan
    scratch = scratch_root() / order.run_id
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)  # conmon leaves a file where it was called for a container out of memory
    tree = cgroup.find_tree(order.run_id)
    tree = add_writing(tree, order.run_id) if tree and plan.io is not None else tree
    toolbox = build_toolbox(order, scratch, listener.say)
    drivers, left_out = find_drivers(plan, toolbox, strict=order.strict)
    bench = build_bench(order, drivers, scratch, tree)
    with contextlib.ExitStack() as engines:
        engines.enter_context(start_use(list_used(bench, toolbox)))
        left_out += leave_out_large(order, drivers, bench)
        left_out += start_engines(order, drivers, bench, engines)
        left_out += list_unreachable(plan, drivers)
        left_out += list_exempt(plan, drivers, grouped=tree is not None)
        left_out += list_unmovable(plan, drivers)
        for line in left_out:
            listener.say(f"left out: {line}")
        engines.enter_context(start_use(list_packed(bench.images, drivers)))
        ready = replace(bench, drivers=drivers, fixed=read_all_fixed(bench.images, drivers))
        ready = replace(ready, parity=check_parity(plan, ready, listener.say))
        settled = settle_arms(order, drivers, listener.say)
        manifest = build_manifest(settled, ready, toolbox, left_out, state)
        _run_trials(settled, ready, manifest, listener, judge)
    return 0


def settle_arms(order: Order, drivers: Mapping[str, Driver], say: Callable[[str], None]) -> Order:
    """The order with the platforms to enter twice chosen among those that run here.

    Those that a plan states stay as they are, and so do those of a run that is gone on with.
    """
    plan = order.plan
    if order.resume or not plan.aa_open:
        return order
    kinds = {name: drivers[name].kind for name in plan.platforms if name in drivers}
    chosen = choose_arms(kinds, plan.workloads)
    if chosen != plan.aa:
        say(f"entered twice: {', '.join(chosen)} (instead of {', '.join(plan.aa)})")
    return replace(order, plan=replace(plan, aa=chosen))


def check_parity(plan: Plan, bench: Bench, say: Callable[[str], None]) -> dict[str, object]:
    """Compare the trees of imported images before anything is measured on them.

    Raises HostError where they differ, unless the plan allows it.
    """
    imported = [image for _, image in sorted(bench.images.items()) if image.imported]
    findings = parity.check_images(bench, imported, say)
    if not plan.allow_different_trees:
        parity.require_same(findings)
    return parity.build_report(findings)


def leave_out_large(order: Order, drivers: dict[str, Driver], bench: Bench) -> list[str]:
    """A line for each platform of which this host has no room for even one instance, and that is
    then no longer among ``drivers``. Raises HostError instead where that is strict."""
    left_out = []
    for name, driver in tuple(drivers.items()):
        try:
            for spec in build_first_specs(order.plan, bench, name):
                require_room(
                    spec, driver.kind, bench.reserve, bench.scratch, elsewhere=bench.remote
                )
        except HarnessError as error:
            if order.strict:
                raise HostError(f"{name}: {error.message}", hint=error.hint) from None
            left_out.append(f"{name}: {error.message}")
            del drivers[name]
    if not drivers:
        raise HostError("no platform of the plan can run here", hint="; ".join(left_out))
    return left_out


def start_engines(
    order: Order, drivers: dict[str, Driver], bench: Bench, stack: contextlib.ExitStack
) -> list[str]:
    """What comes once before all trials, for every platform; a line for each that it fails for,
    and that is then no longer among ``drivers``. Raises HostError instead where that is strict.
    """
    left_out = []
    for name in tuple(drivers):
        try:
            specs = build_first_specs(order.plan, bench, name)
            stack.enter_context(drivers[name].start_run(specs))
        except HostError as error:
            if order.strict:
                raise HostError(
                    f"{name} cannot run here: {error.message}", hint=error.hint
                ) from error
            left_out.append(f"{name}: {error}")
            del drivers[name]
    if not drivers:
        raise HostError("no platform of the plan can run here", hint="; ".join(left_out))
    return left_out


def build_first_specs(plan: Plan, bench: Bench, platform: str) -> list[InstanceSpec]:
    """An instance of every workload of the plan, as the platform would start it.

    Also of those that it leaves out: engines that platforms share are made ready once for all.
    """
    return [
        build_spec(ScheduledTrial(0, number, 0, platform, each.name, warmup=False), bench)
        for number, each in enumerate(plan.workloads)
    ]


def list_unreachable(plan: Plan, drivers: Mapping[str, Driver]) -> list[str]:
    """A line for each platform that runs only what needs no network."""
    names = ", ".join(each.name for each in plan.workloads if each.network)
    reasons = {name: driver.no_network for name, driver in drivers.items()} if names else {}
    return [f"{name} with {names}: {reason}" for name, reason in reasons.items() if reason]


def _run_trials(
    order: Order,
    bench: Bench,
    manifest: Mapping[str, object],
    listener: Listener,
    judge: Judge | None,
) -> None:
    with open_store(order, manifest) as store:
        work = build_work(order.plan, bench, listener.say)
        done = {outcome.trial for outcome in drop_unfinished(store, work, listener.say)}
        work = replace(work, done=frozenset(done))
        blocks = order.plan.blocks if judge is None else find_next_look(0, order.plan.blocks)
        listener.start(work.count(blocks), len(done))
        pace = Pace(
            plan=order.plan,
            budget=Budget(order.plan.budget),
            judge=judge,
            told=lambda more: listener.extend(work.count(more)),
        )
        stored = len(done)
        told: set[str] = set()
        for outcomes in work.run(pace):
            store.append(*outcomes)
            stored += len(outcomes)
            for outcome in outcomes:
                _say_refused(outcome, told, listener.say)
                listener.advance(outcome)
        listener.extend(stored)
        ending = pace.conclude()
        found = build_certificate(store.read_outcomes(), manifest)
        certificate = build_certificate_report(found)
        store.update_manifest({"ending": asdict(ending), "certificate": certificate})
        _say_ending(ending, listener.say)


def drop_unfinished(store: Store, work: Work, say: Callable[[str], None]) -> list[Outcome]:
    """What is stored already, without a density series or storm that was interrupted: such a one
    begins anew."""
    outcomes = store.read_outcomes()
    if count := work.count_unfinished(outcomes):
        last = outcomes[-1]
        say(f"begins anew, as it was interrupted: {last.workload} {count} times on {last.platform}")
        store.drop_last(count)
    return outcomes[: len(outcomes) - count]


def _say_refused(outcome: Outcome, told: set[str], say: Callable[[str], None]) -> None:
    """Say once in a run which limit of the plan cannot be had here, and why."""
    for line in format_refused(outcome.details):
        if line not in told:
            told.add(line)
            say(line)


def _say_ending(ending: Ending, say: Callable[[str], None]) -> None:
    if text := format_ending(ending):
        say(text)


def build_toolbox(order: Order, scratch: Path, say: Callable[[str], None]) -> Toolbox:
    """What the drivers may use; the guest kernel only where a VM asks for it."""
    plan = order.plan
    return Toolbox(
        starter=build_programs().starter,
        kernel=require_guest_kernel(say) if _needs_kernel(plan) else None,
        accelerator=plan.accelerator,
        connection=plan.connection,
        logs=order.folder / LOGS,
        scratch=scratch,
        run_id=order.run_id,
        start_engines=plan.start_engines,
        docker_host=plan.docker_host,
        say=say,
    )


def find_drivers(
    plan: Plan, toolbox: Toolbox, *, strict: bool
) -> tuple[dict[str, Driver], list[str]]:
    """The plan's platforms that can run here, and a line for each that cannot.

    Raises HostError for one of the latter with ``strict``, and where none is left.
    """
    drivers: dict[str, Driver] = {}
    left_out: list[str] = []
    for name in plan.platforms:
        driver = load_driver(name, toolbox)
        reason = driver.unavailable()
        if reason is None:
            drivers[name] = driver
        elif strict:
            raise HostError(f"{name} cannot run here: {reason}")
        else:
            left_out.append(f"{name}: {reason}")
    if not drivers:
        raise HostError("no platform of the plan can run here", hint="; ".join(left_out))
    return drivers, left_out


def build_bench(
    order: Order,
    drivers: Mapping[str, Driver],
    scratch: Path,
    tree: cgroup.CgroupTree | None,
) -> Bench:
    plan = order.plan
    names = {workload.image for workload in plan.workloads}
    images = {name: require_image(name, lambda _: None) for name in names}
    return Bench(
        run_id=order.run_id,
        drivers=drivers,
        images=images,
        workloads={each.name: each for each in (*plan.workloads, *filter(None, [plan.steady]))},
        fixed={},
        scratch=scratch,
        logs=order.folder / LOGS,
        tree=tree,
        cache=plan.cache,
        settle=plan.settle,
        memory=plan.memory,
        cpus=plan.cpus,
        pids=plan.pids,
        disk=plan.disk,
        io=plan.io,
        reserve=build_reserve(scratch, plan.reserve, plan.reserve_pids, plan.reserve_disk),
        density_pressure=plan.density_pressure,
        remote=plan.remote,
        density_time=plan.density_time,
    )


def list_used(bench: Bench, toolbox: Toolbox) -> list[Path]:
    """What a run uses of the cache from its first moment."""
    kernel = [toolbox.kernel.bzimage] if toolbox.kernel else []
    return [toolbox.starter, *kernel, *(image.tree for image in bench.images.values())]


def list_packed(images: Mapping[str, Image], drivers: Mapping[str, Driver]) -> list[Path]:
    """The files of the images in the forms that platforms need: disks and snapshots too."""
    packed = [each for driver in drivers.values() for image in images.values()
              for each in driver.packed(image)]  # fmt: skip
    return [path for each in packed for path in each.paths]


def read_all_fixed(
    images: Mapping[str, Image], drivers: Mapping[str, Driver]
) -> dict[tuple[str, str], list[Measurement]]:
    """`read_fixed` of every platform and image, once all that they start from is made."""
    return {
        (name, image.name): read_fixed(driver, image)
        for name, driver in drivers.items()
        for image in images.values()
    }


def read_fixed(driver: Driver, image: Image) -> list[Measurement]:
    """An image's rows that no trial changes: disk and what it takes to move it."""
    packed = driver.packed(image)
    return [*disk.read_image(packed, image), *portability.measure_first(packed)]


def open_store(order: Order, manifest: Mapping[str, object]) -> Store:
    """A new result folder with its manifest, or the one to go on with."""
    note_run(order.run_id, order.folder)
    if not order.resume:
        return Store.create(order.folder, manifest)
    store = Store.open(order.folder)
    before = store.manifest.get("images")
    if before != manifest["images"]:
        store.close()
        raise InputError(
            f"{order.folder} was measured with other images",
            hint="begin a new run; two images are never mixed in one",
        )
    if changed := find_changed_guests(store.manifest, manifest):
        store.close()
        raise HostError(f"{order.folder} {changed}", hint="begin a new run, or mend that first")
    return store


def find_changed_guests(before: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """What guests ran on before and would run on now, where that is another thing."""
    old, new = before.get("accelerator"), now.get("accelerator")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return None
    for platform in (each for each in old if each in new):
        was, found = old[platform], new[platform]
        if was["name"] != found["name"]:
            return f"has {platform} on {was['name']}, and now it is {found['name']}: " + str(
                found["reason"]
            )
    return None
