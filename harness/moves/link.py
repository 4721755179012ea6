"""A server and a client of the lab, each with a network of its own, joined by one shaped link.

The link is a veth pair. A token bucket (tc-tbf(8)) holds both directions to the bandwidth; where a
delay is asked for, netem (tc-netem(8)) holds every packet back. The bucket counts the bytes that it
lets through, with the headers of every packet. The interface's own counters stand beside: they
count the headers of packets that travel as one (segmentation offload) only once.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import linux
from harness.errors import HostError
from harness.images.rooted import tool_path
from harness.process import Completed, run_command
from harness.units import format_bandwidth

_PREFIX = 30
_TIMEOUT = 10.0
_LATENCY = "50ms"
_BURST_LEAST = 32 << 10
_BURST_S = 0.001
"""The bucket holds what may pass in this time: less and the timer is too coarse to fill a link of
1 Gbit/s, more and a small transfer passes unshaped."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a link is shaped to: bits per second, and seconds that a packet takes each way."""

    bandwidth: int
    delay: float = 0.0

    @property
    def label(self) -> str:
        """How results name it: ``100Mbit``, ``100Mbit+5ms``."""
        delay = f"+{self.delay * 1000:g}ms" if self.delay else ""
        return format_bandwidth(self.bandwidth) + delay


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went towards one end of the link: ``wire`` bytes in ``packets``, with the headers of
    each, as shaped; and ``interface`` bytes as the receiving interface counts."""

    wire: int = 0
    packets: int = 0
    interface: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        return Traffic(
            self.wire - before.wire,
            self.packets - before.packets,
            self.interface - before.interface,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """One end: a network namespace, held open by the descriptor ``network``."""

    network: int
    device: str
    address: str

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.network}"

    def wrap(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """The command line that runs ``argv`` in this network."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str) -> Completed:
        return run_command(self.wrap(argv), timeout=_TIMEOUT, env=tool_path())

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Be in this network; a socket that is made meanwhile stays in it."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.setns(self.network, linux.CLONE_NEWNET)
            try:
                yield
            finally:
                linux.setns(own, linux.CLONE_NEWNET)
        finally:
            os.close(own)


@dataclass(frozen=True, slots=True)
class Link:
    """Both ends of the link."""

    server: Host
    client: Host

    def shape(self, speed: Speed) -> None:
        """Hold both directions to ``speed``; raises HostError where the kernel cannot."""
        for host in (self.server, self.client):
            for words in build_shaping(host.device, speed):
                host.run(*words)

    def read_down(self) -> Traffic:
        """What went to the client so far, since the link was shaped or before."""
        return _read_traffic(self.server, self.client)

    def read_up(self) -> Traffic:
        """What went to the server so far."""
        return _read_traffic(self.client, self.server)


def build_shaping(device: str, speed: Speed) -> list[tuple[str, ...]]:
    """The commands that shape what leaves ``device``."""
    burst = max(_BURST_LEAST, round(speed.bandwidth / 8 * _BURST_S))
    commands: list[tuple[str, ...]] = [
        ("tc", "qdisc", "replace", "dev", device, "root", "handle", "1:", "tbf",
         "rate", f"{speed.bandwidth}bit", "burst", str(burst), "latency", _LATENCY),
    ]  # fmt: skip
    if speed.delay:
        wait = f"{round(speed.delay * 1e6)}us"
        commands.append(
            ("tc", "qdisc", "replace", "dev", device, "parent", "1:1", "handle", "10:", "netem",
             "delay", wait, "limit", "100000")
        )  # fmt: skip
    return commands


def build_link(server: Host, client: Host) -> list[tuple[str, ...]]:
    """The commands, to be run in the server's network, that make the pair."""
    return [
        ("ip", "link", "add", server.device, "type", "veth",
         "peer", "name", client.device, "netns", client.path),
    ]  # fmt: skip


def build_end(host: Host) -> list[tuple[str, ...]]:
    """The commands that bring one end up, in its own network."""
    return [
        ("ip", "link", "set", "lo", "up"),
        ("ip", "address", "add", f"{host.address}/{_PREFIX}", "dev", host.device),
        ("ip", "link", "set", host.device, "up"),
    ]


@contextlib.contextmanager
def start_link() -> Iterator[Link]:
    """Two new networks and the link between them; gone with their descriptors."""
    with _start_network() as first, _start_network() as second:
        link = Link(Host(first, "to-client", "10.88.0.1"), Host(second, "to-server", "10.88.0.2"))
        for words in build_link(link.server, link.client):
            link.server.run(*words)
        for host in (link.server, link.client):
            for words in build_end(host):
                host.run(*words)
        yield link


def find_link_fault() -> str | None:
    """Why no shaped link can be had here; None if it can. It is tried."""
    try:
        with start_link() as link:
            link.shape(Speed(10**9))
    except (HostError, OSError) as error:
        return f"this host cannot shape a link: {error}"
    return None


def find_delay_fault() -> str | None:
    """Why packets cannot be delayed here; None if they can. It is tried."""
    try:
        with start_link() as link:
            device = link.server.device
            link.server.run("tc", "qdisc", "add", "dev", device, "root", "netem", "delay", "1ms")
    except (HostError, OSError):
        return "this kernel has no netem"
    return None


@contextlib.contextmanager
def _start_network() -> Iterator[int]:
    """A new network namespace that lives as long as its descriptor."""
    found: list[int] = []
    faults: list[OSError] = []

    def make() -> None:
        try:
            linux.unshare(linux.CLONE_NEWNET)
            found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            faults.append(error)

    thread = threading.Thread(target=make, name="network")  # only a thread can leave by ending
    thread.start()
    thread.join()
    if faults:
        raise HostError(f"no network namespace can be made: {faults[0].strerror}")
    try:
        yield found[0]
    finally:
        os.close(found[0])


# ---- counters --------------------------------------------------------------------------------


def _read_traffic(sender: Host, receiver: Host) -> Traffic:
    shaped = sender.run("tc", "-s", "-j", "qdisc", "show", "dev", sender.device, "root")
    seen = receiver.run("ip", "-s", "-j", "link", "show", "dev", receiver.device)
    return Traffic(*parse_shaped(shaped.stdout), parse_received(seen.stdout))


def parse_shaped(text: str) -> tuple[int, int]:
    """(bytes, packets) that left a device's outermost discipline, from ``tc -s -j qdisc show``."""
    found = json.loads(text)[0]
    return int(found["bytes"]), int(found["packets"])


def parse_received(text: str) -> int:
    """Bytes that an interface received, from ``ip -s -j link show``."""
    found = json.loads(text)[0]
    return int(found.get("stats64", found.get("stats"))["rx"]["bytes"])
