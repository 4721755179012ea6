"""The measurement of rebuilds from order to result folder: what is fetched comes first, then the
lab is entered, then every rebuild is in the journal before the next starts.
"""

import datetime
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import __version__, host, lab
from harness.images.catalog import require_image
from harness.images.model import Image
from harness.lab_view import require_kept
from harness.paths import scratch_root
from harness.rebuild.cases import IMAGE, PLATFORMS, WORKLOAD, build_schedule
from harness.rebuild.layers import require_buildah
from harness.rebuild.material import require_packages
from harness.rebuild.trials import prepare_site, run_cases
from harness.session import LOGS, Listener
from harness.stock.usage import start_use
from harness.store import Store
from harness.store.needs import note_run


@dataclass(frozen=True, slots=True)
class RebuildOrder:
    """What was asked: how often each rebuild is repeated, in an order of ``seed``, and where the
    results go."""

    repeats: int
    seed: int
    folder: Path
    command: tuple[str, ...]
    run_id: str


def run_rebuilds(order: RebuildOrder, listener: Listener) -> int:
    """Fetch what is missing, then measure in the lab; the exit code of the lab."""
    require_kept(order.folder)
    require_buildah()
    for line in lab.clean_dead_runs():
        listener.say(line)
    if os.geteuid() == 0:
        build_parts(listener.say)
    else:
        code = lab.run_inside(lambda: build_parts(listener.say), order.run_id, network=False)
        if code != 0:
            return code
    return lab.run_inside(lambda: _measure(order, listener), order.run_id)


def build_parts(say: Callable[[str], None]) -> int:
    """The base image and the dependencies' packages; needs the host's network."""
    require_packages(require_image(IMAGE, say), say)
    return 0


def _measure(order: RebuildOrder, listener: Listener) -> int:
    image = require_image(IMAGE, listener.say)
    packages = require_packages(image, listener.say)
    scratch = scratch_root() / order.run_id
    scratch.mkdir(parents=True, exist_ok=True)
    note_run(order.run_id, order.folder)
    with (
        start_use([image.tree, packages.folder]),
        Store.create(order.folder, build_manifest(order, image)) as store,
    ):
        site = prepare_site(image, packages, scratch, listener.say)
        schedule = build_schedule(order.repeats, order.seed)
        listener.start(len(schedule), 0)
        for outcome in run_cases(schedule, site, order.folder / LOGS):
            store.append(outcome)
            listener.advance(outcome)
    return 0


def build_manifest(order: RebuildOrder, image: Image) -> dict[str, object]:
    """All that is needed to judge and to repeat the measurement, in JSON types."""
    return {
        "run_id": order.run_id,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "harness_version": __version__,
        "command": list(order.command),
        "plan": {
            "platforms": list(PLATFORMS.values()),
            "workloads": [WORKLOAD],
            "blocks": order.repeats,
            "seed": order.seed,
            "cache": "warm",
        },
        "host": asdict(host.read_host()),
        "privileged": lab.is_privileged(),
        "tools": host.read_tools(),
        "noise": [asdict(each) for each in host.read_noise()],
        "images": {image.name: {"digest": image.digest, "facts": dict(image.facts)}},
    }
