"""`images check`: one image on several platforms, its tree compared from inside."""

import contextlib
import datetime
from collections.abc import Callable, Sequence

from harness import cgroup, lab
from harness.errors import HostError, InputError
from harness.images.model import Image
from harness.inputs import suggest
from harness.parity import Finding, Unlistable, compare_platforms
from harness.paths import scratch_root
from harness.plan_file import read_plan
from harness.roster import Roster
from harness.runner import Bench
from harness.session import (
    Order,
    build_bench,
    build_run_id,
    build_toolbox,
    find_drivers,
    prepare,
    start_engines,
)
from harness.temporary import start_temporary

PLATFORMS = ("namespace", "vm-direct")

Tell = Callable[[Finding], None]


def check_image(
    name: str,
    platforms: Sequence[str],
    known: Sequence[str],
    say: Callable[[str], None],
    tell: Tell,
) -> int:
    """Compare ``platforms`` with the first of them; ``tell`` is given each finding, in the lab.

    Returns 1 where trees differ. Raises InputError or HostError.
    """
    if len(platforms) < 2:
        raise InputError("one platform has nothing to be compared with", hint="name two or more")
    if name not in known:
        raise InputError(f"there is no image {name!r}", hint=suggest(name, known, "images"))
    keys = {"platforms": tuple(platforms), "workloads": ("noop",), "images": (name,), "aa": ()}
    plan = read_plan(None, {**keys, "density": 0}, new_seed=1)
    with start_temporary("check") as folder:
        run_id = build_run_id(datetime.datetime.now(datetime.UTC))
        order = Order(plan, folder / "out", (), run_id, kept=False)
        code = prepare(order, say)
        return code or lab.run_inside(lambda: _compare(order, name, say, tell), run_id)


def _compare(order: Order, name: str, say: Callable[[str], None], tell: Tell) -> int:
    scratch = scratch_root() / order.run_id
    scratch.mkdir(parents=True, exist_ok=True)
    toolbox = build_toolbox(order, scratch, say)
    roster = order.open_roster()
    drivers = find_drivers(order.plan, toolbox, roster)
    bench = build_bench(order, drivers, scratch, cgroup.find_tree(order.run_id))
    differing = 0
    with contextlib.ExitStack() as engines:
        start_engines(order, drivers, bench, roster, engines, say)
        first, *others = order.plan.platforms
        for other in others:
            finding = _compare_two(first, other, bench.images[name], bench, roster)
            tell(finding)
            differing += finding.differing
    return 1 if differing else 0


def _compare_two(first: str, other: str, image: Image, bench: Bench, roster: Roster) -> Finding:
    try:
        return compare_platforms(first, other, image, bench)
    except Unlistable as error:
        remedy = roster.find_remedy(error.platform, error.__cause__ or error)
        raise HostError(error.message, hint=remedy) from error
