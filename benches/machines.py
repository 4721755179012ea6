"""Virtual machines through libvirt beside the very same QEMU command line run by hand."""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benches.available import list_available, tell_left_out
from benches.rig import Measure, Samples, build_spec, run_interleaved
from harness import cgroup
from harness.channel import Channel
from harness.drivers import load_driver
from harness.drivers.base import Driver, InstanceSpec, Toolbox
from harness.errors import HarnessError
from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
from harness.images.model import Image
from harness.images.programs import build_programs
from harness.paths import scratch_root
from harness.process import run_command
from harness.starter import build_agent_spec, read_clock, start_starter

PLATFORMS = ("vm-direct", "vm-microvm")
RESTORED = "vm-restore"

_RUNNING = contextlib.ExitStack()
"""The restored platform's run, held until the lab ends."""

_LIBVIRTS_OWN = ("-S", "-no-shutdown")
_LIBVIRTS_PAIRS = ("charmonitor", "secret", "-sandbox", "-msg")
_SECONDS = 1_000_000_000


@dataclass
class Bench:
    """What every start of this benchmark shares; ``commands`` are learnt from libvirt's starts."""

    image: Image
    toolbox: Toolbox
    scratch: Path
    tree: cgroup.CgroupTree | None
    commands: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def build_spec(self, name: str) -> InstanceSpec:
        return build_spec(name, self.scratch, self.image, self.tree)


def measure_machines(repeats: int = 10) -> Samples:
    """Seconds to `init`, by ``PLATFORM.WAY``.

    Ways: ``total`` from the request on, ``guest`` from `created` on (what is left when libvirt's
    own share is taken off), ``hand`` from the start of the same QEMU command by hand; ``ready`` is
    the whole start, of ``vm-restore`` too.
    """
    image = require_image("tiny", print)
    kernel = require_guest_kernel(print)
    starter = build_programs().starter

    def build(run_id: str) -> Mapping[str, Measure]:
        scratch = scratch_root() / run_id
        scratch.mkdir(parents=True)
        toolbox = Toolbox(starter=starter, kernel=kernel, scratch=scratch)
        bench = Bench(image, toolbox, scratch, cgroup.find_tree(run_id))
        return build_measures(bench)

    return run_interleaved(build, repeats)


def build_measures(bench: Bench) -> Mapping[str, Measure]:
    measures: dict[str, Measure] = {}
    available = list_available((*PLATFORMS, RESTORED))
    for platform in (each for each in PLATFORMS if each in available):
        rig = Rig(load_driver(platform, bench.toolbox), bench)
        measures[f"{platform}.guest"] = rig.start
        measures[f"{platform}.hand"] = rig.start_by_hand
        measures[f"{platform}.total"] = rig.recall_total
        measures[f"{platform}.ready"] = rig.recall_ready
    if RESTORED not in available:
        return measures
    restored = Rig(load_driver(RESTORED, bench.toolbox), bench)
    try:
        _RUNNING.enter_context(restored.driver.start_run([bench.build_spec("first")]))
    except HarnessError as error:
        tell_left_out(RESTORED, error)
        return measures
    measures[f"{RESTORED}.ready"] = restored.start_to_ready
    return measures


class Rig:
    """One platform: started by libvirt, and by hand."""

    def __init__(self, driver: Driver, bench: Bench) -> None:
        self.driver, self.bench = driver, bench
        self.stamps: dict[str, int] = {}

    def start(self, number: int) -> float:
        spec = self.bench.build_spec(f"{self.driver.name}-l{number}")
        with self.driver.start_instance(spec) as instance:
            instance.wait_ready()
            if self.driver.name not in self.bench.commands:
                (pid, *_) = instance.processes().inside
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
                self.bench.commands[self.driver.name] = (spec.name, build_hand_command(words))
            self.stamps = dict(instance.milestones)
        cgroup.remove(spec.cgroups)
        return self._seconds("created", "init")

    def start_to_ready(self, number: int) -> float:
        self.start(number)
        return self._seconds("request", "ready")

    def recall_total(self, _number: int) -> float:
        return self._seconds("request", "init")

    def recall_ready(self, _number: int) -> float:
        return self._seconds("request", "ready")

    def start_by_hand(self, number: int) -> float:
        return _start_by_hand(self.driver.name, self.bench, number)

    def _seconds(self, first: str, last: str) -> float:
        return (self.stamps[last] - self.stamps[first]) / _SECONDS


def build_hand_command(words: Sequence[str]) -> list[str]:
    """libvirt's QEMU command line without what only libvirt needs: monitor, secrets, the pause."""
    kept: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        option = [word]
        if word.startswith("-") and position + 1 < len(words):
            following = words[position + 1]
            option += [] if following.startswith("-") else [following]
        own = word in _LIBVIRTS_OWN or any(text in " ".join(option) for text in _LIBVIRTS_PAIRS)
        if not own:
            kept += option
        position += len(option)
    return kept


def _start_by_hand(platform: str, bench: Bench, number: int) -> float:
    """The same command with an overlay and sockets of its own, stamped by the same starter."""
    original, command = bench.commands[platform]
    name = f"{platform}-h{number}"
    spec = bench.build_spec(name)
    words = [word.replace(original, name) for word in command]
    overlay = spec.folder / "overlay.qcow2"
    base = spec.image.packings["ext4-raw"].path
    run_command(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay], timeout=30
    )
    agent_spec = build_agent_spec(spec.command, spec.ready, spec.environment)
    with start_starter(bench.toolbox.starter) as starter:
        log = spec.folder / "console.log"
        starter.listen(spec.folder / "channel", agent_spec, spec.folder / "console", log)
        channel = Channel(starter)
        with cgroup.entered(spec.cgroups):
            channel.milestones["request"] = read_clock()
            pid = os.posix_spawn(words[0], words, os.environ)
        try:
            channel.wait_for("ready", read_clock() + 60 * _SECONDS)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    cgroup.remove(spec.cgroups)
    return (channel.milestones["init"] - channel.milestones["request"]) / _SECONDS
