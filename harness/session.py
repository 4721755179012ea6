"""A run from a decided plan to a result folder: the measuring half, put together.

The order: what needs the host's network (building images) comes first, then the lab is entered,
then trials run and each is in the journal before the next starts. Nothing here analyses.
"""

import contextlib
import datetime
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from harness import cgroup, lab, parity, preflight
from harness.certificate import build_certificate
from harness.certificate import build_report as build_certificate_report
from harness.drivers import load_driver
from harness.drivers.base import Driver, InstanceSpec, Toolbox
from harness.errors import InputError
from harness.ground import format_refused
from harness.handover import Handover
from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
from harness.images.model import GuestKernel, Image
from harness.images.programs import build_programs
from harness.lab_view import require_kept
from harness.launch import require_launches
from harness.limits import add_writing
from harness.load import require_generators
from harness.minimum import list_exempt
from harness.model import Measurement, Outcome
from harness.moves.series import list_unmovable
from harness.pace import Budget, Judge, Pace
from harness.paths import scratch_root
from harness.places import require_cache
from harness.plan import (
    Plan,
    ScheduledTrial,
    choose_arms,
    parse_document,
)
from harness.precision import Ending, find_next_look, format_ending
from harness.preparation import Failed, build_own, is_machine
from harness.probes import disk, portability
from harness.room import build_reserve, require_room
from harness.roster import LeftOut, Roster
from harness.run_folder import open_store
from harness.run_manifest import build_manifest
from harness.runner import Bench, build_spec, describe_error
from harness.stock.usage import start_use
from harness.store import Store, read_manifest
from harness.work import Work, build_work

LOGS = "logs"


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
    kept: bool = True
    """Whether the folder stays; `doctor` throws it away."""
    told: Handover = field(default_factory=Handover, compare=False)
    """What the run's processes tell each other of the platforms that are left out."""

    def open_roster(self) -> Roster:
        """Who takes part, as far as it is known by now."""
        return Roster(self.strict, self.folder / LOGS if self.kept else None, self.told)

    @property
    def left_out(self) -> list[LeftOut]:
        """The platforms that take no part, as far as it is known by now."""
        return [each for each in self.open_roster().left_out if not each.part]


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
    require_kept(order.folder)
    code = prepare(order, listener.say)
    if code:
        return code
    state = preflight.read_state()  # from outside: the lab sees no processes but its own
    judge = None if order.plan.precision is None else judge
    work = lambda: _measure(order, listener, state, judge)  # noqa: E731 - it is one call
    return lab.run_inside(work, order.run_id, connected=order.plan.connection is not None)


def prepare(order: Order, say: Callable[[str], None]) -> int:
    """Clean up after dead runs and build what is missing; an exit code, 0 if all is there."""
    require_cache()
    for line in lab.clean_dead_runs():
        say(line)
    if os.geteuid() == 0:
        return build_parts(order, say)
    return lab.run_inside(lambda: build_parts(order, say), order.run_id, network=False)


def build_parts(order: Order, say: Callable[[str], None]) -> int:
    """Build whatever the plan needs and the cache has not; needs the host's network.

    A platform whose own part cannot be built is left out; raises HostError or InputError for what
    all need, and where none is left.
    """
    plan, roster = order.plan, order.open_roster()
    require_generators(plan.workloads)
    build_programs()
    names = sorted({workload.image for workload in plan.workloads})
    images = {name: require_image(name, say) for name in names}
    require_launches(plan.workloads, images)
    failed: Failed = {}
    for platform in plan.platforms:
        with roster.trying(platform):
            build_own(platform, images, failed, say)
    roster.require_any(plan.platforms)
    return 0


# ---- in the lab ------------------------------------------------------------------------------


def _measure(order: Order, listener: Listener, state: preflight.State, judge: Judge | None) -> int:
    plan = order.plan
    scratch = scratch_root() / order.run_id
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)  # conmon leaves a file where it was called for a container out of memory
    tree = cgroup.find_tree(order.run_id)
    tree = add_writing(tree, order.run_id) if tree and plan.io is not None else tree
    roster = order.open_roster()
    toolbox = build_toolbox(order, scratch, listener.say)
    drivers = find_drivers(plan, toolbox, roster)
    bench = build_bench(order, drivers, scratch, tree)
    with contextlib.ExitStack() as engines:
        engines.enter_context(start_use(list_used(bench, toolbox)))
        leave_out_large(order, drivers, bench, roster)
        start_engines(order, drivers, bench, roster, engines, listener.say)
        packed = roster.go_through(drivers, lambda _, each: list_packed(bench.images, each))
        for paths in packed.values():
            engines.enter_context(start_use(paths))
        fixed = read_all_fixed(bench.images, drivers, roster)
        ready = replace(bench, drivers=drivers, fixed=fixed)
        require_described(plan, ready, drivers, roster)
        ready = replace(ready, parity=check_parity(plan, ready, drivers, roster, listener.say))
        left_out = list_left_out(plan, drivers, roster, grouped=tree is not None)
        for line in left_out:
            listener.say(f"left out: {line}")
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


def check_parity(
    plan: Plan,
    bench: Bench,
    drivers: dict[str, Driver],
    roster: Roster,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Compare the trees of imported images before anything is measured on them. A platform that
    cannot show its tree is left out of ``drivers``, which are those of ``bench``.

    Raises HostError where they differ, unless the plan allows it.
    """
    imported = [image for _, image in sorted(bench.images.items()) if image.imported]
    while True:
        try:
            findings = parity.check_images(bench, imported, say)
            break
        except parity.Unlistable as error:
            remedy = roster.find_remedy(error.platform, error.__cause__ or error)
            roster.leave_out(error.platform, error.message, remedy)
            del drivers[error.platform]
            roster.require_any(drivers)
    if not plan.allow_different_trees:
        parity.require_same(findings)
    return parity.build_report(findings)


def leave_out_large(order: Order, drivers: dict[str, Driver], bench: Bench, roster: Roster) -> None:
    """Leave out each platform of which this host has no room for even one instance."""

    def check(name: str, driver: Driver) -> None:
        for spec in build_first_specs(order.plan, bench, name):
            require_room(spec, driver.kind, bench.reserve, bench.scratch, elsewhere=bench.remote)

    roster.go_through(drivers, check)


def start_engines(
    order: Order,
    drivers: dict[str, Driver],
    bench: Bench,
    roster: Roster,
    stack: contextlib.ExitStack,
    say: Callable[[str], None],
) -> None:
    """What comes once before all trials, for every platform; it ends with ``stack``. A platform
    that it fails for is left out."""

    def start(name: str, driver: Driver) -> None:
        specs = build_first_specs(order.plan, bench, name)
        stack.enter_context(_start_run(name, driver, specs, say))

    roster.go_through(drivers, start)


@contextlib.contextmanager
def _start_run(
    name: str, driver: Driver, specs: list[InstanceSpec], say: Callable[[str], None]
) -> Iterator[None]:
    """The driver's own; what fails when it ends is said, and takes nothing from what was
    measured: the lab ends whatever is left."""
    with contextlib.ExitStack() as own:
        own.enter_context(driver.start_run(specs))
        try:
            yield
        finally:
            try:
                own.close()
            except Exception as error:
                say(f"{name} was not taken down in order: {describe_error(error)}")


def build_first_specs(plan: Plan, bench: Bench, platform: str) -> list[InstanceSpec]:
    """An instance of every workload of the plan, as the platform would start it.

    Also of those that it leaves out: engines that platforms share are made ready once for all.
    """
    return [
        build_spec(ScheduledTrial(0, number, 0, platform, each.name, warmup=False), bench)
        for number, each in enumerate(plan.workloads)
    ]


def list_left_out(
    plan: Plan, drivers: dict[str, Driver], roster: Roster, *, grouped: bool
) -> list[LeftOut | str]:
    """All that the run goes on without, platforms first."""
    unreachable = list_unreachable(plan, drivers, roster)  # a platform may break when it is asked
    return [
        *roster.left_out,
        *unreachable,
        *list_exempt(plan, drivers, grouped=grouped),
        *list_unmovable(plan, drivers),
    ]


def list_unreachable(plan: Plan, drivers: dict[str, Driver], roster: Roster) -> list[LeftOut]:
    """What is left out on each platform that runs only what needs no network."""
    names = ", ".join(each.name for each in plan.workloads if each.network)
    reasons = roster.go_through(drivers, lambda _, driver: driver.no_network) if names else {}
    return [
        LeftOut(name, reason, part=f"with {names}") for name, reason in reasons.items() if reason
    ]


def require_described(plan: Plan, bench: Bench, drivers: dict[str, Driver], roster: Roster) -> None:
    """Leave out each platform that cannot say how it starts an instance: the manifest has it."""

    def describe(name: str, driver: Driver) -> None:
        for spec in build_first_specs(plan, bench, name):
            driver.describe(spec)

    roster.go_through(drivers, describe)


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
    plan, roster = order.plan, order.open_roster()
    kernel: GuestKernel | None = None
    for name in plan.platforms:
        if is_machine(name) and kernel is None and not roster.is_out(name):
            with roster.trying(name):
                kernel = require_guest_kernel(say)
    return Toolbox(
        starter=build_programs().starter,
        kernel=kernel,
        accelerator=plan.accelerator,
        connection=plan.connection,
        logs=order.folder / LOGS,
        scratch=scratch,
        run_id=order.run_id,
        start_engines=plan.start_engines,
        docker_host=plan.docker_host,
        say=say,
    )


def find_drivers(plan: Plan, toolbox: Toolbox, roster: Roster) -> dict[str, Driver]:
    """The plan's platforms that can run here; the others are left out.

    Raises HostError for one of the latter that was asked for by name, and where none is left.
    """
    drivers: dict[str, Driver] = {}
    for name in plan.platforms:
        if roster.is_out(name):
            continue
        reason = None
        with roster.trying(name):
            driver = load_driver(name, toolbox)
            reason = driver.unavailable()
            if reason is None:
                drivers[name] = driver
        if reason is not None:
            roster.leave_out(name, reason)
    roster.require_any(plan.platforms)
    return drivers


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


def list_packed(images: Mapping[str, Image], driver: Driver) -> list[Path]:
    """The files of the images in the forms that a platform needs: disks and snapshots too."""
    return [path for image in images.values() for each in driver.packed(image)
            for path in each.paths]  # fmt: skip


def read_all_fixed(
    images: Mapping[str, Image], drivers: dict[str, Driver], roster: Roster
) -> dict[tuple[str, str], list[Measurement]]:
    """`read_fixed` of every platform and image, once all that they start from is made."""
    found = roster.go_through(
        drivers, lambda _, driver: {each.name: read_fixed(driver, each) for each in images.values()}
    )
    return {(name, image): rows for name, own in found.items() for image, rows in own.items()}


def read_fixed(driver: Driver, image: Image) -> list[Measurement]:
    """An image's rows that no trial changes: disk and what it takes to move it."""
    packed = driver.packed(image)
    return [*disk.read_image(packed, image), *portability.measure_first(packed)]
