"""The one door to libvirt: a connection, its events, and the life of a domain.

By default libvirt's QEMU driver runs inside this process (``qemu:///embed``, see
libvirt.org/drvqemu.html): no daemon, all its files below one folder, and what it starts belongs to
the lab. Any other connection that reaches a QEMU driver of this host works too.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import linux
from harness.errors import HostError, TrialError
from harness.starter import read_clock

EMBEDDED = "qemu:///embed"
LOG_NAME = "libvirt.log"

_FORCED_END_S = 10.0
_LOG_WARNINGS = 3  # libvirt's number for warnings and worse
_CONF = """\
# QEMU runs as the user of the harness, and nothing but the harness confines it.
user = "+{user}"
group = "+{group}"
security_driver = "none"
namespaces = []
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
max_core = 0
"""
# Users that distributions build libvirt's QEMU driver with; only its daemon's package makes them.
_COMPILED_IN_USERS = ("libvirt-qemu", "qemu")

_ENDS = {
    0: "the guest shut itself down",
    1: "it was destroyed",
    2: "QEMU crashed",
    5: "QEMU died",
}
"""virDomainEventStoppedDetailType, in words."""


@dataclass(slots=True)
class Domain:
    """A domain from just before its start until libvirt has cleaned up after it.

    ``wake`` is a descriptor that is readable once the domain has ended; ``end`` then says how.
    ``process`` is a pidfd of its QEMU, None where libvirt runs elsewhere.
    """

    name: str
    wake: int
    handle: Any = None
    pid: int | None = None
    process: int | None = None
    end: str | None = None
    ended: threading.Event = field(default_factory=threading.Event)
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
    """An open connection. ``root`` is the folder of the embedded driver, None for another one."""

    connection: Any
    root: Path | None
    domains: dict[str, Domain] = field(default_factory=dict)

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Domain]:
        """Listen for the end of a domain that is about to be started; it is gone on exit."""
        domain = Domain(name, os.eventfd(0))
        self.domains[name] = domain
        try:
            yield domain
        finally:
            try:
                domain.kill()
            finally:
                del self.domains[name]
                for descriptor in (domain.wake, domain.process):
                    if descriptor is not None:
                        os.close(descriptor)

    def create(self, domain: Domain, xml: str) -> None:
        """Start the domain; returns when libvirt says that it runs. Raises TrialError."""
        libvirt = _import_libvirt()
        try:
            # A daemon ends the domain when this process is gone; the lab does so by itself.
            flags = 0 if self.root else libvirt.VIR_DOMAIN_START_AUTODESTROY
            domain.handle = self.connection.createXML(xml, flags)
        except libvirt.libvirtError as error:
            message = _format(error)
            raise TrialError(
                f"libvirt could not start the virtual machine: {message}",
                hint=_find_hint(message),
            ) from error

    def save(self, domain: Domain, path: Path) -> None:
        """Write a running domain's memory to a file, and end it; raises TrialError."""
        libvirt = _import_libvirt()
        try:
            domain.handle.saveFlags(str(path), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            raise TrialError(f"libvirt could not save the machine: {_format(error)}") from error

    def restore(self, xml: str, path: Path) -> None:
        """Start a domain from its saved memory; returns when it runs. Raises TrialError."""
        libvirt = _import_libvirt()
        try:
            self.connection.restoreFlags(str(path), xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            message = _format(error)
            raise TrialError(
                f"libvirt could not restore the virtual machine: {message}",
                hint=_find_hint(message),
            ) from error

    def find_process(self, domain: Domain) -> None:
        """Learn which process the started domain is; it may be gone already."""
        if domain.handle is None:
            with contextlib.suppress(_import_libvirt().libvirtError):
                domain.handle = self.connection.lookupByName(domain.name)
        if self.root is None:
            return
        with contextlib.suppress(OSError, ValueError):
            domain.pid = int((self.root / "run/qemu" / f"{domain.name}.pid").read_text())
            domain.process = os.pidfd_open(domain.pid)

    def find_log(self, name: str) -> Path | None:
        """Where QEMU's messages of a domain are."""
        return self.root / "log/qemu" / f"{name}.log" if self.root else None

    def learn(self, emulator: str, machine: str, acceleration: str) -> None:
        """Let libvirt ask QEMU what it can do, which it does once; raises HostError."""
        libvirt = _import_libvirt()
        kind = "kvm" if acceleration == "kvm" else "qemu"
        try:
            self.connection.getDomainCapabilities(emulator, "x86_64", machine, kind, 0)
        except libvirt.libvirtError as error:
            raise HostError(
                f"libvirt cannot use {machine} with {acceleration}: {_format(error)}"
            ) from error

    def validate(self, xml: str) -> None:
        """Hold ``xml`` against libvirt's schema, as a definition that is taken back at once.

        A name that exists already is refused by libvirt, not redefined: the identity is another.
        """
        libvirt = _import_libvirt()
        try:
            definition = self.connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
            definition.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        except libvirt.libvirtError as error:
            raise HostError(f"libvirt does not accept the domain: {_format(error)}") from error

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


@functools.cache
def open_hypervisor(uri: str | None, root: Path) -> Hypervisor:
    """The connection to ``uri`` (default: embedded, below ``root``), opened once a process.

    Raises HostError with what libvirt says.
    """
    embedded = uri is None or uri == EMBEDDED
    root.mkdir(parents=True, exist_ok=True)
    _direct_log(root / LOG_NAME)
    _start_events()
    connection = _open_embedded(root) if embedded else _open(str(uri))
    hypervisor = Hypervisor(connection, root if embedded else None)
    connection.domainEventRegisterAny(
        None,
        _import_libvirt().VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        lambda _, handle, event, detail, context: context.take_event(handle, event, detail),
        hypervisor,
    )
    return hypervisor


def _open(uri: str) -> Any:
    libvirt = _import_libvirt()
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise HostError(
            f"libvirt connection {uri}: {_format(error)}",
            hint="without a connection of your own the harness needs no daemon",
        ) from error


def _open_embedded(root: Path) -> Any:
    (root / "etc").mkdir(exist_ok=True)
    conf = _CONF.format(user=os.geteuid(), group=os.getegid())
    (root / "etc/qemu.conf").write_text(conf)
    found: list[Any] = []

    def work() -> None:
        try:
            _enter_view(root)
            found.append(_open(f"{EMBEDDED}?root={_shorten(root)}"))
        except (HostError, OSError) as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], OSError):
        raise HostError(f"libvirt cannot be set up: {found[0]}") from found[0]
    if isinstance(found[0], HostError):
        raise found[0]
    return found[0]


def _enter_view(root: Path) -> None:
    """Give this thread alone a view of the host that the driver's set-up can work with.

    Run as root, libvirt makes folders in /run that it never removes, and looks up the users that
    its distribution compiled in before it reads that its configuration names others. A host with
    only the driver has no such users, so here they are further names of root.
    """
    if os.geteuid() != 0:
        return
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", "/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for name, rest in (("passwd", "x:0:0::/:/bin/false"), ("group", "x:0:")):
        known = Path("/etc", name).read_text()
        present = {line.partition(":")[0] for line in known.splitlines()}
        added = [f"{user}:{rest}\n" for user in _COMPILED_IN_USERS if user not in present]
        (root / name).write_text(known.rstrip("\n") + "\n" + "".join(added))
        linux.mount(str(root / name), f"/etc/{name}", "", linux.MS_BIND)


def _shorten(root: Path) -> str:
    """Another name of ``root``: libvirt's sockets below it must fit into 108 bytes (unix(7))."""
    return f"/proc/{os.getpid()}/fd/{os.open(root, os.O_PATH | os.O_CLOEXEC)}"


def _direct_log(path: Path) -> None:
    """libvirt reads this when it is first loaded; it would talk on stderr."""
    os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"{_LOG_WARNINGS}:file:{path}")
    os.environ.setdefault("LIBVIRT_LOG_FILTERS", "")


@functools.cache
def _start_events() -> None:
    """A thread that serves libvirt's events as long as the process lives."""
    libvirt = _import_libvirt()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, name="libvirt-events", daemon=True).start()


def read_libvirt_version() -> str:
    """The version of the library, which is also that of the embedded driver."""
    return str(_import_libvirt().getVersion())


def _destroy(handle: Any) -> None:
    with contextlib.suppress(_import_libvirt().libvirtError):
        handle.destroy()


def _format(error: Exception) -> str:
    """libvirt's message as one line; the last is the cause, above it may be QEMU's command."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _find_hint(message: str) -> str:
    """The remedy for a start that failed."""
    if "/dev/net/tun" in message:
        return "as root: modprobe tun; chmod 0666 /dev/net/tun"
    return "the trial's qemu.log has QEMU's own words"


def _import_libvirt() -> Any:
    """The binding, when it is first needed: it is not on every host, and slow to load."""
    import libvirt

    return libvirt
