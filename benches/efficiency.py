"""`python -m benches.efficiency [ROUNDS [PLATFORM…]]`: tools through the harness and by hand.

An instance waits beside a small server that runs what it is asked to. In one half of the rounds the
harness's workload runs first and the same command line by hand after it, in the other half the
other way round; each pair shares the instance, its limits and the state of the host.
"""

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benches.rig import Measure, Samples, build_spec, run_interleaved
from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import Driver, Instance, InstanceSpec, Toolbox
from harness.figures import AREA
from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
from harness.images.model import Image
from harness.images.programs import build_programs
from harness.paths import scratch_root
from harness.probes.cpu import open_account
from harness.probes.efficiency import WorkMeter
from harness.workloads import Workload, read_workload

PLATFORMS = ("namespace", "vm-direct")
LIMIT = 0.03
PORT = 7000
TOOLS: Mapping[str, Callable[[str], float]] = {
    "sysbench-cpu": lambda text: float(text.split("events per second:")[1].split()[0]),
    "sysbench-memory": lambda text: float(text.split(" MiB transferred (")[1].split()[0]) * 2**20,
    "stress-switch": lambda text: float(text.split("per-second-real-time:")[1].split()[0]),
}
"""What is run, and how its figure is read by hand: without the code that the harness reads with."""

_SERVER = """
import socket, subprocess, sys
listener = socket.create_server(("0.0.0.0", 7000))
while True:
    peer = listener.accept()[0]
    if peer.recv(16) == b"go":
        open("/run/go", "w").write("go\\n")
    else:
        done = subprocess.run(sys.argv[1:], capture_output=True)
        peer.sendall(done.stdout)
    peer.close()
"""
_WAITING = """
mkfifo /run/go
python3 -c "$SERVER" "$@" >/dev/null 2>&1 </dev/null &
read word </run/go
exec "$@"
"""
_TIMEOUT_S = 120.0


@dataclass
class Rig:
    """One platform and tool. ``hand`` holds the figures by hand until they are asked for."""

    workload: Workload
    read: Callable[[str], float]
    driver: Driver
    image: Image
    scratch: Path
    tree: cgroup.CgroupTree | None
    first: int
    hand: float = 0.0

    def measure(self, number: int) -> float:
        """The harness's figure; the one by hand is kept."""
        spec = self._build_spec(number)
        account = open_account(spec.cgroups, None)
        with self.driver.start_instance(spec) as instance:
            meter = WorkMeter(self.workload, instance, account, spec)
            instance.wait_ready()
            if number % 2:
                self.hand = self._run_by_hand(instance)
            with _connect(instance) as server:
                server.sendall(b"go")
            rows = {row.metric: row.value for row in meter.measure()}
            if not number % 2:
                self.hand = self._run_by_hand(instance)
        return next(rows[name] for name in (f"{AREA}throughput", f"{AREA}bandwidth")
                    if name in rows)  # fmt: skip

    def recall_hand(self, _number: int) -> float:
        return self.hand

    def _run_by_hand(self, instance: Instance) -> float:
        with _connect(instance) as server:
            server.sendall(b"run")
            return self.read(b"".join(iter(lambda: server.recv(65536), b"")).decode())

    def _build_spec(self, number: int) -> InstanceSpec:
        name = f"{self.driver.name}-{self.workload.name}-{number}"
        return replace(
            build_spec(name, self.scratch, self.image, self.tree),
            command=("sh", "-c", _WAITING, "sh", *self.workload.command),
            environment={"SERVER": _SERVER},
            ready=f"tcp:{PORT}",
            timeout=_TIMEOUT_S,
            address=lab.build_address(self.first + number),
            gateway=lab.GATEWAY,
            bridge=lab.BRIDGE,
        )


@contextlib.contextmanager
def _connect(instance: Instance) -> Iterator[socket.socket]:
    assert instance.address is not None
    with socket.create_connection((instance.address, PORT), timeout=_TIMEOUT_S) as server:
        yield server


def measure_efficiency(rounds: int = 10, platforms: Sequence[str] = PLATFORMS) -> Samples:
    """Figures by ``PLATFORM.TOOL`` and, by hand in the same instance, ``PLATFORM.TOOL.total``."""
    image = require_image("bench", print)
    kernel = require_guest_kernel(print)
    starter = build_programs().starter

    def build(run_id: str) -> Mapping[str, Measure]:
        scratch = scratch_root() / run_id
        scratch.mkdir(parents=True)
        toolbox = Toolbox(starter=starter, kernel=kernel, scratch=scratch, run_id=run_id)
        measures: dict[str, Measure] = {}
        for platform in platforms:
            driver = load_driver(platform, toolbox)
            for tool, read in TOOLS.items():
                found = read_workload(tool, folder=Path(), timeout=_TIMEOUT_S)
                workload = replace(found, ready=f"tcp:{PORT}")
                first = len(measures) * (rounds + 1)
                rig = Rig(workload, read, driver, image, scratch, cgroup.find_tree(run_id), first)
                measures[f"{platform}.{tool}"] = rig.measure
                measures[f"{platform}.{tool}.total"] = rig.recall_hand
        return measures

    return run_interleaved(build, rounds)


def main(rounds: int, platforms: Sequence[str]) -> None:
    samples = measure_efficiency(rounds, platforms)
    for platform in platforms:
        for tool in TOOLS:
            pairs = zip(
                samples[f"{platform}.{tool}"], samples[f"{platform}.{tool}.total"], strict=True
            )
            print(f"{platform} {tool}: {describe([one / other for one, other in pairs])}")


def describe(ratios: Sequence[float]) -> str:
    """The median with its 95 % interval, and whether that lies within the limit as a whole."""
    from numpy import arange, exp, log, zeros

    from harness.analysis.statistics import summarise_groups

    count = len(ratios)
    found = summarise_groups(log(ratios), zeros(count, dtype=int), 1, arange(count))
    middle, low, high = (float(exp(each[0])) for each in (found.median, found.low, found.high))
    within = low >= 1 - LIMIT and high <= 1 + LIMIT
    beyond = high < 1 - LIMIT or low > 1 + LIMIT
    said = "within" if within else "BEYOND" if beyond else "too noisy to tell from"
    text = f"harness to by hand {middle:.4f} × ({low:.4f}–{high:.4f}, {count} pairs)"
    return f"{text}, {said} {LIMIT:.0%}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:] or PLATFORMS)
