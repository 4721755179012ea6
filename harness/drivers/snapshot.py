"""Saved virtual machines in the cache: ``snapshots/IMAGE/KEY/`` with memory, disk and record.

A machine is saved when its agent waits for a spec: booted, its root mounted, nothing of a workload
in it. KEY stands for all that has to be the same where it is restored; a snapshot that does not
fit, or whose bytes are not those that were saved, is made again and never trusted.

Version of snapshot.json: 1, first release.
"""

import hashlib
import json
import shutil
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, TrialError
from harness.images.archive import digest_file
from harness.images.oci import compress_file
from harness.images.workshop import Progress, move_into_place, remove_tree, start_work, write_text
from harness.paths import cache_dir

VERSION = 1
MEMORY = "memory.save"
DISK = "disk.qcow2"
PACKED = "memory.save.zst"
NAME = "harness-restore-0000"
"""What a saved machine is called; its copies have other digits."""

_RECORD = "snapshot.json"
_SPACE = uuid.UUID("6a2f4f0e-57f0-4c57-9a31-8f0c2a1de3b7")
_MAGIC = b"LibvirtQemudSave"
_HEADER = struct.Struct("<16s5I")  # magic, version, length of the XML, running, compressed, cookie
_HEADER_SIZE = _HEADER.size + 14 * 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved machine: ``files`` are its digests by name. ``slot`` is what it stands for."""

    folder: Path
    slot: str
    files: Mapping[str, str]

    @property
    def memory(self) -> Path:
        return self.folder / MEMORY

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def packed(self) -> Path:
        """The memory as it travels."""
        return self.folder / PACKED


def snapshots_dir() -> Path:
    """The folder of all saved machines."""
    return cache_dir() / "snapshots"


def folder_of(image: str, key: str) -> Path:
    """Where the snapshot of ``key`` is, whether it is there or not."""
    return snapshots_dir() / image / key


def build_key(parts: Mapping[str, object]) -> str:
    """The name of everything that has to be the same, in 12 digits."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build_identity(key: str, number: int = 0) -> tuple[str, str]:
    """Name and UUID of a machine restored from the snapshot of ``key``: 0 is the saved one."""
    identity = str(uuid.uuid5(_SPACE, key))
    return f"{NAME[:-4]}{number:04d}", f"{identity[:-4]}{number:04d}"


def require_snapshot(
    image: str, key: str, slot: str, make: Callable[[Path], None], progress: Progress
) -> Snapshot:
    """The snapshot of ``key``, whole to the last byte; else ``make`` writes it into a new folder.

    Older ones of the same ``slot`` are removed then.
    """
    final = folder_of(image, key)
    found = read_snapshot(final)
    fault = find_fault(found) if found else None
    if found is not None and fault is None:
        return found
    if fault:
        progress(f"the snapshot of {image} is damaged ({fault}): it is made again")
    with start_work(final.parent, progress) as scratch:
        built = scratch / "snapshot"
        built.mkdir()
        progress(f"{image}: saving a booted machine")
        make(built)
        compress_file(built / MEMORY, built / PACKED, "zstd")
        files = {name: digest_file(built / name) for name in (MEMORY, DISK)}
        record = {"version": VERSION, "slot": slot, "files": files}
        write_text(built / _RECORD, json.dumps(record, indent=1) + "\n")
        _remove_outdated(final.parent, slot)
        move_into_place(built, final)
    snapshot = read_snapshot(final)
    if snapshot is None:
        raise HostError(f"the snapshot of {image} could not be kept in {final}")
    return snapshot


def read_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot in ``folder``, unchecked; None if it is not there or of another version."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        if document["version"] != VERSION:
            return None
        found = Snapshot(folder, str(document["slot"]), dict(document["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all((folder / name).is_file() for name in (MEMORY, DISK, PACKED)) else None


def find_fault(snapshot: Snapshot) -> str | None:
    """Which file is not what was saved; None if all are."""
    for name, digest in snapshot.files.items():
        if digest_file(snapshot.folder / name) != digest:
            return f"{name} has another digest"
    return None


def read_marks(snapshot: Snapshot) -> tuple[tuple[int, ...], ...]:
    """What shows at a glance that a file was touched: its number, size and times."""
    found = (snapshot.folder.joinpath(name).stat() for name in (MEMORY, DISK))
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for each in found)


def copy_memory(snapshot: Snapshot, key: str, number: int, out: Path) -> None:
    """A copy of the saved memory for a further machine beside the first: other name and UUID.

    They stand in the XML at the head of libvirt's file (magic, version, length of the XML, …) and
    have the same length, so nothing moves. Raises TrialError for a file of another form.
    """
    shutil.copyfile(snapshot.memory, out)
    with out.open("r+b") as file:
        head = file.read(_HEADER.size)
        magic, _, length, *_ = _HEADER.unpack(head)
        if magic != _MAGIC:
            raise TrialError("this libvirt saves machines in a form that cannot be copied")
        file.seek(_HEADER_SIZE)
        text = file.read(length)
        for old, new in zip(build_identity(key), build_identity(key, number), strict=True):
            text = text.replace(old.encode(), new.encode())
        file.seek(_HEADER_SIZE)
        file.write(text)


def _remove_outdated(parent: Path, slot: str) -> None:
    for folder in parent.glob("[0-9a-f]*"):
        found = read_snapshot(folder)
        if found is None or found.slot == slot:
            remove_tree(folder)
