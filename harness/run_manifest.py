"""A run's manifest: all that is needed to judge and to repeat it, in JSON types."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness import __version__, cgroup, host, lab, preflight
from harness.certificate import DIFFER, UNGROUPED, UNLIMITED
from harness.drivers.base import Toolbox
from harness.images.model import GuestKernel, Image
from harness.model import AA_SUFFIX, base_platform
from harness.plan import Plan, build_block, build_document
from harness.probes import memory
from harness.roster import LeftOut
from harness.runner import Bench, build_spec
from harness.variants import find_points

if TYPE_CHECKING:
    from harness.session import Order


def build_manifest(
    order: "Order",
    bench: Bench,
    toolbox: Toolbox,
    left_out: Sequence[LeftOut | str],
    state: preflight.State,
) -> dict[str, object]:
    """All that is needed to judge and to repeat the run, in JSON types."""
    facts = host.read_host()
    platforms = _describe_platforms(order.plan, bench)
    return {
        "run_id": order.run_id,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "harness_version": __version__,
        "command": list(order.command),
        "strict": order.strict,
        "plan": build_document(order.plan),
        "host": asdict(facts),
        "memory_settings": memory.read_settings(),
        "cgroups": _describe_cgroups(bench.tree),
        **({"cgroups_missing": cgroup.explain_missing()} if bench.tree is None else {}),
        "privileged": lab.is_privileged(),
        "tools": host.read_tools(),
        "preflight": asdict(state),
        "noise": [asdict(each) for each in (*host.read_noise(), *preflight.find_noise(state))],
        "aa": describe_arms(order.plan),
        "images": {name: _describe_image(image) for name, image in sorted(bench.images.items())},
        "guest_kernel": _describe_kernel(toolbox.kernel),
        "accelerator": _describe_accelerators(platforms),
        "platforms": platforms,
        "left_out": [str(each) for each in left_out],
        "left_out_details": [asdict(each) for each in left_out if isinstance(each, LeftOut)],
        "parity": dict(bench.parity),
        DIFFER: describe_points(order.plan, grouped=bench.tree is not None),
    }


def describe_arms(plan: Plan) -> dict[str, object]:
    """The platforms that are entered twice, and who chose them."""
    default = "the first container and the first virtual machine that run here"
    return {"platforms": list(plan.aa), "chosen": default if plan.aa_open else "by the plan"}


def describe_points(plan: Plan, *, grouped: bool) -> dict[str, object]:
    """In which dimensions a ratio's platforms may differ, by the plan and by their own names.

    Where the host gives no control groups, nothing but a machine can be limited. There is a ratio
    all the same, and the report says so.
    """
    platforms = {name: sorted(find_points(name)) for name in plan.platforms}
    return {
        "plan": list(dict.fromkeys((*plan.differ, *(() if grouped else UNGROUPED)))),
        **({} if grouped else {UNLIMITED: list(UNGROUPED)}),
        "platforms": {n: each for n, each in platforms.items() if each},
    }


def _describe_cgroups(tree: cgroup.CgroupTree | None) -> str:
    return "none usable" if tree is None else f"v{tree.version}"


def _describe_image(image: Image) -> dict[str, object]:
    return {
        "digest": image.digest,
        "facts": dict(image.facts),
        "packings": {
            name: {
                "apparent": packing.apparent,
                "allocated": packing.allocated,
                "virtual": packing.virtual,
            }
            for name, packing in sorted(image.packings.items())
        },
    }


def _describe_kernel(kernel: GuestKernel | None) -> dict[str, object] | None:
    if kernel is None:
        return None
    return {"release": kernel.release, "digest": kernel.digest, "modules": list(kernel.modules)}


def _describe_accelerators(platforms: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """What the guests of each VM platform run on, and how that was found out."""
    found: dict[str, object] = {}
    for name, platform in platforms.items():
        start = platform["start"]
        if isinstance(start, Mapping) and "accelerator" in start and not platform["second_arm"]:
            found[name] = {
                "name": start["accelerator"],
                "proved": start["accelerator_proved"],
                "reason": start["accelerator_reason"],
            }
    return found


def _describe_platforms(plan: Plan, bench: Bench) -> dict[str, Mapping[str, object]]:
    """Kind and command lines of every platform, shown for its first workload."""
    described: dict[str, Mapping[str, object]] = {}
    seen: set[str] = set()
    for scheduled in build_block(plan, 0):
        platform = scheduled.platform
        if platform in seen or base_platform(platform) not in bench.drivers:
            continue
        seen.add(platform)
        driver = bench.drivers[base_platform(platform)]
        described[platform] = {
            "kind": driver.kind,
            "second_arm": platform.endswith(AA_SUFFIX),
            "start": dict(driver.describe(build_spec(scheduled, bench))),
        }
    return described
