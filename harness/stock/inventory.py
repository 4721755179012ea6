"""Everything in the cache that can be removed by itself, found and measured; removes nothing."""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.drivers import snapshot
from harness.images import bootable, catalog, store
from harness.images.archive import digest_file
from harness.images.bootable_files import IMAGE_ROOT
from harness.images.bootable_root import RECORD, read_system, system_folder, systems_dir
from harness.images.bootable_system import SYSTEM
from harness.images.kernel import kernels_dir
from harness.images.model import Packing
from harness.images.pack import measure_file
from harness.images.programs import build_programs
from harness.images.recipes import RECIPES
from harness.images.rooted import run_rooted
from harness.images.workshop import PREFIX
from harness.paths import cache_dir
from harness.rebuild.material import packages_dir
from harness.stock.usage import is_used, read_last_use, try_lock

Kind = Literal[
    "image", "disk", "snapshot", "kernel", "initramfs", "system", "packages", "programs", "leftover"
]

_BUILD_S = 600.0
_DAMAGED = "it is damaged, or another version made it"
_INITRAMFS = re.compile(r"(initramfs|layered)-([0-9a-f]{12})\.cpio")
_FORMS = {
    "snapshot-memory": snapshot.MEMORY,
    "snapshot-disk": snapshot.DISK,
    "snapshot-memory-zstd": snapshot.PACKED,
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in the cache. ``name`` is the image's, a kernel's release, or what it was made for.

    ``digest`` is that of the image that it is or was made from. ``built`` and ``used`` are seconds
    of the Unix clock. ``fault`` says why no run would use it; empty for what is up to date.
    ``busy`` is what it is needed for at this moment.
    """

    kind: Kind
    name: str
    path: Path
    allocated: int
    built: float
    used: float
    digest: str = ""
    fault: str = ""
    busy: str = ""
    packings: tuple[Packing, ...] = ()


def list_items() -> list[Item]:
    """All there is, by kind and name; compiles the programs where these are not there."""
    agent = build_programs().agent
    found = [*_list_images(), *_list_disks(), *_list_snapshots()]
    found += [*_list_kernels(digest_file(agent)), *_list_systems(), *_list_packages()]
    found += _list_programs(agent.parent)
    return [*found, *_list_leftovers()]


def list_packed() -> list[Item]:
    """What has packings: images, bootable disks and snapshots that are whole."""
    items = [*_list_images(), *_list_disks(), *_list_snapshots()]
    return [each for each in items if each.packings]


def _list_images() -> Iterator[Item]:
    for name in store.list_stored():
        current = store.find_record(name)
        for folder in store.list_folders(name):
            record = store.read_record(folder)
            if record is None:
                yield _build_damaged(name, folder)
                continue
            fault = ""
            if current is None or record.image.folder != current.image.folder:
                fault = "another image has its name"
            elif name in RECIPES and catalog.find_image(name) is None:
                fault = "its recipe, the agent or Debian's suite has changed"
            forms = tuple(record.image.packings.values())
            digest = record.image.digest
            yield _build("image", name, folder, folder / "image.json", forms, digest, fault)


def _list_disks() -> Iterator[Item]:
    for parent in _list_folders(bootable.disks_dir()):
        current = store.find_record(parent.name)
        for folder in _list_folders(parent):
            disk = bootable.read_disk(folder)
            if disk is None:
                yield _build_damaged(parent.name, folder)
                continue
            fault = ""
            if current is None:
                fault = "its image is gone"
            elif folder != bootable.folder_of(current.image):
                fault = "its image, or how disks are made, has changed"
            forms = tuple(disk.packings.values())
            record = folder / "disk.json"
            yield _build("disk", parent.name, folder, record, forms, disk.image_digest, fault)


def _list_snapshots() -> Iterator[Item]:
    for parent in _list_folders(snapshot.snapshots_dir()):
        current = store.find_record(parent.name)
        for folder in _list_folders(parent):
            if snapshot.read_snapshot(folder) is None:
                yield _build_damaged(parent.name, folder)
                continue
            measured = (measure_file(name, folder / path) for name, path in _FORMS.items())
            forms = tuple(replace(each, virtual=find_virtual(each.path)) for each in measured)
            fault = "" if current else "its image is gone"
            record = folder / "snapshot.json"
            yield _build("snapshot", parent.name, folder, record, forms, "", fault)


def find_virtual(path: Path) -> int | None:
    """The size of the disk that a qcow2 file stands for, from its header (docs/interop/qcow2.txt of
    QEMU); None for other files."""
    with path.open("rb") as file:
        head = file.read(32)
    whole = head[:4] == b"QFI\xfb" and len(head) == 32
    return int.from_bytes(head[24:32], "big") if whole else None


def _list_kernels(agent: str) -> Iterator[Item]:
    parent = kernels_dir()
    current = (parent / "current").resolve()
    for folder in _list_folders(parent):
        fault = "" if folder.resolve() == current else "another kernel is in use"
        whole = _build("kernel", folder.name, folder, folder / "kernel.json", (), "", fault)
        old = [] if fault else _list_initramfs(whole, agent)
        yield replace(whole, allocated=whole.allocated - sum(each.allocated for each in old))
        yield from old


def _list_initramfs(kernel: Item, agent: str) -> list[Item]:
    """Those of a kernel that carry another agent than the present one."""
    found = []
    for path in sorted(kernel.path.iterdir()):
        named = _INITRAMFS.fullmatch(path.name)
        if named and named[2] != agent[:12]:
            made, size = _read_time(path), _measure(path)
            fault = "made for another agent"
            found.append(
                Item("initramfs", kernel.name, path, size, made, made, "", fault, kernel.busy)
            )
    return found


def _list_systems() -> Iterator[Item]:
    """What lies beside images on bootable disks."""
    base = store.find_record(SYSTEM)
    current = system_folder(base.image, IMAGE_ROOT) if base else None
    for folder in _list_folders(systems_dir()):
        if read_system(folder) is None:
            yield _build_damaged(folder.name, folder)
            continue
        fault = "" if folder == current else f"{SYSTEM}, or what is added to it, has changed"
        yield _build("system", SYSTEM, folder, folder / RECORD, (), "", fault)


def _list_packages() -> Iterator[Item]:
    """What `layers` has fetched, by the image that it is for."""
    images = {store.short_digest(each.image.digest) for each in store.list_records()}
    for folder in _list_folders(packages_dir()):
        fault = "" if folder.name in images else "its image is gone, or has changed"
        yield _build("packages", folder.name, folder, folder, (), "", fault)


def _list_programs(current: Path) -> Iterator[Item]:
    for folder in _list_folders(cache_dir() / "programs"):
        fault = "" if folder == current else "made from other sources"
        yield _build("programs", folder.name, folder, folder / "agent", (), "", fault)


def _list_leftovers() -> Iterator[Item]:
    """What dead builds left; the folder of one that is at work is no leftover."""
    roots = [store.images_dir(), bootable.disks_dir(), snapshot.snapshots_dir()]
    parents = [each for root in roots for each in _list_folders(root)]
    flat = (kernels_dir(), systems_dir(), packages_dir(), cache_dir() / "programs")
    for parent in (*parents, *flat):
        for folder in sorted(parent.glob(f"{PREFIX}*")):
            if time.time() - _read_time(folder) < _BUILD_S:
                continue  # programs are compiled without a lock
            with contextlib.suppress(OSError), try_lock(parent / ".lock") as free:
                if free:
                    yield _build_damaged(parent.name, folder, "a build was broken off")


def _build(
    kind: Kind,
    name: str,
    folder: Path,
    record: Path,
    packings: tuple[Packing, ...],
    digest: str,
    fault: str,
) -> Item:
    built = _read_time(record)
    return Item(
        kind=kind,
        name=name,
        path=folder,
        allocated=sum(each.allocated for each in packings) or _measure(folder),
        built=built,
        used=read_last_use(folder, built),
        digest=digest,
        fault=fault,
        busy="a run uses it now" if is_used(folder) else "",
        packings=packings,
    )


def _build_damaged(name: str, folder: Path, fault: str = _DAMAGED) -> Item:
    made = _read_time(folder)
    busy = "a run uses it now" if is_used(folder) else ""
    return Item("leftover", name, folder, _measure(folder), made, made, fault=fault, busy=busy)


def _list_folders(parent: Path) -> list[Path]:
    found = sorted(parent.iterdir()) if parent.is_dir() else []
    return [
        each
        for each in found
        if each.is_dir() and not each.is_symlink() and not each.name.startswith(".")
    ]


def _measure(path: Path) -> int:
    """Disk space of a folder with files of any owner of ours; 0 for one that vanished."""
    done = run_rooted(["du", "-s", "--block-size=1", path], timeout=300, check=False)
    first = done.stdout.split("\t")[0]
    return int(first) if first.isdecimal() else 0


def _read_time(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return 0.0
