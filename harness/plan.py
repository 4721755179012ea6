"""What a run measures, decided: frozen data, stored with the run, and the order of its trials.

The schedule is a pure function of the plan: so a resumed run goes on in the very order that the
seed gave.
"""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from harness.errors import InputError
from harness.inputs import suggest
from harness.model import AA_SUFFIX, CacheState, Kind
from harness.variants import find_base, parse_variant
from harness.workloads import Workload

__all__ = [
    "IMAGE_MARK",
    "Plan",
    "ScheduledTrial",
    "Workload",
    "build_arms",
    "build_block",
    "build_document",
    "build_schedule",
    "build_variants",
    "choose_arms",
    "count_trials",
    "find_kind",
    "parse_document",
    "place_workload",
    "require_images",
    "runs_on",
    "walk_schedule",
]


IMAGE_MARK = "@"
"""Between a workload and the image that it runs in instead of its own: ``noop@slim``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, decided: durations in seconds, sizes in bytes, workloads resolved and checked.

    ``bandwidths`` are bits per second, ``delay`` and ``repeats`` those of the moves. ``precision``
    is a share; with it ``blocks`` is the most that are run. ``aa_open`` says that ``aa`` was not
    stated: the run then chooses again, among the platforms that run on its host. ``steady`` is what
    the instances of a loaded density series do, None where there is none.
    ``reserve`` (bytes), ``reserve_pids`` and ``reserve_disk`` (bytes) are what the host keeps, None
    by its size. ``pids``, ``disk`` (bytes) and ``io`` (bytes per second) are further limits of an
    instance, None is none; ``differ`` are the dimensions in which platforms may differ and be
    compared all the same. ``remote`` says that ``connection`` leads to another host.
    """

    platforms: tuple[str, ...]
    aa: tuple[str, ...]
    workloads: tuple[Workload, ...]
    blocks: int
    warmup: int
    seed: int
    cache: CacheState
    settle: float
    density: int
    memory: int
    cpus: int
    budget: float | None
    accelerator: Literal["auto", "kvm", "tcg"]
    connection: str | None
    start_engines: bool = False
    docker_host: str | None = None
    minimum: bool = False
    allow_different_trees: bool = False
    moves: bool = False
    bandwidths: tuple[int, ...] = ()
    delay: float = 0.0
    repeats: int = 3
    precision: float | None = None
    aa_open: bool = False
    reserve: int | None = None
    reserve_pids: int | None = None
    reserve_disk: int | None = None
    density_pressure: float = 0.10
    remote: bool = False
    density_time: float | None = None
    density_load: tuple[Literal["idle", "loaded"], ...] = ("idle",)
    steady: Workload | None = None
    storm: int = 0
    storm_rates: tuple[float, ...] = ()
    storm_repeats: int = 6
    pids: int | None = None
    disk: int | None = None
    io: int | None = None
    differ: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduledTrial:
    """One trial to come. ``order`` is its place in its block; ``trial`` numbers the whole run."""

    block: int
    trial: int
    order: int
    platform: str
    workload: str
    warmup: bool


@dataclass(frozen=True, slots=True)
class Arm:
    """One combination that every block tries once; ``platform`` may be an A/A arm."""

    platform: str
    workload: str


def build_variants(workload: Workload, images: tuple[str, ...]) -> tuple[Workload, ...]:
    """The workload in each of ``images``; in its own image where there are none."""
    if not images:
        return (workload,)
    if len(images) == 1:
        return (replace(workload, image=images[0]),)
    return tuple(place_workload(workload, each) for each in images)


def place_workload(workload: Workload, image: str) -> Workload:
    """The workload in another image, and with a name that says so."""
    return replace(workload, image=image, name=f"{workload.name}{IMAGE_MARK}{image}")


def build_arms(plan: Plan) -> tuple[Arm, ...]:
    """Every platform × workload, A/A arms included, without those that cannot be.

    These are the ones that a workload skips, by base platform or by full name, and services that
    are to be asked over a network that the platform does not have.
    """
    platforms = [(name, name) for name in plan.platforms]
    platforms += [(name, name + AA_SUFFIX) for name in plan.aa]
    return tuple(
        Arm(entered, workload.name)
        for workload in plan.workloads
        for platform, entered in platforms
        if runs_on(workload, platform)
    )


def runs_on(workload: Workload, platform: str) -> bool:
    """Whether a platform can run a workload at all."""
    if platform in workload.skip or find_base(platform) in workload.skip:
        return False
    cut_off = parse_variant(platform).options.network == "none"
    return not (cut_off and workload.network)


def find_kind(platform: str) -> Kind:
    """The kind of a platform by its name alone, whether or not it runs here."""
    variant = parse_variant(platform)
    if variant.base.startswith("vm-"):
        return "vm"
    if "gvisor" in (variant.base, variant.options.runtime):
        return "sandbox"
    return "process" if variant.base == "process" else "container"


def choose_arms(kinds: Mapping[str, Kind], workloads: Collection[Workload]) -> tuple[str, ...]:
    """The platforms to enter twice where the plan states none: the first container (a sandbox
    where there is none) and the first virtual machine of ``kinds``, which run something; where
    there is neither, the first platform.
    """
    able = {
        name: kind for name, kind in kinds.items() if any(runs_on(each, name) for each in workloads)
    }

    def find_first(*wanted: Kind) -> str | None:
        found = (name for kind in wanted for name in able if able[name] == kind)
        return next(found, None)

    chosen = (find_first("container", "sandbox"), find_first("vm"))
    return tuple(name for name in chosen if name is not None) or tuple(able)[:1]


def build_schedule(plan: Plan) -> tuple[ScheduledTrial, ...]:
    """Randomised complete blocks: every arm once in each, in an order of the seed.

    Warm-up blocks come first and are numbered with the others, from 0.
    """
    return tuple(each for block in walk_schedule(plan) for each in block)


def walk_schedule(plan: Plan) -> Iterator[tuple[ScheduledTrial, ...]]:
    """The blocks of the schedule one by one, each made when it is asked for."""
    for block in range(plan.warmup + plan.blocks):
        yield build_block(plan, block)


def build_block(plan: Plan, block: int) -> tuple[ScheduledTrial, ...]:
    """One block: a pure function of the plan and its number, whatever became of the others."""
    arms = build_arms(plan)
    shuffled = list(arms)
    random.Random(f"{plan.seed}:{block}").shuffle(shuffled)
    return tuple(
        ScheduledTrial(
            block=block,
            trial=block * len(arms) + order,
            order=order,
            platform=arm.platform,
            workload=arm.workload,
            warmup=block < plan.warmup,
        )
        for order, arm in enumerate(shuffled)
    )


def count_trials(plan: Plan) -> int:
    """How many trials all blocks have. Those that a run ends without keep their numbers."""
    return (plan.warmup + plan.blocks) * len(build_arms(plan))


def require_images(plan: Plan, known: Collection[str]) -> None:
    """Raise InputError for a workload whose image is neither a recipe nor imported."""
    for workload in plan.workloads:
        if workload.image not in known:
            raise InputError(
                f"{workload.source}: key 'image': there is no image {workload.image!r}",
                hint=suggest(workload.image, known, "images"),
            )


def build_document(plan: Plan) -> dict[str, object]:
    """The plan in JSON types, for the manifest."""
    document: dict[str, object] = msgspec.to_builtins(plan)
    return document


def parse_document(document: Mapping[str, object]) -> Plan:
    """The plan of a manifest; raises InputError if it is damaged or of another version."""
    try:
        return msgspec.convert(dict(document), Plan)
    except msgspec.ValidationError as error:
        raise InputError(
            f"the manifest's plan cannot be read: {error}", hint="begin a new run"
        ) from None
