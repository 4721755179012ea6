"""What must be the same on both sides before their figures are compared, as named dimensions.

The same host is not a name: a new machine may have an old one's name, and a container of a build
service a new one each time. So the name, the processor, its number of CPUs, memory, kernel and
hypervisor are dimensions of their own, and each can be allowed to differ on its own.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.analysis.results import get_list, get_mapping
from harness.errors import InputError
from harness.store.sandboxes import find_accelerator
from harness.units import format_value

DIMENSIONS = {
    "host": "the host's name",
    "cpu": "its processor",
    "cpus": "how many CPUs the run could use",
    "memory": "its memory, to 1 %",
    "kernel": "its kernel",
    "hypervisor": "what the host itself runs on",
    "cgroups": "version of the control groups, which decides how memory is counted",
    "user": "whether root ran it",
    "accelerator": "what the guests of a platform ran on",
    "image": "which image a workload has, and its digest",
    "workload": "how a workload is defined",
    "cache": "state of the page cache",
    "guest-kernel": "kernel of the guests",
    "limits": "limits of an instance, and when its memory is read",
}
"""Dimensions by the name that `--allow` takes, with what they are."""

_SAME_MEMORY = 0.01
"""MemTotal is what the kernel left over at boot: it differs a little on one and the same host."""

_HOST = {"host": "name", "cpu": "cpu", "cpus": "cpus", "memory": "memory", "kernel": "kernel",
         "hypervisor": "hypervisor"}  # fmt: skip
_LIMITS = {
    "memory": "",
    "cpus": "the limit of CPUs",
    "pids": "the limit of processes",
    "disk": "the limit of disk space",
    "io": "the limit of writing to disk",
    "settle": "the wait before memory is read",
}
"""The keys of a plan that are limits, and what they are called where that is not their name."""
_UNITS = {"memory": "B", "disk": "B", "io": "B/s", "settle": "s"}
_NO_DEFINITION = ("name", "image", "description", "source", "skip")
_UNKNOWN = "not stored"

Traits = Mapping[tuple[str, str], object]
"""Values by dimension and subject: a platform, an image, a workload's key, or nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A dimension in which the sides differ, for which subject, and both values as text."""

    dimension: str
    subject: str
    base: str
    new: str

    def __str__(self) -> str:
        of = f" of `{self.subject}`" if self.subject else ""
        name = f"{self.dimension}{of}"
        if self.dimension == "limits":
            name = _LIMITS.get(self.subject) or f"the limit of {self.subject}"
        return f"{name} is {self.base} in BASE and {self.new} in NEW"


def build_traits(manifest: Mapping[str, object], blocks: pd.DataFrame) -> Traits:
    """The traits of a run, from its manifest and what was measured."""
    plan = get_mapping(manifest, "plan")
    traits = build_host_traits(manifest)
    traits["cgroups", ""] = manifest.get("cgroups")
    privileged = manifest.get("privileged")
    traits["user", ""] = (
        None if privileged is None else ("root" if privileged else "an ordinary user")
    )
    measured = " and ".join(sorted(set(blocks["cache"].astype(str))))
    traits["cache", ""] = measured or plan.get("cache")
    traits |= {("limits", key): plan.get(key) for key in _LIMITS}
    traits |= _read_kernel(manifest) | _read_images(manifest) | _read_workloads(plan)
    used = blocks[["platform", "kind", "accelerator"]].astype(str).drop_duplicates()
    traits |= {
        ("accelerator", str(platform)): find_accelerator(
            str(platform), str(kind), str(accelerator), manifest
        )
        for platform, kind, accelerator in used.itertuples(index=False)
    }
    return traits


def build_host_traits(manifest: Mapping[str, object]) -> dict[tuple[str, str], object]:
    """What makes two runs those of one host: the dimensions of `_HOST`."""
    host = get_mapping(manifest, "host")
    return {(name, ""): host.get(key) for name, key in _HOST.items()}


def build_foreign_traits(facts: Mapping[str, str]) -> Traits:
    """The traits of another tool's file: its dimensions, as far as it stores them."""
    return {(name, ""): value for name, value in facts.items()}


def _read_kernel(manifest: Mapping[str, object]) -> dict[tuple[str, str], object]:
    """The guests' kernel; no trait of a run without virtual machines."""
    kernel = get_mapping(manifest, "guest_kernel")
    if not kernel:
        return {}
    digest = str(kernel.get("digest") or "")[:19]
    return {("guest-kernel", ""): f"{kernel.get('release')} ({digest})"}


def _read_images(manifest: Mapping[str, object]) -> dict[tuple[str, str], object]:
    return {
        ("image", str(name)): image.get("digest")
        for name, image in get_mapping(manifest, "images").items()
        if isinstance(image, Mapping)
    }


def _read_workloads(plan: Mapping[str, object]) -> dict[tuple[str, str], object]:
    """Every key of a workload's definition on its own, so that the one that differs is named."""
    traits: dict[tuple[str, str], object] = {}
    for each in get_list(plan, "workloads"):
        if not isinstance(each, Mapping):
            traits["workload", str(each)] = str(each)
            continue
        name = str(each.get("name"))
        traits["image", f"workload {name}"] = each.get("image")
        traits |= {
            ("workload", f"{name}: {key}"): value
            for key, value in each.items()
            if key not in _NO_DEFINITION
        }
    return traits


def find_differences(base: Traits, new: Traits) -> tuple[Difference, ...]:
    """Every trait in which the sides differ.

    A subject that only one side has is no difference but missing there; a dimension without a
    subject is one of the side as a whole, and is a difference where one side does not tell it.
    """
    found = []
    for dimension, subject in [*base, *(key for key in new if key not in base)]:
        key = (dimension, subject)
        if subject and not (key in base and key in new) and dimension != "limits":
            continue
        if dimension == "guest-kernel" and not (key in base and key in new):
            continue
        one, other = base.get(key), new.get(key)
        if dimension == "accelerator" and None in (one, other):  # a note says that it is not known
            continue
        if not _is_same(dimension, one, other):
            what = subject if dimension == "limits" else dimension
            found.append(Difference(dimension, subject, _format(what, one), _format(what, other)))
    return tuple(found)


def _is_same(dimension: str, one: object, other: object) -> bool:
    if dimension == "memory" and isinstance(one, int) and isinstance(other, int):
        return abs(one - other) <= _SAME_MEMORY * max(one, other)
    return one == other


def _format(what: str, value: object) -> str:
    """A value as text, with its unit where ``what`` it is of has one."""
    if value is None:
        return _UNKNOWN
    if isinstance(value, int | float) and what in _UNITS:
        return format_value(value, _UNITS[what])
    return value or "empty" if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def require_dimensions(names: Collection[str]) -> frozenset[str]:
    """The dimensions that may differ. Raises InputError for a name that is none."""
    for name in names:
        if name == "schema":
            raise InputError(
                "--allow: another schema cannot be read by this release",
                hint="measure anew with this release",
            )
        if name not in DIMENSIONS:
            raise InputError(
                f"--allow: unknown dimension {name!r}", hint=f"there are {', '.join(DIMENSIONS)}"
            )
    return frozenset(names)


def build_refusal(refused: Sequence[Difference]) -> InputError:
    """The error that names every dimension in which the sides must not differ, but do."""
    names = ",".join(dict.fromkeys(each.dimension for each in refused))
    return InputError(
        f"not comparable: {'; '.join(map(str, refused))}",
        hint=f"--allow {names} compares them all the same",
    )
