"""Bootable disks in the cache: ``disks/NAME/KEY/`` with the packings and ``disk.json``.

KEY stands for everything that decides what the disk is, short of Debian's packages of the day.
``disk.json`` is written last and the folder is renamed into place after it.

Version of disk.json: 1, first release.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from harness.images import apt
from harness.images.archive import digest_file, write_tar
from harness.images.bootable_disk import (
    SECTOR,
    Layout,
    build_id,
    build_layout,
    build_table,
    require_boot_tools,
    write_disk,
)
from harness.images.bootable_files import (
    EARLY_CONFIG,
    IMAGE_ROOT,
    build_early_files,
    build_late_files,
    build_system_script,
)
from harness.images.bootable_system import PACKAGES, SYSTEM, build_system, is_system
from harness.images.catalog import require_image
from harness.images.model import Disk, Image, Packing
from harness.images.oci import compress_file
from harness.images.pack import convert_qcow2, extract_tree, sum_file_sizes, write_ext4
from harness.images.recipes import RECIPES
from harness.images.rooted import require_owners
from harness.images.rootfs import sum_sizes
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

_RECORD = "disk.json"
_LAYOUT_VERSION = "1"
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
    progress(f"{image.name}: the bootable disk is ready")
    return found


def read_disk(folder: Path) -> Disk | None:
    """The disk in ``folder``; None if its record or a packing is missing or of another version."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        if document["version"] != VERSION:
            return None
        packings = {
            name: Packing(name, folder / path, *document["packings"][name])
            for name, path in PATHS.items()
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
    whole = all(packing.path.is_file() for packing in packings.values())
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
    late = build_late_files("", "", IMAGE_ROOT if base else None)
    files = [*build_early_files(), *late, build_system_script()]
    parts: Mapping[str, object] = {
        "image": image.digest,
        "base": base,
        "layout": _LAYOUT_VERSION,
        "suite": suite,
        "packages": PACKAGES,
        "table": build_table(layout),
        "loader": EARLY_CONFIG,
        "files": [[entry.path, repr(entry.content)] for entry in files],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(image: Image) -> Path:
    """Where the present disk of ``image`` is, whether it is there or not."""
    return disks_dir() / image.name / build_key(image, apt.find_sources().suite)


def _build_disk(image: Image, base: Image, scratch: Path, built: Path, progress: Progress) -> Disk:
    partition = build_id(image.digest, "root")
    system = build_system(image, base, partition, scratch, progress)
    tar = scratch / "canonical.tar"
    digest = write_tar(system.tree, tar)
    size = sum_sizes(system.tree)
    progress(f"{image.name}: making the bootable disk")
    extract_tree(tar, scratch / "tree")
    root = scratch / "root.ext4"
    write_ext4(scratch / "tree", root, digest, len(system.tree), size)
    layout = build_layout(image.digest, root.stat().st_size)
    packings = _write_packings(root, layout, scratch, built)
    return Disk(
        image=image.name,
        image_digest=image.digest,
        digest=digest_file(built / PATHS["disk-raw"]),
        folder=built,
        packings=packings,
        kernel=system.kernel,
        packages=system.packages,
        extra_bytes=size - image.packings["tree"].apparent,
        changed=system.changed,
    )


def _write_packings(root: Path, layout: Layout, scratch: Path, built: Path) -> dict[str, Packing]:
    paths = {name: built / path for name, path in PATHS.items()}
    write_disk(root, layout, scratch, paths["disk-raw"])
    convert_qcow2(paths["disk-raw"], paths["disk-qcow2"])
    compress_file(paths["disk-raw"], paths["disk-raw-zstd"], "zstd")
    run_command(["sync", "--file-system", built], timeout=300)
    virtual = {"disk-raw": layout.size, "disk-qcow2": layout.size}
    return {
        name: Packing(name, path, *sum_file_sizes([path]), virtual.get(name))
        for name, path in paths.items()
    }
