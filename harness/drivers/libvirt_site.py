"""Where a machine's files and ports are, if not in the lab: with a libvirt daemon.

A daemon's QEMU is another user's, in other namespaces or on another host. Its files are volumes of
the run's own pool, its ports are streams of the connection; what it cannot have is said here.
"""

import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import lab
from harness.drivers.base import Toolbox
from harness.drivers.domain_xml import Domain
from harness.drivers.libvirt_host import Hypervisor, open_hypervisor
from harness.drivers.libvirt_pool import (
    Place,
    Pool,
    build_place,
    build_uuid,
    deleted,
    open_pool,
    remove_run,
)
from harness.drivers.libvirt_uri import (
    find_socket,
    is_embedded,
    is_remote,
    is_system,
    list_user_sockets,
)
from harness.errors import HostError, TrialError
from harness.variants import Options

_SHARED = "libvirt-pool"
_SYSTEM_SOCKETS = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")
_PEER = struct.Struct("3i")  # struct ucred, see unix(7)


# ---- pure: which file is which volume --------------------------------------------------------


def name_volume(domain: Domain, path: Path) -> str:
    """The volume of a file: an instance's own carries its name, a shared one a digest of its path.

    Nothing of this host's paths is told to the daemon.
    """
    if path.parent == domain.console.parent:
        return f"{domain.name}-{path.name}"
    return f"{hashlib.sha256(str(path).encode()).hexdigest()[:12]}-{path.name}"


def list_files(domain: Domain) -> list[Path]:
    """Every file that a domain reads or writes, those below an overlay too."""
    found = [path for drive in domain.drives for path in (drive.path, *dict(drive.backing))]
    if domain.boot:
        found += [domain.boot.kernel, domain.boot.initramfs]
    if domain.uefi:
        found += [domain.uefi.code, domain.uefi.variables]
    return list(dict.fromkeys(found))


def move_domain(domain: Domain, place: Place) -> Domain:
    """The domain as a daemon gets it: files in the pool, ports as streams, the daemon's QEMU."""

    def move(path: Path) -> Path:
        return place.path(name_volume(domain, path))

    drives = tuple(
        replace(
            drive,
            path=move(drive.path),
            backing=tuple((move(path), kind) for path, kind in drive.backing),
        )
        for drive in domain.drives
    )
    boot, uefi = domain.boot, domain.uefi
    if boot:
        boot = replace(boot, kernel=move(boot.kernel), initramfs=move(boot.initramfs))
    if uefi:
        uefi = replace(uefi, code=move(uefi.code), variables=move(uefi.variables))
    return replace(
        domain,
        drives=drives,
        boot=boot,
        uefi=uefi,
        uuid=build_uuid(domain.name),
        emulator=None,
        streams=True,
    )


# ---- a daemon --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Site:
    """A daemon as a run uses it."""

    uri: str
    toolbox: Toolbox
    root: Path

    @property
    def remote(self) -> bool:
        return is_remote(self.uri)

    @property
    def place(self) -> Place:
        return build_place(self.toolbox.run_id, self.uri)

    @property
    def no_network(self) -> str | None:
        """Why services cannot be reached; a daemon that runs in the lab has its bridge."""
        if self.remote:
            return f"{self.uri} has its guests on another host, outside the lab's network"
        if not _is_inside_lab(self.uri):
            return f"{self.uri} is a daemon outside the lab's network"
        return None

    @property
    def tsc_khz(self) -> int | None:
        """The clock of the daemon's host, once the run has asked for it."""
        pool = self.toolbox.shared.get(_SHARED)
        return pool.tsc_khz if isinstance(pool, Pool) else None

    def find_fault(self, options: Options) -> str | None:
        """Why a variant cannot be had over a daemon."""
        if options.disk == "virtiofs":
            return "a folder is shared with the embedded libvirt's guests only: no --connection"
        if options.tuned and self.remote:
            return "tuning is made for this host's CPUs, and the guests are on another host"
        return None

    def open(self) -> Hypervisor:
        return open_hypervisor(self.uri, self.root)

    @contextlib.contextmanager
    def start_run(self) -> Iterator[None]:
        """The run's pool, made once for all platforms and removed at the end."""
        shared = self.toolbox.shared
        if _SHARED in shared:
            yield
            return
        run_id = self.toolbox.run_id
        connection = self.open().connection
        lab.note_connection(run_id, self.uri)  # first: a kill may come in between
        try:
            shared[_SHARED] = open_pool(connection, self.place)
            yield
        finally:
            shared.pop(_SHARED, None)
            self._remove()

    def _remove(self) -> None:
        """Take everything back; what is left stays noted, for the lab's end and for `clean`."""
        try:
            said = remove_run(self.open().connection, self.place)
        except HostError as error:
            said = [f"could not remove {self.place.name}: {error}"]
        if any(line.startswith("could not") for line in said):
            self.toolbox.say("; ".join(said))
        else:
            lab.note_connection(self.toolbox.run_id, "")

    def upload_shared(self, domain: Domain) -> None:
        """Everything that a machine only reads."""
        pool = self._require_pool()
        for path in list_files(domain):
            if path.parent != domain.console.parent:
                pool.upload_shared(path, name_volume(domain, path))

    @contextlib.contextmanager
    def placed(self, domain: Domain) -> Iterator[None]:
        """An instance's own files as volumes; overlays are made there, the others uploaded."""
        with _as_trial_error():
            self.upload_shared(domain)
            pool = self._require_pool()
        own = [path for path in list_files(domain) if path.parent == domain.console.parent]
        thin = {drive.path: drive.backing[0] for drive in domain.drives if drive.backing}
        with deleted(pool, [name_volume(domain, path) for path in own]):
            for path in own:
                name = name_volume(domain, path)
                with _as_trial_error():
                    if path in thin:
                        base, kind = thin[path]
                        capacity = base.stat().st_size
                        pool.overlay(name, capacity, name_volume(domain, base), kind)
                    else:
                        pool.upload(path, name)
                        path.unlink()
            yield

    def select_commands(
        self, domain: Domain, commands: Sequence[tuple[str, ...]]
    ) -> tuple[tuple[str, ...], ...]:
        """Those that make files here: an overlay is made by the daemon."""
        thin = {str(drive.path) for drive in domain.drives if drive.backing}
        return tuple(each for each in commands if not thin.intersection(each))

    def _require_pool(self) -> Pool:
        """The pool over the connection of now: a daemon may have come back."""
        pool = self.toolbox.shared.get(_SHARED)
        if not isinstance(pool, Pool):
            raise HostError("the run has no storage pool yet with the libvirt daemon")
        connection = self.open().connection
        if connection is not pool.connection:
            again = open_pool(connection, self.place)
            pool.connection, pool.handle = again.connection, again.handle
        return pool


def find_site(toolbox: Toolbox, root: Path) -> Site | None:
    """The daemon that a run uses; None for the embedded libvirt."""
    if is_embedded(toolbox.connection):
        return None
    return Site(str(toolbox.connection), toolbox, root)


@contextlib.contextmanager
def _as_trial_error() -> Iterator[None]:
    """What fails for one instance is that trial's failure."""
    try:
        yield
    except HostError as error:
        raise TrialError(error.message, hint=error.hint) from error


def _is_inside_lab(uri: str) -> bool:
    """Whether the daemon behind a socket of this host is a process of the lab, on its network."""
    for path in _list_sockets(uri):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            pid, _, _ = _PEER.unpack(peer)
            theirs, ours = os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net")
            return pid > 0 and theirs.st_ino == ours.st_ino
    return False


def _list_sockets(uri: str) -> list[Path]:
    named = find_socket(uri)
    if named is not None:
        return [Path(named)]
    system = [Path(each) for each in _SYSTEM_SOCKETS]
    return system if is_system(uri) else [*list_user_sockets(), *system]
