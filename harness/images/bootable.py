"""Bootable disks in the cache: ``disks/NAME/KEY/`` with the packings and ``disk.json``.

KEY stands for everything that decides what the disk is, short of Debian's packages of the day.
``disk.json`` is written last and the folder is renamed into place after it. The compressed forms,
in which a disk travels, may come later; the record is then written anew.

Version of disk.json: 1, first release.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from harness.images import apt
from harness.images.bootable_disk import (
    SECTOR,
    Layout,
    build_id,
    build_layout,
    build_table,
    require_boot_tools,
    write_disk,
)
from harness.images.bootable_files import IMAGE_ROOT, build_early_config
from harness.images.bootable_root import Root, describe_files, require_system, write_root
from harness.images.bootable_system import PACKAGES, SYSTEM, build_system, is_system
from harness.images.catalog import require_image
from harness.images.model import Disk, Image, Packing
from harness.images.oci import compress_file
from harness.images.pack import convert_qcow2, sum_file_sizes
from harness.images.recipes import RECIPES
from harness.images.rooted import require_owners
from harness.images.workshop import (
    Progress,
    move_into_place,
    require_space,
    start_work,
    write_text,
)
from harness.paths import cache_dir
from harness.process import run_command

VERSION = 1
PATHS = {
    "disk-raw": "disk.raw",
    "disk-qcow2": "disk.qcow2",
    "disk-raw-zstd": "disk.raw.zst",
}
"""Every packing, and what it is called inside a disk's folder."""

_RAW = "disk-raw"
_RECORD = "disk.json"
_LAYOUT_VERSION = "2"
"""Raised whenever the same packages must give another disk."""
_SPACE = 2 << 30


def disks_dir() -> Path:
    """The folder of all bootable disks."""
    return cache_dir() / "disks"


def find_disk(image: Image) -> Disk | None:
    """The bootable disk of ``image`` if it is built and up to date; contacts no mirror."""
    return read_disk(folder_of(image))


def require_disk(image: Image, progress: Progress) -> Disk:
    """The bootable disk of ``image``, built first where needed; raises HostError."""
    found = find_disk(image)
    if found is not None:
        return found
    require_boot_tools()
    require_owners()
    base = image if is_system(image.name) else require_image(SYSTEM, progress)
    final = folder_of(image)
    with start_work(final.parent, progress) as scratch:
        found = find_disk(image)
        if found is not None:
            return found
        require_space(scratch, _SPACE)
        built = scratch / "disk"
        built.mkdir()
        disk = _build_disk(image, base, scratch, built, progress)
        write_text(built / _RECORD, format_disk(disk))
        move_into_place(built, final)
    found = read_disk(final)
    assert found is not None, final
    return found


def require_forms(image: Image, progress: Progress) -> Disk:
    """The bootable disk of ``image`` in every packing, made first where needed."""
    disk = require_disk(image, progress)
    if set(disk.packings) == set(PATHS):
        return disk
    with start_work(disk.folder.parent, progress) as scratch:
        disk = read_disk(disk.folder) or disk
        if set(disk.packings) != set(PATHS):
            progress(f"{image.name}: compressing the bootable disk")
            whole = replace(disk, packings=_write_forms(disk, scratch))
            write_text(disk.folder / _RECORD, format_disk(whole))
            disk = whole
    progress(f"{image.name}: the bootable disk is ready")
    return disk


def read_disk(folder: Path) -> Disk | None:
    """The disk in ``folder``; None if its record or a packing is missing or of another version."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        if document["version"] != VERSION:
            return None
        packings = {
            name: Packing(name, folder / PATHS[name], *sizes)
            for name, sizes in document["packings"].items()
        }
        disk = Disk(
            image=document["image"],
            image_digest=document["image_digest"],
            digest=document["digest"],
            folder=folder,
            packings=packings,
            kernel=document["kernel"],
            packages=tuple((name, version, size) for name, version, size in document["packages"]),
            extra_bytes=document["extra_bytes"],
            changed=tuple(document["changed"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = _RAW in packings and all(packing.path.is_file() for packing in packings.values())
    return disk if whole else None


def format_disk(disk: Disk) -> str:
    """``disk.json``: without paths, so that a cache may be moved."""
    document = asdict(disk)
    del document["folder"]
    document["packings"] = {
        name: [packing.apparent, packing.allocated, packing.virtual]
        for name, packing in disk.packings.items()
    }
    return json.dumps({"version": VERSION, **document}, indent=1) + "\n"


def build_key(image: Image, suite: str) -> str:
    """What the disk of ``image`` is named by: another key is another disk."""
    layout = build_layout(image.digest, SECTOR)
    base = None if is_system(image.name) else asdict(RECIPES[SYSTEM])
    parts: Mapping[str, object] = {
        "image": image.digest,
        "base": base,
        "layout": _LAYOUT_VERSION,
        "suite": suite,
        "packages": PACKAGES,
        "table": build_table(layout),
        "loader": build_early_config(""),
        "files": describe_files(IMAGE_ROOT if base else None),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(image: Image) -> Path:
    """Where the present disk of ``image`` is, whether it is there or not."""
    return disks_dir() / image.name / build_key(image, apt.find_sources().suite)


def _build_disk(image: Image, base: Image, scratch: Path, built: Path, progress: Progress) -> Disk:
    """The raw disk: its root is the image's own, or another one with the image beside it."""
    raw = built / PATHS[_RAW]
    if base.name == image.name:
        partition = build_id(image.digest, "root")
        system = build_system(image, partition, None, scratch, progress)
        root = write_root(system, scratch, scratch / "root.ext4")
        layout = build_layout(image.digest, root.path.stat().st_size)
        extra, beside = root.size - image.packings["tree"].apparent, None
    else:
        root = require_system(base, IMAGE_ROOT, progress)
        extra, beside = root.size, image.packings["ext4-raw"].path
        size = beside.stat().st_size
        layout = build_layout(image.digest, root.path.stat().st_size, base.digest, size)
    progress(f"{image.name}: making the bootable disk")
    write_disk(root.path, layout, scratch, raw, beside)
    run_command(["sync", raw], timeout=300)
    return Disk(
        image=image.name,
        image_digest=image.digest,
        digest=_build_digest(raw, layout, root, image),
        folder=built,
        packings={_RAW: Packing(_RAW, raw, *sum_file_sizes([raw]), layout.size)},
        kernel=root.kernel,
        packages=root.packages,
        extra_bytes=extra,
        changed=root.changed,
    )


def _build_digest(raw: Path, layout: Layout, root: Root, image: Image) -> str:
    """What tells this disk from any other: its beginning, and the digests of its file systems."""
    with raw.open("rb") as file:
        head = file.read(layout.root.start)
    parts = (head, root.digest.encode(), image.digest.encode() if layout.image else b"")
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _write_forms(disk: Disk, scratch: Path) -> dict[str, Packing]:
    """Every packing of a disk; the compressed ones are made and moved to its folder."""
    raw = disk.packings[_RAW]
    fresh = {name: scratch / path for name, path in PATHS.items() if name != _RAW}
    with ThreadPoolExecutor(max_workers=2) as pool:
        packed = pool.submit(compress_file, raw.path, fresh["disk-raw-zstd"], "zstd")
        convert_qcow2(raw.path, fresh["disk-qcow2"])
        packed.result()
    run_command(["sync", *fresh.values()], timeout=300)
    virtual = {"disk-qcow2": raw.virtual}
    found = {_RAW: raw}
    for name, path in fresh.items():
        final = disk.folder / PATHS[name]
        path.replace(final)
        found[name] = Packing(name, final, *sum_file_sizes([final]), virtual.get(name))
    return found
