"""A run's own storage pool in a libvirt daemon: where its guests' files are, through libvirt alone.

The daemon may run as another user or on another host, so files are uploaded into a pool that
carries the run's name, before any clock, and deleted with it. Nothing else is ever removed: the
identity of the pool and of each domain is made from the run's name, and is looked at first.

Source: https://libvirt.org/formatstorage.html
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from harness.drivers.libvirt_connect import format_error, open_daemon, prepare_libvirt
from harness.drivers.libvirt_uri import is_system
from harness.errors import HostError

PREFIX = "harness-"
_SYSTEM_FOLDER = "/var/lib/libvirt/images"
_OTHER_FOLDER = "/var/tmp"
_SPACE = uuid.UUID("6b1c2f0e-6f0c-4b55-9a53-0e6f3d2c9a11")
_PIECE = 1 << 18
_SEEK_FAILED = 6  # ENXIO: nothing but a hole is left, see lseek(2)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the files of a run are with a daemon; pure, so that a domain can be described."""

    name: str
    folder: str
    uuid: str

    def path(self, volume: str) -> Path:
        return Path(self.folder, volume)


def build_place(run_id: str, uri: str) -> Place:
    """The pool of a run: where distributions keep images, else where users may write."""
    name = PREFIX + run_id
    folder = _SYSTEM_FOLDER if is_system(uri) else _OTHER_FOLDER
    return Place(name, f"{folder}/{name}", build_uuid(name))


def build_uuid(name: str) -> str:
    """An identity that only the run of that name gives."""
    return str(uuid.uuid5(_SPACE, name))


def build_pool_xml(place: Place) -> str:
    """A folder as a pool; others may pass through it, since QEMU is another user."""
    pool = etree.Element("pool", {"type": "dir"})
    etree.SubElement(pool, "name").text = place.name
    etree.SubElement(pool, "uuid").text = place.uuid
    target = etree.SubElement(pool, "target")
    etree.SubElement(target, "path").text = place.folder
    etree.SubElement(etree.SubElement(target, "permissions"), "mode").text = "0711"
    return etree.tostring(pool, pretty_print=True, encoding="unicode")


def build_volume_xml(
    name: str, capacity: int, kind: str = "raw", backing: tuple[str, str] | None = None
) -> str:
    """A volume that takes no more than what is written; ``backing`` is a path and its format."""
    volume = etree.Element("volume")
    etree.SubElement(volume, "name").text = name
    etree.SubElement(volume, "capacity", {"unit": "bytes"}).text = str(capacity)
    etree.SubElement(volume, "allocation", {"unit": "bytes"}).text = "0"
    target = etree.SubElement(volume, "target")
    etree.SubElement(target, "format", {"type": kind})
    etree.SubElement(etree.SubElement(target, "permissions"), "mode").text = "0644"
    if backing is not None:
        below = etree.SubElement(volume, "backingStore")
        etree.SubElement(below, "path").text = backing[0]
        etree.SubElement(below, "format", {"type": backing[1]})
    return etree.tostring(volume, pretty_print=True, encoding="unicode")


@dataclass(slots=True)
class Pool:
    """The pool while a run uses it. ``shared`` are the volumes of files that all instances read.

    ``tsc_khz`` is the frequency of the daemon's host's time stamp counter, None if it is not said.
    """

    connection: Any
    handle: Any
    place: Place
    tsc_khz: int | None = None
    shared: set[str] = field(default_factory=set)

    def upload_shared(self, source: Path, name: str) -> None:
        """Upload a file once a run."""
        if name not in self.shared:
            self.upload(source, name)
            self.shared.add(name)

    def upload(self, source: Path, name: str) -> None:
        """Make a volume with the bytes of a file; its holes stay holes. Raises HostError."""
        libvirt = _import_libvirt()
        size = source.stat().st_size
        try:
            volume = self.handle.createXML(build_volume_xml(name, size), 0)
            stream = self.connection.newStream()
            volume.upload(stream, 0, size, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
            with source.open("rb") as file:
                number = file.fileno()
                stream.sparseSendAll(_read_piece, _measure_hole, _skip, number)
            stream.finish()
        except libvirt.libvirtError as error:
            raise HostError(
                f"{source.name} could not be uploaded: {format_error(error)}"
            ) from error

    def overlay(self, name: str, capacity: int, base: str, kind: str) -> None:
        """Make a thin qcow2 volume above another one. Raises HostError."""
        libvirt = _import_libvirt()
        backing = (str(self.place.path(base)), kind)
        try:
            self.handle.createXML(build_volume_xml(name, capacity, "qcow2", backing), 0)
        except libvirt.libvirtError as error:
            raise HostError(
                f"the overlay {name} could not be made: {format_error(error)}"
            ) from error

    def delete(self, name: str) -> None:
        """Delete a volume; it may be gone, or the daemon: the run's end tries once more."""
        with contextlib.suppress(_import_libvirt().libvirtError):
            self.handle.storageVolLookupByName(name).delete(0)


def open_pool(connection: Any, place: Place) -> Pool:
    """Make the run's pool, or find it again; HostError where another one has its name."""
    libvirt = _import_libvirt()
    found = _find_pool(connection, place.name)
    if found is not None and found.UUIDString() != place.uuid:
        raise HostError(
            f"libvirt has a storage pool named {place.name} that no run made",
            hint="it was left alone; begin a run of another name",
        )
    try:
        handle = found or connection.storagePoolDefineXML(build_pool_xml(place), 0)
        if not handle.isActive():
            handle.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    except libvirt.libvirtError as error:
        raise HostError(
            f"libvirt could not make a storage pool in {place.folder}: {format_error(error)}",
            hint="the daemon needs its storage driver, and a file system it may write to",
        ) from error
    return Pool(connection, handle, place, parse_tsc(connection.getCapabilities()))


def parse_tsc(capabilities: str) -> int | None:
    """The time stamp counter's frequency in kHz, from libvirt's capabilities of a host."""
    found = etree.fromstring(capabilities).find("host/cpu/counter[@name='tsc']")
    return None if found is None else int(found.get("frequency", "0")) // 1000 or None


def remove_run(connection: Any, place: Place) -> list[str]:
    """Remove what a run left with a daemon: its domains, volumes and pool, and nothing else.

    A line for each thing that was removed or could not be.
    """
    libvirt = _import_libvirt()
    try:
        return [*_remove_domains(connection, place), *_remove_pool(connection, place)]
    except libvirt.libvirtError as error:
        return [f"could not remove {place.name} from libvirt: {format_error(error)}"]


def clean_daemon(uri: str, run_id: str) -> list[str]:
    """`remove_run` for a run that is dead, in a process of its own.

    libvirt's threads do not survive the fork into a lab that may come after it.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, "\n".join(_clean(uri, run_id)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as answer:
        said = answer.read().splitlines()
    os.waitpid(child, 0)
    return said


def _clean(uri: str, run_id: str) -> list[str]:
    try:
        prepare_libvirt(None)
        connection = open_daemon(uri)
    except (HostError, ImportError) as error:
        return [f"could not remove {PREFIX}{run_id} from libvirt: {error}"]
    try:
        return remove_run(connection, build_place(run_id, uri))
    finally:
        connection.close()


def _remove_domains(connection: Any, place: Place) -> list[str]:
    libvirt = _import_libvirt()
    said = []
    for domain in connection.listAllDomains():
        name = domain.name()
        if not name.startswith(place.name) or domain.UUIDString() != build_uuid(name):
            continue
        try:
            domain.destroy()
            said.append(f"removed virtual machine {name}")
        except libvirt.libvirtError as error:
            # The daemon ends it too, when the connection that made it is gone.
            if error.get_error_code() not in (
                libvirt.VIR_ERR_NO_DOMAIN,
                libvirt.VIR_ERR_OPERATION_INVALID,
            ):
                raise
    return said


def _remove_pool(connection: Any, place: Place) -> list[str]:
    pool = _find_pool(connection, place.name)
    if pool is None or pool.UUIDString() != place.uuid:
        return []
    if not pool.isActive():
        pool.create(_import_libvirt().VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    pool.refresh(0)
    for volume in pool.listAllVolumes():
        volume.delete(0)
    pool.destroy()
    pool.delete(0)
    pool.undefine()
    return [f"removed storage pool {place.name}"]


def _find_pool(connection: Any, name: str) -> Any:
    libvirt = _import_libvirt()
    with contextlib.suppress(libvirt.libvirtError):
        return connection.storagePoolLookupByName(name)
    return None


# ---- what a sparse stream asks of a file -----------------------------------------------------


def _read_piece(_stream: Any, size: int, file: int) -> bytes:
    return os.read(file, min(size, _PIECE))


def _measure_hole(_stream: Any, file: int) -> tuple[bool, int]:
    """Whether the file has data where it stands, and how far that, or the hole, goes."""
    at = os.lseek(file, 0, os.SEEK_CUR)
    end = os.fstat(file).st_size
    try:
        data = os.lseek(file, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != _SEEK_FAILED:
            raise
        os.lseek(file, at, os.SEEK_SET)
        return False, end - at
    if data > at:
        os.lseek(file, at, os.SEEK_SET)
        return False, data - at
    hole = os.lseek(file, at, os.SEEK_HOLE)
    os.lseek(file, at, os.SEEK_SET)
    return True, hole - at


def _skip(_stream: Any, length: int, file: int) -> int:
    return os.lseek(file, length, os.SEEK_CUR)


@contextlib.contextmanager
def deleted(pool: Pool, names: list[str]) -> Iterator[None]:
    """Delete an instance's volumes on exit."""
    try:
        yield
    finally:
        for name in names:
            pool.delete(name)


def _import_libvirt() -> Any:
    import libvirt

    return libvirt
