"""What an instance stands on: its folder and disk quota, its control groups, the page cache.

It is the same for a trial, a step of a density series and a start in a storm, so that no limit
holds in one of them only.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Driver, InstanceSpec
from harness.images.model import Image
from harness.isolation.quota import start_quota
from harness.limits import limit_writing
from harness.model import CacheState
from harness.probes import page_cache
from harness.probes.page_cache import Residency

REFUSED = "limits_refused"
"""Where the details of a trial have why a limit could not be set."""


@contextlib.contextmanager
def made_folder(spec: InstanceSpec, driver: Driver) -> Iterator[str]:
    """The instance's folder, on a file system of its own where that is its disk quota: not for a
    machine, whose disk is its quota, nor where an engine has a store of its own.

    Yields why a quota that is asked for cannot be; empty otherwise. The folder stays.
    """
    spec.folder.mkdir()
    elsewhere = driver.daemon is not None or driver.own_store
    if spec.disk is None or driver.kind == "vm" or elsewhere:
        yield ""
        return
    with start_quota(spec.folder, spec.disk) as refused:
        yield refused or ""


@contextlib.contextmanager
def made_groups(
    spec: InstanceSpec, tree: cgroup.CgroupTree | None, left: list[str] | None = None
) -> Iterator[InstanceSpec]:
    """The spec with groups of its own, where this host gives any. At the end whatever is in them is
    killed, and they are removed; ``left`` is told what could not be."""
    if tree is None:
        yield spec
        return
    spec = replace(spec, cgroups=tree.start(spec.name))
    try:
        yield spec
    finally:
        cgroup.kill_processes(spec.cgroups)
        stays = cgroup.remove(spec.cgroups)
        if left is not None:
            left += stays


def limit_instance_writing(spec: InstanceSpec, driver: Driver, scratch: Path) -> str:
    """Limit writing in the instance's groups, in those that its engine has made meanwhile too; QEMU
    limits a guest's disk itself. To be called before the start, and once it is ready.

    Returns why it cannot be limited; empty where it is, or is not to be.
    """
    if spec.io is None or not spec.limits or driver.kind == "vm":
        return ""
    return "; ".join(limit_writing(spec.cgroups, [scratch, spec.folder], spec.io).values())


def note_refused(details: dict[str, object], dimension: str, reason: str) -> None:
    """Keep with a trial why one of the plan's limits could not be set; nothing without a reason."""
    if reason:
        details[REFUSED] = {**read_refused(details), dimension: reason}


def read_refused(details: Mapping[str, object]) -> dict[str, str]:
    """What a trial's details have of that, by the dimension of the certificate."""
    found = details.get(REFUSED)
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def format_refused(details: Mapping[str, object]) -> list[str]:
    """A line for the user on each limit of the plan that could not be set."""
    return [
        f"the plan's `{name}` limits nothing here: {reason}"
        for name, reason in read_refused(details).items()
    ]


def set_cache(driver: Driver, image: Image, state: CacheState) -> tuple[Residency, list[str]]:
    """Bring what a platform reads of an image into the asked state; what was reached, marks."""
    residency = page_cache.set_cache_state(driver.files(image), state)
    return residency, _list_marks(residency, state)


def check_kept(driver: Driver, image: Image) -> tuple[Residency, list[str]]:
    """Whether warm files stayed: what was evicted meanwhile was read from a disk.

    Some platforms drop a file themselves once they have read it; that is no disturbance.
    """
    dropped = set(driver.list_dropped(image))
    kept = [each for each in driver.files(image) if each not in dropped]
    residency = page_cache.read_residency(kept)
    return residency, _list_marks(residency, "warm")


def _list_marks(residency: Residency, state: CacheState) -> list[str]:
    mark = page_cache.find_mark(residency, state)
    return [mark] if mark else []
