"""The one door to libvirt: a connection, its events, and the life of a domain.

By default libvirt's QEMU driver runs inside this process (``qemu:///embed``, see
libvirt.org/drvqemu.html): no daemon, all its files below one folder, and what it starts belongs to
the lab. Other connections, see libvirt_connect.py, lead to a daemon; it ends what was started when
this process is gone, and carries the guests' ports as streams.
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.libvirt_connect import (
    format_error,
    open_daemon,
    prepare_libvirt,
)
from harness.drivers.libvirt_embedded import open_embedded
from harness.drivers.libvirt_stream import Pump, open_channel, open_console
from harness.drivers.libvirt_uri import EMBEDDED, is_embedded, is_remote
from harness.errors import HostError, TrialError
from harness.starter import read_clock

_FORCED_END_S = 10.0
_FOREIGN_HINT = "it was left alone; begin a run of another name"

_HINTS = {
    "/dev/net/tun": "as root: modprobe tun; chmod 0666 /dev/net/tun",
    "libvirt_iohelper": "install the package that has it: libvirt-daemon-common, or libvirt-daemon "
    "where that is older (Debian 12)",
}
"""By a word of libvirt's message."""
_LIBVIRTS_OWN = re.compile(r": (shutting down, reason=|starting up )")

_ENDS = {
    0: "the guest shut itself down",
    1: "it was destroyed",
    2: "QEMU crashed",
    5: "QEMU died",
}
"""virDomainEventStoppedDetailType, in words."""

_CLOSED = {
    0: "failed",
    1: "ended: the daemon is gone",
    2: "ended: the daemon no longer answers",
}
"""virConnectCloseReason, in words."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The starter's sockets that a daemon's guest is joined to."""

    channel: Path
    console: Path


@dataclass(slots=True)
class Domain:
    """A domain from just before its start until libvirt has cleaned up after it.

    ``wake`` is a descriptor that is readable once the domain has ended; ``end`` then says how.
    ``process`` is a pidfd of its QEMU, None where libvirt runs elsewhere; ``elsewhere`` is another
    host.
    """

    name: str
    wake: int
    elsewhere: bool = False
    handle: Any = None
    pid: int | None = None
    helpers: tuple[int, ...] = ()
    process: int | None = None
    end: str | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    pumps: list[Pump] = field(default_factory=list)
    writing: int | None = None
    """The rate of writing that QEMU was told directly (`Hypervisor.throttle`)."""
    running: int | None = None
    shut_down: int | None = None
    released: int = 0
    """When its CPUs began to run, when the guest had shut itself down, and when libvirt had cleaned
    up: stamps of libvirt's events on the one clock."""

    def finish(self, how: str) -> None:
        """Called by libvirt's event: nothing of the domain is left."""
        self.end = how
        self.released = read_clock()
        os.eventfd_write(self.wake, 1)
        self.ended.set()

    def wait_end(self, seconds: float) -> bool:
        """Wait until the domain has ended by itself; whether it has."""
        return self.ended.wait(seconds)

    def kill(self) -> None:
        """End it by force, at once, and wait until libvirt knows; raises TrialError if it stays."""
        if self.ended.is_set() or (self.handle is None and self.process is None):
            return
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.process, signal.SIGKILL)
        else:
            _destroy(self.handle)
        if not self.wait_end(_FORCED_END_S):
            if self.handle is not None:
                _destroy(self.handle)
            if not self.wait_end(1.0):
                raise TrialError(f"the virtual machine {self.name} could not be ended")


@dataclass(slots=True)
class Hypervisor:
    """An open connection. ``root`` is the folder of the embedded driver, None for a daemon's."""

    connection: Any
    root: Path | None
    domains: dict[str, Domain] = field(default_factory=dict)
    remote: bool = False
    closed: str | None = None
    """Why a daemon's connection is no more."""

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Domain]:
        """Listen for the end of a domain that is about to be started; it is gone on exit."""
        domain = Domain(name, os.eventfd(0), self.remote)
        self.domains[name] = domain
        try:
            yield domain
        finally:
            try:
                domain.kill()
            finally:
                del self.domains[name]
                for pump in domain.pumps:
                    pump.close()
                for descriptor in (domain.wake, domain.process):
                    if descriptor is not None:
                        os.close(descriptor)

    def create(self, domain: Domain, xml: str, ports: Ports | None = None) -> None:
        """Start the domain; returns when libvirt says that it runs. Raises TrialError.

        A daemon's guest has ``ports``, whose streams are there before its first instruction: it is
        made without running, and let go then.
        """
        libvirt = _import_libvirt()
        # A daemon ends the domain when this process is gone; the lab does so by itself.
        flags = 0 if self.root else libvirt.VIR_DOMAIN_START_AUTODESTROY
        try:
            if ports is None:
                domain.handle = self.connection.createXML(xml, flags)
                return
            flags |= libvirt.VIR_DOMAIN_START_PAUSED
            domain.handle = self.connection.createXML(xml, flags)
            domain.pumps.append(open_channel(libvirt, domain.handle, ports.channel))
            domain.pumps.append(open_console(libvirt, domain.handle, ports.console))
            domain.handle.resume()
        except libvirt.libvirtError as error:
            raise self._explain(domain, error, "start the virtual machine") from error

    def _explain(self, domain: Domain, error: Exception, act: str) -> TrialError:
        """Why a start failed; a name that is taken is the only thing libvirt says in two ways."""
        if self.closed is not None:
            return TrialError(self.closed)
        if domain.handle is None and self.has_domain(domain.name):
            return TrialError(_describe_foreign(domain.name), hint=_FOREIGN_HINT)
        message = format_error(error)
        hint = find_hint(message, domain.name, self.find_log(domain.name))
        return TrialError(f"libvirt could not {act}: {message}", hint=hint)

    def has_domain(self, name: str) -> bool:
        """Whether libvirt knows a domain of that name, running or not."""
        with contextlib.suppress(_import_libvirt().libvirtError):
            return self.connection.lookupByName(name) is not None
        return False

    def save(self, domain: Domain, path: Path) -> None:
        """Write a running domain's memory to a file, and end it; raises TrialError."""
        libvirt = _import_libvirt()
        try:
            domain.handle.saveFlags(str(path), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            raise self._explain(domain, error, "save the machine") from error

    def restore(self, domain: Domain, xml: str, path: Path) -> None:
        """Start a domain from its saved memory; returns when it runs. Raises TrialError."""
        libvirt = _import_libvirt()
        try:
            self.connection.restoreFlags(str(path), xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            raise self._explain(domain, error, "restore the virtual machine") from error

    def throttle(self, domain: Domain, rates: Mapping[str, int]) -> None:
        """Limit what a started domain writes to its disks, in bytes per second by libvirt's name
        of each, through QEMU's own monitor; `Domain.writing` is what QEMU says it is then. Raises
        TrialError."""
        for alias, rate in rates.items():
            others = dict.fromkeys(("bps", "bps_rd", "iops", "iops_rd", "iops_wr"), 0)
            self._ask_monitor(domain, "block_set_io_throttle", id=alias, bps_wr=rate, **others)
        if rates:
            found = self._ask_monitor(domain, "query-block")
            disks = [each["inserted"] for each in found if each.get("qdev") in rates]
            domain.writing = min((each["bps_wr"] for each in disks), default=None)

    def _ask_monitor(self, domain: Domain, command: str, **arguments: object) -> Any:
        import libvirt_qemu

        said = json.dumps({"execute": command, "arguments": arguments})
        try:
            answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain.handle, said, 0))
        except _import_libvirt().libvirtError as error:
            raise TrialError(f"QEMU could not be asked: {format_error(error)}") from error
        if "error" in answer:
            raise TrialError(f"QEMU refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def find_process(self, domain: Domain) -> None:
        """Learn which process the started domain is; it may be gone already."""
        if domain.handle is None:
            with contextlib.suppress(_import_libvirt().libvirtError):
                domain.handle = self.connection.lookupByName(domain.name)
        if self.root is None or domain.handle is None:
            return
        with contextlib.suppress(OSError, ValueError):
            domain.pid = int((self.root / "run/qemu" / f"{domain.name}.pid").read_text())
            domain.process = os.pidfd_open(domain.pid)
            served = (self.root / "run/qemu").glob(f"{domain.handle.ID()}-*-fs*-fs.pid")
            domain.helpers = tuple(int(path.read_text()) for path in served)

    def find_log(self, name: str) -> Path | None:
        """Where QEMU's messages of a domain are."""
        return self.root / "log/qemu" / f"{name}.log" if self.root else None

    def learn(self, emulator: str | None, machine: str, acceleration: str) -> None:
        """Let libvirt ask QEMU what it can do, which it does once; raises HostError."""
        libvirt = _import_libvirt()
        kind = "kvm" if acceleration == "kvm" else "qemu"
        try:
            self.connection.getDomainCapabilities(emulator, "x86_64", machine, kind, 0)
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt cannot use {machine} with {acceleration}: {format_error(error)}"
            ) from error

    def validate(self, xml: str, name: str = "") -> None:
        """Hold ``xml`` against libvirt's schema, as a definition that is taken back at once.

        A name that exists already is refused by libvirt, not redefined: the identity is another.
        """
        libvirt = _import_libvirt()
        try:
            definition = self.connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            definition.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        except libvirt.libvirtError as error:
            if self.has_domain(name):
                raise HostError(_describe_foreign(name), hint=_FOREIGN_HINT) from error
            raise HostError(f"libvirt does not accept the domain: {format_error(error)}") from error

    def take_close(self, reason: int) -> None:
        """The daemon is gone, in libvirt's thread: every domain's trial is over."""
        words = _CLOSED.get(reason, "was closed")
        self.closed = f"the connection to libvirt {words}"
        for domain in list(self.domains.values()):
            if not domain.ended.is_set():
                domain.finish(self.closed)

    def take_event(self, handle: Any, event: int, detail: int) -> None:
        """A lifecycle event, in libvirt's thread."""
        domain = self.domains.get(handle.name())
        if domain is None or domain.ended.is_set():
            return
        libvirt = _import_libvirt()
        if event == libvirt.VIR_DOMAIN_EVENT_RESUMED and domain.running is None:
            domain.running = read_clock()
        elif event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
            domain.shut_down = read_clock()
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            domain.finish(_ENDS.get(detail, "libvirt ended it"))


_opened: dict[tuple[str, Path], Hypervisor] = {}


def open_hypervisor(uri: str | None, root: Path) -> Hypervisor:
    """The connection to ``uri`` (default: embedded, below ``root``), opened once a process.

    One whose daemon has gone is opened anew. Raises HostError with what libvirt says.
    """
    key = (uri or EMBEDDED, root)
    found = _opened.get(key)
    if found is None or found.closed is not None:
        found = _opened[key] = _open_hypervisor(uri, root)
    return found


def _open_hypervisor(uri: str | None, root: Path) -> Hypervisor:
    embedded = is_embedded(uri)
    root.mkdir(parents=True, exist_ok=True)
    prepare_libvirt(root)
    connection = open_embedded(root) if embedded else open_daemon(str(uri))
    hypervisor = Hypervisor(connection, root if embedded else None, remote=is_remote(uri))
    connection.domainEventRegisterAny(
        None,
        _import_libvirt().VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _, handle, event, detail, context: context.take_event(handle, event, detail),
        hypervisor,
    )
    if not embedded:
        connection.registerCloseCallback(
            lambda _, reason, context: context.take_close(reason), hypervisor
        )
    return hypervisor


def read_libvirt_version() -> str:
    """The file name of the library in use, which ends in its version.

    It is loaded, not asked, nor its binding imported: both would start it, before it is told where
    its log goes.
    """
    with contextlib.suppress(OSError):
        ctypes.CDLL("libvirt.so.0")
    names = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    return next((Path(name).name for name in names if "/libvirt.so." in name), "unknown")


def _destroy(handle: Any) -> None:
    with contextlib.suppress(_import_libvirt().libvirtError):
        handle.destroy()


def _describe_foreign(name: str) -> str:
    return f"libvirt has a virtual machine named {name} that no run made"


def find_hint(message: str, name: str, log: Path | None) -> str | None:
    """The remedy for what failed, else QEMU's own last words, which are in ``log``; None of a
    daemon's machine, whose log is with the daemon."""
    known = next((hint for word, hint in _HINTS.items() if word in message), None)
    if known or log is None:
        return known or f"the daemon's log of {name} has QEMU's own words"
    words = parse_last_words(log.read_text(errors="replace")) if log.is_file() else None
    return words and f"QEMU's last words: {words}"


def parse_last_words(text: str) -> str | None:
    """The last line that QEMU wrote in libvirt's log of a machine; None if it wrote none.

    Above it stands the command line, its pieces joined by backslashes; what libvirt adds at the end
    of a machine is its own.
    """
    _, _, said = text.rpartition("\\\n")
    lines = [line.strip() for line in said.splitlines()[1:] if line.strip()]
    found = [line for line in lines if not _LIBVIRTS_OWN.search(line)]
    return found[-1][:300] if found else None


def _import_libvirt() -> Any:
    """The binding, when it is first needed: it is not on every host, and slow to load."""
    import libvirt

    return libvirt
