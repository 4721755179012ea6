"""The root file system that a bootable disk starts from: an image's own, or one beside it.

An image that is a Debian system with apt gets a kernel and systemd on top of its own tree. Any
other lies whole on a partition of its own, and the system beside it is the same for all of them:
it is made once and kept in ``systems/KEY/``, as ``root.ext4`` and ``system.json``.

Version of system.json: 1, first release.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.images import apt
from harness.images.archive import digest_file, write_tar
from harness.images.bootable_disk import build_id
from harness.images.bootable_files import build_early_files, build_late_files, build_system_script
from harness.images.bootable_system import PACKAGES, System, build_system
from harness.images.model import Image
from harness.images.pack import extract_tree, write_ext4
from harness.images.rootfs import sum_sizes
from harness.images.workshop import (
    Progress,
    move_into_place,
    require_space,
    start_work,
    write_text,
)
from harness.paths import cache_dir

VERSION = 1
RECORD = "system.json"

_ROOT = "root.ext4"
_SPACE = 2 << 30


@dataclass(frozen=True, slots=True)
class Root:
    """An ext4 file system with a kernel and systemd. ``digest`` is that of the file at ``path``,
    ``size`` the bytes of its files; the other fields are as in model.Disk.
    """

    path: Path
    digest: str
    size: int
    kernel: str
    packages: tuple[tuple[str, str, int], ...]
    changed: tuple[str, ...] = ()


def systems_dir() -> Path:
    """The folder of the systems that images lie beside."""
    return cache_dir() / "systems"


def describe_files(image_root: str | None) -> list[list[str]]:
    """What decides on the files that are added to Debian's packages, for keys of caches."""
    late = build_late_files("", "", image_root)
    files = [*build_early_files(), *late, build_system_script()]
    return [[entry.path, repr(entry.content)] for entry in files]


def build_system_key(base: Image, suite: str, image_root: str) -> str:
    """What the system on ``base`` is named by: another key is another system."""
    parts: Mapping[str, object] = {
        "base": base.digest,
        "suite": suite,
        "packages": PACKAGES,
        "files": describe_files(image_root),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def system_folder(base: Image, image_root: str) -> Path:
    """Where the present system on ``base`` is, whether it is there or not."""
    return systems_dir() / build_system_key(base, apt.find_sources().suite, image_root)


def require_system(base: Image, image_root: str, progress: Progress) -> Root:
    """The system for images that are mounted at ``image_root``, built first where needed.

    Raises HostError.
    """
    final = system_folder(base, image_root)
    if (found := read_system(final)) is not None:
        return found
    with start_work(final.parent, progress) as scratch:
        if (found := read_system(final)) is None:
            require_space(scratch, _SPACE)
            built = scratch / "system"
            built.mkdir()
            partition = build_id(base.digest, "root")
            system = build_system(base, partition, image_root, scratch, progress)
            root = write_root(system, scratch, built / _ROOT)
            write_text(built / RECORD, format_system(root))
            move_into_place(built, final)
            found = read_system(final)
    assert found is not None, final
    return found


def read_system(folder: Path) -> Root | None:
    """The system in ``folder``; None if it is not whole or of another version."""
    path = folder / _ROOT
    try:
        document = json.loads((folder / RECORD).read_text())
        if document["version"] != VERSION or not path.is_file():
            return None
        packages = tuple((name, version, size) for name, version, size in document["packages"])
        return Root(path, document["digest"], document["size"], document["kernel"], packages)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def format_system(root: Root) -> str:
    """``system.json``: without paths, so that a cache may be moved."""
    document = asdict(root)
    del document["path"], document["changed"]
    return json.dumps({"version": VERSION, **document}, indent=1) + "\n"


def write_root(system: System, scratch: Path, out: Path) -> Root:
    """Write the tree of ``system`` as a file system that is the same every time."""
    tar = scratch / "canonical.tar"
    digest = write_tar(system.tree, tar)
    size = sum_sizes(system.tree)
    extract_tree(tar, scratch / "tree")
    write_ext4(scratch / "tree", out, digest, len(system.tree), size)
    return Root(out, digest_file(out), size, system.kernel, system.packages, system.changed)
