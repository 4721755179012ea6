"""From a plan file, the options of the command line and the defaults to one checked plan."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from harness.certificate import DIMENSIONS
from harness.drivers import PLATFORMS
from harness.drivers.libvirt_uri import is_remote, require_uri
from harness.errors import InputError
from harness.inputs import Origin, build_error, convert_keys, read_toml, suggest
from harness.plan import (
    IMAGE_MARK,
    Plan,
    build_arms,
    build_variants,
    choose_arms,
    find_kind,
    place_workload,
)
from harness.plan_keys import PlanKeys as PlanKeys
from harness.plan_keys import VariantKeys as VariantKeys
from harness.precision import CONFIRMED_BLOCKS, MOST_BLOCKS
from harness.units import (
    format_bandwidth,
    format_rate,
    format_size,
    parse_bandwidth,
    parse_duration,
    parse_rate,
    parse_share,
    parse_size,
)
from harness.variants import build_variant, parse_variant
from harness.workloads import UnknownWorkloadError, Workload, read_workload

QUICK_BLOCKS = 3
STEADY = "steady"
"""The workload that the instances of a loaded density series run."""
MEMORY_LEAST = 64 << 20
_MIB = 1 << 20
PIDS_LEAST = 8
STORM_MOST_S = 86_400.0
DISK_LEAST = 16 << 20
IO_LEAST = 64 << 10


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
            density_load=self._density_load(),
            steady=self._steady(workloads, timeout),
            storm=0 if is_remote(connection) else keys.storm,
            storm_rates=self._storm_rates(),
            storm_repeats=keys.storm_repeats,
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
            remote=is_remote(connection),
            start_engines=keys.start_engines,
            docker_host=None if keys.docker_host is UNSET else keys.docker_host,
            allow_different_trees=keys.allow_different_trees,
            reserve=self._reserve("reserve", keys.reserve),
            reserve_pids=self._reserve_pids(),
            reserve_disk=self._reserve("reserve_disk", keys.reserve_disk),
            density_pressure=self._share("density_pressure", keys.density_pressure),
            pids=self._pids(),
            disk=self._limit("disk", keys.disk, DISK_LEAST),
            io=self._limit("io", keys.io, IO_LEAST),
            differ=self._differ(),
            density_time=None
            if isinstance(keys.density_time, UnsetType)
            else self._duration("density_time", keys.density_time),
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
        share = self._share("precision", self.keys.precision)
        if len(self.keys.platforms) + len(self.keys.variants) < 2:
            reason = "it is that of ratios, and there is one platform only"
            raise self._fault("precision", reason, "name two platforms or more")
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

    def _density_load(self) -> tuple[Literal["idle", "loaded"], ...]:
        self._refuse_twice("density_load", self.keys.density_load)
        return self.keys.density_load

    def _steady(self, workloads: tuple[Workload, ...], timeout: float) -> Workload | None:
        """The workload of loaded instances, in the image of the idle ones."""
        if "loaded" not in self.keys.density_load:
            return None
        found = read_workload(STEADY, folder=Path(), timeout=timeout)
        if found.name in (each.name for each in workloads):
            reason = "`loaded` runs the workload `steady`, which is one of the plan's already"
            raise self._fault("density_load", reason, 'density_load = ["idle"]')
        return replace(found, image=workloads[0].image)

    def _storm_rates(self) -> tuple[float, ...]:
        """Starts per second. They are refused where `storm` says not how many starts there are."""
        if self.keys.storm_rates and not self.keys.storm:
            reason = "without `storm` nothing starts at these rates"
            raise self._fault("storm_rates", reason, "storm = 16")
        if self.keys.storm == 1:
            raise self._fault("storm", "1 start is no storm", "two or more, or 0 for none")
        try:
            found = tuple(map(parse_rate, self.keys.storm_rates))
        except InputError as error:
            raise self._fault("storm_rates", error.message, error.hint) from None
        self._refuse_twice("storm_rates", tuple(map(format_rate, found)))
        for rate in found:
            if self.keys.storm / rate > STORM_MOST_S:
                reason = f"{self.keys.storm} starts at {format_rate(rate)} take more than a day"
                raise self._fault("storm_rates", reason, "a higher rate")
        return found

    def _share(self, key: str, text: str) -> float:
        try:
            share = parse_share(text)
        except InputError as error:
            raise self._fault(key, error.message) from None
        if not 0 < share < 1:
            raise self._fault(key, f"{text} is not above 0% and below 100%")
        return share

    def _reserve(self, key: str, text: str | UnsetType) -> int | None:
        return None if isinstance(text, UnsetType) else self._size(key, text)

    def _reserve_pids(self) -> int | None:
        count = self.keys.reserve_pids
        if isinstance(count, UnsetType):
            return None
        if count < 0:
            raise self._fault("reserve_pids", f"{count} is less than none")
        return count

    def _whole_size(self, key: str, text: str) -> int:
        """Bytes of what machines can have in whole MiB only."""
        size = self._size(key, text)
        if rest := size % _MIB:
            below = (size - rest) // _MIB
            reason = f"{text} are not whole MiB, as a guest has them"
            raise self._fault(key, reason, f"{below}MiB or {below + 1}MiB")
        return size

    def _size(self, key: str, text: str) -> int:
        try:
            return parse_size(text)
        except InputError as error:
            raise self._fault(key, error.message) from None

    def _limit(self, key: str, text: str | UnsetType, least: int) -> int | None:
        """Bytes, or bytes per second, of a limit that may be left out."""
        if isinstance(text, UnsetType):
            return None
        size = self._whole_size(key, text) if key == "disk" else self._size(key, text)
        if size < least:
            raise self._fault(key, f"{text} is too little", f"{format_size(least)} or more")
        return size

    def _pids(self) -> int | None:
        if 0 < self.keys.pids < PIDS_LEAST:
            reason = f"{self.keys.pids} is too little for an instance"
            raise self._fault("pids", reason, f"{PIDS_LEAST} or more, or 0 for no limit")
        return self.keys.pids or None

    def _differ(self) -> tuple[str, ...]:
        for name in self.keys.differ:
            if name not in DIMENSIONS:
                hint = suggest(name, DIMENSIONS, "dimensions")
                raise self._fault("differ", f"{name!r} is no dimension", hint)
        return self.keys.differ

    def _memory(self) -> int:
        size = self._whole_size("memory", self.keys.memory)
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
