"""What a run would do, as plain values: the order of its trials and how each instance starts.

Nothing is fetched or started, and no image is built. Where an image or the guest kernel is not
there yet, its place in the cache is shown all the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.certificate import Certificate, find_reference
from harness.conditions import build_expected
from harness.drivers import load_driver
from harness.drivers.base import Driver, Toolbox
from harness.errors import HarnessError
from harness.images import store
from harness.images.kernel import find_guest_kernel, kernels_dir
from harness.images.model import GuestKernel, Image, Packing
from harness.images.pack import PATHS
from harness.images.programs import build_programs
from harness.minimum import build_searches
from harness.model import Kind
from harness.moves.series import build_moves
from harness.paths import cache_dir, scratch_root
from harness.plan import (
    Plan,
    ScheduledTrial,
    build_document,
    build_schedule,
    choose_arms,
    count_trials,
)
from harness.precision import find_looks, find_next_look
from harness.runner import Bench, build_spec
from harness.units import format_seconds
from harness.variants import find_points, parse_variant

_RUN_ID = "dry-run"
_UNKNOWN = "not built yet"


def build_preview(plan: Plan) -> dict[str, object]:
    """Plan, order and starts in JSON types; ``starts`` has one entry for each combination."""
    toolbox = find_toolbox(plan)
    drivers: dict[str, Driver] = {}
    problems: dict[str, str] = {}
    for name in plan.platforms:
        try:
            drivers[name] = load_driver(name, toolbox)
            problem = drivers[name].unavailable()
        except HarnessError as error:
            problem = str(error)
        if problem:
            problems[name] = problem
    plan = _settle_arms(
        plan, {name: drivers[name].kind for name in drivers if name not in problems}
    )
    schedule = build_schedule(replace(plan, blocks=_show_blocks(plan)))
    bench = build_dry_bench(plan, drivers)
    preview: dict[str, object] = {
        "plan": build_document(plan),
        "entered twice": ", ".join(plan.aa) or "none",
        "end": describe_end(plan),
        "order": _describe_order(schedule),
        "starts": _describe_starts(schedule, bench),
    }
    number = count_trials(plan)
    preview["ratios"] = _describe_ratios(plan, schedule, bench)
    if searches := build_searches(plan, drivers, number, grouped=True):
        names = (f"{each.platform} {each.workload}" for each in searches)
        preview["searches for the smallest memory"] = ", ".join(names)
    if moves := build_moves(replace(plan, repeats=1), drivers, number):
        ways = (f"{m.scheduled.platform} {m.scenario} by {m.packing} at {m.speed.label}"
                for m in moves)  # fmt: skip
        preview[f"moves, {plan.repeats} times"] = ", ".join(ways)
    return {**preview, "cannot run here": problems} if problems else preview


def _describe_ratios(
    plan: Plan, schedule: Sequence[ScheduledTrial], bench: Bench
) -> dict[str, object]:
    """The parity certificate as far as it is known before anything has started: what every two
    platforms of a workload would be compared under, or why they would have no ratio."""
    found = {}
    for each in schedule:
        if each.platform in bench.drivers and (each.platform, each.workload) not in found:
            spec = build_spec(each, bench)
            options = parse_variant(each.platform).options
            kind = bench.drivers[each.platform].kind
            expected = build_expected(kind, spec, read_only=options.read_only)
            known = {name: each for name, each in expected.items() if each.value is not None}
            found[each.platform, each.workload] = known  # of an image yet to be built less is
    stated = {name: find_points(name) for name in plan.platforms}
    certificate = Certificate(found, frozenset(plan.differ), stated)
    kinds = {name: driver.kind for name, driver in bench.drivers.items()}
    return {
        f"{platform} {workload}": describe_ratio(certificate, platform, reference, workload)
        for platform, workload in sorted(found)
        if (reference := find_reference(list(bench.drivers), kinds)) not in (None, platform)
    }


def describe_ratio(
    certificate: Certificate, platform: str, reference: str | None, workload: str
) -> str:
    """What the certificate means for one ratio, in words."""
    if refusal := certificate.find_refusal(platform, reference or "", workload):
        return f"refused: {refusal}"
    found = certificate.find_differences(platform, reference or "", workload)
    names = ", ".join(each.dimension for each in found)
    alike = f"to {reference}, alike as far as is known before the start"
    return f"to {reference}; {names} differs, which is the point" if found else alike


def _settle_arms(plan: Plan, kinds: dict[str, Kind]) -> Plan:
    """The plan with the platforms that a run on this host would enter twice."""
    return replace(plan, aa=choose_arms(kinds, plan.workloads)) if plan.aa_open else plan


def _show_blocks(plan: Plan) -> int:
    """How many measured blocks are shown: with a precision those before the first look."""
    return plan.blocks if plan.precision is None else find_next_look(0, plan.blocks)


def describe_end(plan: Plan) -> str:
    """When the blocks of a run end, in words."""
    budget = "" if plan.budget is None else f", or once {format_seconds(plan.budget)} are spent"
    if plan.precision is None:
        return f"after {plan.blocks} blocks{budget}"
    looks = ", ".join(map(str, (*find_looks(plan.blocks), plan.blocks)))
    return (
        f"when the 95 % interval of every headline ratio is within {plan.precision * 100:g} % of "
        f"its middle at two looks in a row, of those after {looks} blocks{budget}"
    )


def find_toolbox(plan: Plan) -> Toolbox:
    """The programs and the guest kernel that are there; else where they will be."""
    try:
        starter = build_programs().starter
        kernel = find_guest_kernel()
    except HarnessError:
        starter, kernel = cache_dir() / "programs" / "starter", None
    return Toolbox(
        starter=starter,
        kernel=kernel or _imagine_kernel(),
        accelerator=plan.accelerator,
        connection=plan.connection,
        scratch=scratch_root() / _RUN_ID,
    )


def _imagine_kernel() -> GuestKernel:
    folder = kernels_dir() / "current"
    return GuestKernel(
        release=_UNKNOWN,
        digest=_UNKNOWN,
        bzimage=folder / "bzImage",
        elf=folder / "vmlinux",
        initramfs=folder / "initramfs",
        layered=folder / "layered",
        modules=(),
    )


def build_dry_bench(plan: Plan, drivers: dict[str, Driver]) -> Bench:
    """A bench that is good for describing, and starts nothing."""
    names = {workload.image for workload in plan.workloads}
    return Bench(
        run_id=_RUN_ID,
        drivers=drivers,
        images={name: _find_image(name) for name in names},
        workloads={workload.name: workload for workload in plan.workloads},
        fixed={},
        scratch=scratch_root() / _RUN_ID,
        logs=Path("logs"),
        tree=None,
        cache=plan.cache,
        settle=plan.settle,
        memory=plan.memory,
        cpus=plan.cpus,
        pids=plan.pids,
        disk=plan.disk,
        io=plan.io,
    )


def _find_image(name: str) -> Image:
    record = store.find_record(name)
    if record is not None:
        return record.image
    folder = store.images_dir() / name / "current"
    packings = {each: Packing(each, folder / path, 0, 0) for each, path in PATHS.items()}
    return Image(name, _UNKNOWN, folder, packings)


def _describe_order(schedule: tuple[ScheduledTrial, ...]) -> dict[str, object]:
    """The arms of each block, in order."""
    blocks: dict[str, list[str]] = {}
    for each in schedule:
        name = f"block {each.block}" + (" (warm-up)" if each.warmup else "")
        blocks.setdefault(name, []).append(f"{each.platform} {each.workload}")
    return {name: ", ".join(arms) for name, arms in blocks.items()}


def _describe_starts(schedule: tuple[ScheduledTrial, ...], bench: Bench) -> dict[str, object]:
    first: dict[str, ScheduledTrial] = {}
    for each in schedule:
        if each.platform in bench.drivers:  # an A/A arm starts as its platform does
            first.setdefault(f"{each.platform} {each.workload}", each)
    return {
        name: dict(bench.drivers[each.platform].describe(build_spec(each, bench)))
        for name, each in sorted(first.items())
    }
