"""From a plan file, the options of the command line and the defaults to one checked plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.drivers import PLATFORMS
from harness.drivers.libvirt_uri import is_remote, require_uri
from harness.errors import InputError
from harness.inputs import Origin, build_error, convert_keys, read_toml
from harness.model import CacheState
from harness.plan import (
    IMAGE_MARK,
    Plan,
    build_arms,
    build_variants,
    choose_arms,
    find_kind,
    place_workload,
)
from harness.precision import CONFIRMED_BLOCKS, MOST_BLOCKS
from harness.units import format_bandwidth, parse_bandwidth, parse_duration, parse_share, parse_size
from harness.variants import build_variant, parse_variant
from harness.workloads import UnknownWorkloadError, Workload, read_workload

QUICK_BLOCKS = 3
MEMORY_LEAST = 64 << 20
DEFAULT_PLATFORMS = (
    "process", "namespace", "crun", "runc", "gvisor", "podman", "docker", "vm-direct", "vm-microvm",
    "vm-restore",
)  # fmt: skip


class VariantKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One platform with options, in words; it gets the name that says the same."""

    platform: Annotated[str, Meta(description="The platform that is varied", examples=["docker"])]
    runtime: Annotated[
        Literal["crun", "runc", "gvisor"] | UnsetType,
        Meta(description="Runtime under Docker and Podman: `docker+gvisor`", examples=["gvisor"]),
    ] = UNSET
    network: Annotated[
        Literal["none", "host", "bridge"] | UnsetType,
        Meta(
            description="`/no-net`, `/host-net`, `/bridge-net`. Default: the lab's bridge for "
            "workloads that need a network, loopback only for others",
            examples=["host"],
        ),
    ] = UNSET
    seccomp: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether system calls are filtered: `/seccomp`, `/no-seccomp`. Default: "
            "Docker and Podman filter, the runtimes alone do not",
            examples=[False],
        ),
    ] = UNSET
    read_only: Annotated[
        bool, Meta(description="A root that cannot be written: `/read-only`", examples=[True])
    ] = False
    limits: Annotated[bool, Meta(description="Without limits: `/no-limits`", examples=[False])] = (
        True
    )
    memory: Annotated[
        str | UnsetType,
        Meta(description="Another memory limit than the plan's: `/memory=1GiB`", examples=["1GiB"]),
    ] = UNSET
    cpus: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="Another number of CPUs than the plan's, which 0 stands for: `/cpus=2`",
            examples=[2],
        ),
    ] = 0
    tuned: Annotated[
        bool,
        Meta(
            description="A virtual machine tuned as far as this host allows, instead of what "
            "libvirt gives when asked for little: `/tuned`",
            examples=[True],
        ),
    ] = False
    kernel: Annotated[
        Literal["elf", "bzimage"] | UnsetType,
        Meta(description="The form of a directly booted kernel: `/bzimage`", examples=["bzimage"]),
    ] = UNSET
    firmware: Annotated[
        Literal["bios", "uefi"] | UnsetType,
        Meta(description="What a machine starts its disk with: `/uefi`", examples=["uefi"]),
    ] = UNSET
    disk: Annotated[
        Literal["overlay", "raw", "qcow2", "squashfs", "erofs", "virtiofs"] | UnsetType,
        Meta(
            description="What a guest's root is on: an overlay on a shared base, a raw or qcow2 "
            "disk of its own, a shared read-only squashfs or erofs, or a folder of the host by "
            "virtiofs: `/disk=erofs`",
            examples=["erofs"],
        ),
    ] = UNSET
    upper: Annotated[
        Literal["tmpfs", "disk"] | UnsetType,
        Meta(
            description="Where a guest with a read-only root writes: memory, or a disk of its "
            "own: `/upper=disk`",
            examples=["disk"],
        ),
    ] = UNSET
    disk_cache: Annotated[
        Literal["none", "writeback", "unsafe"] | UnsetType,
        Meta(
            description="How QEMU uses the host's page cache for disks: `/cache=none`. Default: "
            "QEMU's own (writeback), and `none` when tuned",
            examples=["none"],
        ),
    ] = UNSET
    discard: Annotated[
        bool,
        Meta(
            description="A guest's disk is told what is deleted, and the host has that space "
            "again: `/discard`",
            examples=[True],
        ),
    ] = False


class PlanKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a plan file, with their defaults."""

    platforms: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="The platforms to compare",
            examples=[["process", "namespace", "vm-direct"]],
        ),
    ] = DEFAULT_PLATFORMS
    variants: Annotated[
        tuple[VariantKeys, ...],
        Meta(
            description="Further platforms, each a table of [options](#variants); a name such as "
            "`runc/host-net` among the platforms says the same",
            examples=[[{"platform": "docker", "runtime": "gvisor"}]],
        ),
    ] = ()
    workloads: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Names of workloads, or paths of workload files; `noop@slim` is `noop` in "
            "that image",
            examples=[["noop", "./mine.toml"]],
        ),
    ] = ("noop", "httpd")
    images: Annotated[
        tuple[str, ...],
        Meta(
            description="Run every workload in these images instead of its own; with more than "
            "one, a workload is called `noop@slim`",
            examples=[["slim"]],
        ),
    ] = ()
    blocks: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Measured trials of each combination; with `precision` it is the most that "
            f"are run, {MOST_BLOCKS} unless stated",
            examples=[10],
        ),
    ] = 10
    warmup: Annotated[
        int,
        Meta(ge=0, le=100, description="Blocks before them that do not count", examples=[1]),
    ] = 1
    seed: Annotated[
        int | UnsetType,
        Meta(
            description="Decides the order of trials, 0 or more; stored with the run. Default: "
            "drawn anew",
            examples=[1],
        ),
    ] = UNSET
    cache: Annotated[
        CacheState,
        Meta(
            description="State of the page cache before a trial: `warm` or `cold`",
            examples=["warm"],
        ),
    ] = "warm"
    aa: Annotated[
        tuple[str, ...] | UnsetType,
        Meta(
            description="Platforms entered twice, to show the noise. Default: the first container "
            "and the first virtual machine that run here",
            examples=[["namespace", "vm-direct"]],
        ),
    ] = UNSET
    settle: Annotated[
        str,
        Meta(description="From `ready` to the reading of memory and disk", examples=["200ms"]),
    ] = "200ms"
    density: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Virtual machines to start at once for `memory.marginal` and "
            "`disk.marginal`, and eight times as many containers; 0 leaves it out",
            examples=[3],
        ),
    ] = 3
    minimum: Annotated[
        bool,
        Meta(
            description="After the trials, search for `memory.minimum`: the smallest memory of "
            "each platform with a limit, by some twenty starts of each workload",
            examples=[True],
        ),
    ] = False
    moves: Annotated[
        bool,
        Meta(
            description="After the trials, move the image with a small application to a host that "
            "lacks it, over a shaped link: bytes and seconds to `ready` of `namespace`, "
            "`vm-direct` and `vm-disk`",
            examples=[True],
        ),
    ] = False
    bandwidths: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Bandwidths of that link",
            examples=[["100Mbit", "1Gbit"]],
        ),
    ] = ("100Mbit", "1Gbit")
    delay: Annotated[
        str,
        Meta(
            description="How long the link holds each packet back, each way; needs a kernel with "
            "netem",
            examples=["5ms"],
        ),
    ] = "0s"
    repeats: Annotated[
        int,
        Meta(ge=1, le=1000, description="How often each move is measured", examples=[3]),
    ] = 3
    memory: Annotated[
        str,
        Meta(
            description="Memory of a guest, and limit of a container; 64MiB or more",
            examples=["256MiB"],
        ),
    ] = "256MiB"
    cpus: Annotated[
        int,
        Meta(ge=1, le=256, description="CPUs of a guest, limit of a container", examples=[1]),
    ] = 1
    timeout: Annotated[
        str,
        Meta(
            description="The longest wait for `ready` where the workload states none",
            examples=["60s"],
        ),
    ] = "60s"
    precision: Annotated[
        str | UnsetType,
        Meta(
            description="Go on in whole blocks until the 95 % interval of every headline ratio, "
            "from the middle to either end, is no wider than this share. Default: none",
            examples=["2%"],
        ),
    ] = UNSET
    budget: Annotated[
        str | UnsetType,
        Meta(
            description="Time after which nothing new is begun: no block, density series, search "
            "or move. Default: none",
            examples=["10m"],
        ),
    ] = UNSET
    accelerator: Annotated[
        Literal["auto", "kvm", "tcg"],
        Meta(
            description="How guests run: `kvm`, `tcg`, or `auto`: KVM if it was proved",
            examples=["auto"],
        ),
    ] = "auto"
    connection: Annotated[
        str | UnsetType,
        Meta(
            description="libvirt's address. Default: an embedded libvirt of the run's own",
            examples=["qemu:///system"],
        ),
    ] = UNSET
    start_engines: Annotated[
        bool,
        Meta(
            description="Start a Docker daemon of the run's own where none is running; it ends "
            "with the run",
            examples=[True],
        ),
    ] = False
    docker_host: Annotated[
        str | UnsetType,
        Meta(
            description="Address of the Docker daemon. Default: `DOCKER_HOST`, else its usual "
            "socket",
            examples=["unix:///run/docker.sock"],
        ),
    ] = UNSET
    allow_different_trees: Annotated[
        bool,
        Meta(
            description="Measure although an imported image shows different trees in containers "
            "and in guests; the report says so",
            examples=[True],
        ),
    ] = False


def read_plan(
    file: Path | None,
    options: Mapping[str, object],
    *,
    new_seed: int,
    own: tuple[Workload, ...] = (),
) -> Plan:
    """The plan of a file (None: the defaults alone) with ``options`` over it.

    ``options`` has the keys of a plan file, only those that were given. ``new_seed`` is taken
    where no seed is stated. ``own`` are workloads to run instead of any that have a name. Raises
    InputError naming file or option, key, reason and remedy.
    """
    written = read_toml(file) if file else {}
    name = str(file) if file else "the defaults"
    origins = {key: Origin(name, option=build_option(key)) for key in options}
    keys = convert_keys({**written, **options}, PlanKeys, origins, name)
    stated = frozenset({*written, *options})
    reader = _Reader(keys, lambda key: origins.get(key, Origin(name)), own, stated)
    beside = file.parent if file and "workloads" not in options else Path()
    return reader.resolve(beside, new_seed)


def build_option(key: str) -> str:
    """The option of the command line that stands for a key: ``platforms`` is ``--platform``."""
    singular = key.removesuffix("s") if key in ("platforms", "workloads", "images") else key
    return "--" + singular.replace("_", "-")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns checked keys into a plan; ``origin`` says where each key was written, ``stated`` which
    were written at all."""

    keys: PlanKeys
    origin: Callable[[str], Origin]
    own: tuple[Workload, ...] = ()
    stated: frozenset[str] = frozenset()

    def resolve(self, folder: Path, new_seed: int) -> Plan:
        keys = self.keys
        timeout = self._duration("timeout", keys.timeout)
        budget = UNSET if keys.budget is UNSET else self._duration("budget", str(keys.budget))
        platforms = self._all_platforms()
        connection = self._connection()
        workloads = self._workloads(folder, timeout)
        precision = self._precision()
        plan = Plan(
            platforms=platforms,
            aa=self._aa(platforms, workloads),
            aa_open=isinstance(keys.aa, UnsetType),
            workloads=workloads,
            blocks=self._blocks(precision),
            precision=precision,
            warmup=keys.warmup,
            seed=self._seed(new_seed),
            cache=keys.cache,
            settle=self._duration("settle", keys.settle, least=0.0),
            density=0 if is_remote(connection) else keys.density,
            minimum=keys.minimum,
            moves=keys.moves,
            bandwidths=self._bandwidths(),
            delay=self._duration("delay", keys.delay, least=0.0),
            repeats=keys.repeats,
            memory=self._memory(),
            cpus=keys.cpus,
            budget=None if budget is UNSET else budget,
            accelerator=keys.accelerator,
            connection=connection,
            start_engines=keys.start_engines,
            docker_host=None if keys.docker_host is UNSET else keys.docker_host,
            allow_different_trees=keys.allow_different_trees,
        )
        if not build_arms(plan):
            raise self._skipped(plan)
        return plan

    def _fault(self, key: str, reason: str, hint: str | None = None) -> InputError:
        return build_error(PlanKeys, key, self.origin(key), reason, hint)

    def _connection(self) -> str | None:
        """A libvirt's address. There are no density series on another host: they are read from this
        one's memory."""
        keys = self.keys
        if keys.connection is UNSET:
            return None
        try:
            uri = require_uri(keys.connection)
        except InputError as error:
            raise self._fault("connection", error.message, error.hint) from None
        if is_remote(uri) and keys.cache != "warm":
            reason = "the page cache of another host cannot be emptied from here"
            raise self._fault("connection", reason, 'cache = "warm"')
        return uri

    def _all_platforms(self) -> tuple[str, ...]:
        named = self._platforms("platforms", self.keys.platforms)
        varied = tuple(self._variant(each) for each in self.keys.variants)
        self._refuse_twice("variants", (*named, *varied))
        return (*named, *varied)

    def _platforms(self, key: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names, each as its variant is called; none of them twice."""
        try:
            found = tuple(parse_variant(name, PLATFORMS).name for name in names)
        except InputError as error:
            raise self._fault(key, error.message, error.hint) from None
        self._refuse_twice(key, found)
        return found

    def _variant(self, keys: VariantKeys) -> str:
        values = {key: value for key, value in msgspec.structs.asdict(keys).items()
                  if value is not UNSET and key != "platform"}  # fmt: skip
        values["cpus"] = keys.cpus or None
        try:
            if "memory" in values:
                values["memory"] = parse_size(values["memory"])
            parse_variant(keys.platform, PLATFORMS)
            return build_variant(keys.platform, keys.platform, values).name
        except InputError as error:
            raise self._fault("variants", error.message, error.hint) from None

    def _refuse_twice(self, key: str, names: tuple[str, ...]) -> None:
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            hint = f"say {twice!r} once; `aa` enters a platform twice"
            raise self._fault(key, f"{twice!r} stands there twice", hint)

    def _aa(self, platforms: tuple[str, ...], workloads: tuple[Workload, ...]) -> tuple[str, ...]:
        if isinstance(self.keys.aa, UnsetType):
            return choose_arms({name: find_kind(name) for name in platforms}, workloads)
        found = self._platforms("aa", self.keys.aa)
        for name in found:
            if name not in platforms:
                raise self._fault(
                    "aa", f"{name!r} is not among the platforms", f"one of {', '.join(platforms)}"
                )
        return found

    def _precision(self) -> float | None:
        """The wanted half-width, as a share from above 0 % to below 100 %."""
        if isinstance(self.keys.precision, UnsetType):
            return None
        try:
            share = parse_share(self.keys.precision)
        except InputError as error:
            raise self._fault("precision", error.message) from None
        if len(self.keys.platforms) + len(self.keys.variants) < 2:
            reason = "it is that of ratios, and there is one platform only"
            raise self._fault("precision", reason, "name two platforms or more")
        if not 0 < share < 1:
            raise self._fault("precision", f"{self.keys.precision} is not above 0% and below 100%")
        return share

    def _blocks(self, precision: float | None) -> int:
        blocks = self.keys.blocks
        if precision is None:
            return blocks
        if "blocks" not in self.stated:
            return MOST_BLOCKS
        if blocks < CONFIRMED_BLOCKS:
            reason = f"{blocks} cannot show a `precision`: that takes {CONFIRMED_BLOCKS} or more"
            raise self._fault("blocks", reason, "more blocks, or no `precision`")
        return blocks

    def _workloads(self, folder: Path, timeout: float) -> tuple[Workload, ...]:
        if self.own:
            return tuple(replace(each, timeout=timeout) for each in self.own)
        found = [self._workload(name, folder, timeout) for name in self.keys.workloads]
        self._refuse_twice("workloads", tuple(workload.name for workload in found))
        images = self.keys.images
        self._refuse_twice("images", images)
        placed = next((each.name for each in found if IMAGE_MARK in each.name), None)
        if images and placed:
            raise self._fault("images", f"{placed!r} says its image already", "say one of the two")
        return tuple(each for workload in found for each in build_variants(workload, images))

    def _workload(self, name: str, folder: Path, timeout: float) -> Workload:
        """A workload by its name or file, in its own image or in the one that ``@`` says."""
        plain, mark, image = name.partition(IMAGE_MARK) if "/" not in name else (name, "", "")
        try:
            found = read_workload(plain, folder=folder, timeout=timeout)
        except UnknownWorkloadError as error:
            raise self._fault("workloads", error.message, error.hint) from None
        return place_workload(found, image) if mark else found

    def _seed(self, new_seed: int) -> int:
        seed = self.keys.seed
        if isinstance(seed, UnsetType):
            return new_seed
        if not 0 <= seed < 1 << 63:
            raise self._fault("seed", f"{seed} is not from 0 to 2^63 - 1")
        return seed

    def _duration(self, key: str, text: str, least: float = 0.001) -> float:
        try:
            seconds = parse_duration(text)
        except InputError as error:
            raise self._fault(key, error.message) from None
        if seconds < least:
            raise self._fault(key, f"{text} is too short")
        return seconds

    def _bandwidths(self) -> tuple[int, ...]:
        try:
            found = tuple(map(parse_bandwidth, self.keys.bandwidths))
        except InputError as error:
            raise self._fault("bandwidths", error.message, error.hint) from None
        self._refuse_twice("bandwidths", tuple(map(format_bandwidth, found)))
        return found

    def _memory(self) -> int:
        try:
            size = parse_size(self.keys.memory)
        except InputError as error:
            raise self._fault("memory", error.message) from None
        if size < MEMORY_LEAST:
            raise self._fault("memory", f"{self.keys.memory} is too little for a guest kernel")
        return size

    def _skipped(self, plan: Plan) -> InputError:
        names = ", ".join(workload.name for workload in plan.workloads)
        return self._fault(
            "workloads",
            f"nothing is left to run: {names} skips {', '.join(plan.platforms)}",
            "add a platform, or copy the workload's file without `skip`",
        )
