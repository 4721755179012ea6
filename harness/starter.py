"""Python's end of the starter: the lean program that starts instances and stamps their lines.

One starter serves one instance and is running before the clock starts. See agent/starter.c.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.base import Event, InstanceSpec
from harness.errors import TrialError
from harness.process import start_helper

_PACKET_MAX = 256 * 1024
_NANOSECONDS = 1_000_000_000


def read_clock() -> int:
    """The one clock: host CLOCK_MONOTONIC, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def sleep_until(due: int) -> None:
    """Sleep until a moment of the one clock, in nanoseconds."""
    while (left := due - read_clock()) > 0:
        time.sleep(left / _NANOSECONDS)


def build_records(records: Sequence[tuple[str, str]]) -> bytes:
    """NUL-terminated ``key=value`` records, the form of every request and of the agent's spec."""
    for key, value in records:
        if "\0" in value:
            raise TrialError(f"a NUL byte in {key!r} cannot be handed to a program")
    return b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in records)


def build_agent_spec(
    command: Sequence[str],
    ready: str,
    environment: Mapping[str, str],
    *,
    directory: str = "/",
    user: str | None = None,
    address: str | None = None,
    gateway: str | None = None,
    hostname: str | None = None,
    mac: str | None = None,
    challenge: str | None = None,
    pids: str | None = None,
) -> bytes:
    """The agent's spec (agent/PROTOCOL.md); the last six are for guests only."""
    records = [("arg", word) for word in command]
    records += [("cwd", directory)] if directory != "/" else []
    records += [("env", f"{name}={value}") for name, value in environment.items()]
    records.append(("ready", ready))
    optional = {
        "user": user,
        "address": address,
        "gateway": gateway,
        "hostname": hostname,
        "mac": mac,
        "challenge": challenge,
        "pids": pids,
    }
    records += [(key, value) for key, value in optional.items() if value is not None]
    return build_records(records)


def build_instance_spec(spec: InstanceSpec, **guest: str | None) -> bytes:
    """The agent's spec for an instance; ``guest`` is what only guests are told."""
    return build_agent_spec(
        spec.command,
        spec.ready,
        spec.environment,
        directory=spec.directory,
        user=spec.user,
        **guest,
    )


@dataclass(slots=True)
class Starter:
    """A running starter. ``pid`` is its process; ``wake`` may be polled beside it."""

    pid: int
    socket: socket.socket

    def fileno(self) -> int:
        return self.socket.fileno()

    def listen(
        self,
        channel: Path,
        spec: bytes,
        console: Path | None = None,
        log: Path | None = None,
        *,
        at_init: bool = False,
    ) -> None:
        """Listen on the channel's socket (and a guest's console, kept in ``log``).

        ``spec`` is sent to the agent as soon as something connects to ``channel``, or ``at_init``
        when the agent has said so; an empty one is not sent at all.
        """
        records = [("verb", "listen"), ("channel", str(channel))]
        if console is not None:
            records.append(("console", str(console)))
        if log is not None:
            records.append(("log", str(log)))
        if at_init:
            records.append(("when", "init"))
        self._request(records)
        self.socket.send(spec)
        self._expect("listening")

    def prepare(self, records: Sequence[tuple[str, str]]) -> None:
        """Make ready to start a container: everything that comes before the clock."""
        self._request([("verb", "prepare"), *records])
        self._expect("prepared")

    def watch(self, name: str, path: Path) -> None:
        """Have the milestone ``name`` stamped when ``path`` is there and has something in it.

        It may be on the way to a file that an engine has yet to make; one component may be ``*``,
        which stands for the first folder.
        """
        self._request([("verb", "watch"), ("name", name), ("path", str(path))])

    def go(self, due: int = 0) -> None:
        """Start what was prepared, now or at ``due`` (CLOCK_MONOTONIC ns)."""
        self._request([("verb", "go"), *([("due", str(due))] if due else [])])

    def send(self, line: str) -> None:
        """Send one line to the agent."""
        self._request([("verb", "send"), ("line", line)])

    def ping(self, count: int) -> None:
        """Ask for ``count`` echo round trips; each arrives as a ``launch`` event ``rtt NS``."""
        self._request([("verb", "ping"), ("count", str(count))])

    def next_event(self, deadline: int, wake: int | None = None) -> Event | None:
        """The next event; None at ``deadline`` (CLOCK_MONOTONIC ns) or when ``wake`` is readable.

        Raises TrialError if the starter has died.
        """
        watched: list[socket.socket | int] = [self.socket]
        if wake is not None:
            watched.append(wake)
        left = max(0.0, (deadline - read_clock()) / _NANOSECONDS)
        readable, _, _ = select.select(watched, [], [], left)
        if self.socket not in readable:
            return None
        packet = self.socket.recv(_PACKET_MAX)
        if not packet:
            raise TrialError("the starter of the instance has died")
        return parse_event(packet)

    def _request(self, records: Sequence[tuple[str, str]]) -> None:
        try:
            self.socket.send(build_records(records))
        except OSError as error:
            raise TrialError(f"the starter of the instance is gone: {error.strerror}") from error

    def _expect(self, word: str) -> None:
        event = self.next_event(read_clock() + 10 * _NANOSECONDS)
        if event is None:
            raise TrialError(f"the starter did not answer: no {word!r} within 10 s")
        if event.text != word:
            raise TrialError(
                f"the instance could not be prepared: {event.text.removeprefix('fail ')}"
            )


def parse_event(packet: bytes) -> Event:
    """An event from the starter's packet ``STAMP SOURCE TEXT[\\n BYTES]``."""
    head, _, data = packet.partition(b"\n")
    stamp, source, text = head.decode(errors="replace").split(" ", 2)
    return Event(int(stamp), source, text, data)


@contextlib.contextmanager
def start_starter(program: Path) -> Iterator[Starter]:
    """Run a starter; on exit it kills what it started and ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as stack:
        try:
            pid = stack.enter_context(
                start_helper([program, str(theirs.fileno())], [theirs.fileno()])
            )
        finally:
            theirs.close()
        stack.callback(ours.close)
        yield Starter(pid, ours)
