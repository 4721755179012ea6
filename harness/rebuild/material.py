"""What the rebuilds are made of: the dependencies' packages, and a base with a security update.

The packages are fetched once, with the host's network, and kept in the cache; everything else is
made in the run's scratch folder.
"""

import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HostError
from harness.images import apt
from harness.images.archive import read_content, read_tar, write_tar
from harness.images.dpkg import STATUS, list_files, parse_status
from harness.images.model import Image
from harness.images.oci import write_layout
from harness.images.pack import extract_tree
from harness.images.rooted import require_tools
from harness.images.rootfs import Entry
from harness.images.store import short_digest
from harness.images.workshop import Progress, move_into_place, require_space, start_work
from harness.paths import cache_dir
from harness.process import run_command

DEPENDENCIES = ("python3-flask",)
ADDED = ("python3-waitress",)
"""The packages that the application needs, and the one that a change adds."""
UPDATED = "libgnutls30"
"""The base's package that gets a security update: nothing that runs in a build loads it."""

_SPACE = 2 << 30
_TIMEOUT = 600.0
_SHUFFLE = bytes((byte * 7 + 3) % 256 for byte in range(256))


@dataclass(frozen=True, slots=True)
class Packages:
    """.deb files in ``folder``, by name: the first dependencies, and what the change adds."""

    folder: Path
    first: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """A base image as both sides take it: an OCI layout and a tree. ``files`` and ``apparent``
    size its disk; ``changed`` are the paths that an update has replaced."""

    layout: Path
    tree: Path
    changed: tuple[str, ...] = ()


def packages_dir() -> Path:
    """The folder of fetched packages, by the image that they are for."""
    return cache_dir() / "rebuild"


def require_packages(image: Image, progress: Progress) -> Packages:
    """The dependencies' packages for ``image``, fetched first where needed; raises HostError."""
    parent = packages_dir()
    final = parent / short_digest(image.digest)
    if not final.is_dir():
        with start_work(parent, progress) as scratch:
            if not final.is_dir():
                progress("rebuild: fetching the application's dependencies")
                _fetch(image, scratch)
                move_into_place(scratch / "packages", final)
    names = sorted(path.name for path in (final / "first").iterdir())
    added = sorted(path.name for path in (final / "debs").iterdir() if path.name not in names)
    return Packages(final / "debs", tuple(names), tuple(added))


def build_updated(image: Image, folder: Path) -> tuple[Base, Base]:
    """The image as base 1, and base 2, in which one package has other files of the same size.

    As with the base images of registries, the updated base is one layer, made anew.
    """
    require_space(folder, _SPACE)
    tar = folder / "base.tar"
    _unpack_layer(image.packings["oci-gzip"].path, tar)
    tree = read_tar(tar)
    changed = update_package(tree, UPDATED)
    updated = folder / "updated.tar"
    digest = write_tar({**tree, **changed}, updated)
    base = Base(folder / "base2", folder / "tree2", tuple(sorted(changed)))
    write_layout(updated, digest, "zstd", base.layout)
    extract_tree(updated, base.tree)
    tar.unlink()
    updated.unlink()
    return Base(image.packings["oci-gzip"].path, image.tree), base


def update_package(tree: Mapping[str, Entry], name: str) -> dict[str, Entry]:
    """The entries that a new version of a package replaces: its libraries, and dpkg's record.

    Every byte of a library is another one, as after a new compilation, and compresses as before.
    """
    status = read_content(tree[STATUS]).decode()
    package = parse_status(status).get(name)
    if package is None:
        raise HostError(f"the base image has no {name} to update")
    listing = next(path for path in list_files(package) if path in tree)
    paths = (line.strip("/") for line in read_content(tree[listing]).decode().splitlines())
    changed = {
        path: replace(tree[path], content=read_content(tree[path]).translate(_SHUFFLE))
        for path in (f"usr/{each}" if each.startswith("lib/") else each for each in paths)
        if path in tree and ".so" in path and tree[path].content and not tree[path].target
    }
    newer = package.stanza.replace(
        f"Version: {package.version}", f"Version: {package.version}+deb12u9", 1
    )
    record = status.replace(package.stanza, newer, 1).encode()
    return {**changed, STATUS: replace(tree[STATUS], content=record)}


def _fetch(image: Image, scratch: Path) -> None:
    """Have apt download what the image has not, for the first state and for the second."""
    require_tools("apt-get", "apt-config")
    sources = apt.find_sources()
    apt.require_keyring(sources)
    config = apt.write_private_config(sources, scratch)
    shutil.copyfile(image.tree / STATUS, scratch / "apt" / "status")
    environment = {"APT_CONFIG": str(config), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    archives = scratch / "apt" / "cache" / "archives"
    built = scratch / "packages"
    for step in (("update",), ("first", *DEPENDENCIES), ("debs", *DEPENDENCIES, *ADDED)):
        _run_apt(step, environment)
        if len(step) > 1:
            (built / step[0]).mkdir(parents=True)
            for path in archives.glob("*.deb"):
                shutil.copyfile(path, built / step[0] / path.name)


def _run_apt(step: tuple[str, ...], environment: Mapping[str, str]) -> None:
    words = ["-o", "APT::Update::Error-Mode=any", "update"]
    if len(step) > 1:
        words = ["-y", "--no-install-recommends", "--download-only", "install", *step[1:]]
    done = run_command(["apt-get", "-q", *words], timeout=_TIMEOUT, check=False, env=environment)
    if done.returncode != 0:
        raise HostError(
            f"the dependencies cannot be fetched: {apt.find_reason(done.stderr)}",
            hint="is the Debian mirror reachable?",
        )


def _unpack_layer(layout: Path, out: Path) -> None:
    """The only layer of a layout of ours as a tar."""

    def read(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(read(index["manifests"][0]["digest"]).read_text())
    with gzip.open(read(manifest["layers"][0]["digest"])) as packed, out.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
