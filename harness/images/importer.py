"""Root file systems from elsewhere: a folder, an archive, or an OCI image with its layers.

A source may only describe what lies inside its root, and may only unpack to so many bytes: whatever
goes beyond is refused before anything of it can be used.
"""

import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import HostError, InputError
from harness.images.archive import read_tar
from harness.images.importer_layers import put_layer
from harness.images.importer_layout import (
    ARCHIVE_MARK,
    LAYOUT_MARK,
    Source,
    find_in_archive,
    find_in_folder,
    is_saved,
    read_archive,
    read_layout,
)
from harness.images.importer_unpack import LIMIT, Budget, decompress, explain, run_limited
from harness.images.rooted import FULL_RANGE, require_owners, run_rooted
from harness.images.rootfs import Entry, Tree, sum_holes

_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_LOOPBACK = ("localhost", "::1")
_LOCALE = {"LC_ALL": "C.UTF-8"}


def read_source(source: str, scratch: Path, limit: int = LIMIT) -> Source:
    """The entries of ``source``: a folder, an archive, a layout or an OCI reference.

    ``scratch`` is an empty folder that keeps the entries' content; ``limit`` is how many bytes it
    may be unpacked. Raises InputError for what is missing or broken, HostError where a tool is.
    """
    path, budget = Path(source), Budget(limit)
    if path.is_dir():
        if (path / LAYOUT_MARK).is_file():
            return _complete(read_layout(find_in_folder(path), scratch, budget, source))
        tree, notes = scan_folder(path, scratch, budget)
        return _complete(Source(tree, notes=notes))
    if path.is_file():
        return _complete(_read_file(path, scratch, budget))
    if ":" not in source:
        raise InputError(
            f"{source} does not exist",
            hint="give a folder, an archive, or an OCI reference such as docker://debian:12",
        )
    layout = fetch_layout(source, scratch, budget)
    return _complete(read_layout(find_in_folder(layout), scratch, budget, source))


def read_folder(root: Path, scratch: Path) -> dict[str, Entry]:
    """The entries of a folder on this host; without root, one's own files become root's."""
    return scan_folder(root, scratch, Budget())[0]


def scan_folder(
    root: Path, scratch: Path, budget: Budget
) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """As `read_folder`, with a line on what could not be taken along."""
    require_owners()
    out = scratch / "folder.tar"
    options = ["--format=pax", "--numeric-owner", "--one-file-system", "--sparse", "--xattrs"]
    where = ["--xattrs-include=*", f"--directory={root}", f"--file={out}"]
    command = ["tar", "--create", *options, *where, "."]
    done = run_limited(command, budget, root, run_rooted, env=_LOCALE)
    if done.returncode != 0:
        raise explain(root, done)
    sockets = sum(line.endswith("socket ignored") for line in done.stderr.splitlines())
    notes = (f"{sockets} sockets were left out: they live with the program",) if sockets else ()
    tree = read_tar(out, layer=True, name=str(root))
    budget.take(out.stat().st_size + sum_holes(tree), root)
    return tree, notes


def fetch_layout(reference: str, scratch: Path, budget: Budget) -> Path:
    """Copy an OCI image to a layout in ``scratch`` with skopeo; raises HostError, InputError."""
    if not shutil.which("skopeo"):
        raise HostError(
            f"{reference} cannot be fetched: skopeo is not installed",
            hint="install the package skopeo, or import a folder or an archive",
        )
    out = scratch / "fetched"
    options = ["--override-os=linux", "--override-arch=amd64", "copy", "--quiet"]
    if is_loopback(reference):
        options.append("--src-tls-verify=false")  # as engines do for this very host
    command = ["skopeo", *options, reference, f"oci:{out}:image"]
    done = run_limited(command, budget, reference, env={"TMPDIR": str(scratch)})
    if done.returncode != 0:
        raise explain(reference, done)
    return out


def is_loopback(reference: str) -> bool:
    """Whether a reference names a registry on this host."""
    try:
        host = urlsplit(reference).hostname or ""
    except ValueError:
        return False
    return host in _LOOPBACK or host.startswith("127.")


def drop_unfit(tree: Tree, *, root: bool) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """``tree`` without what no platform could show alike, and a line for each kind of it.

    Overlay file systems, which containers run on, take device 0:0 and attributes of their own for
    commands. Devices can be made by ``root`` only, and are then left out of every packing.
    """
    kept: dict[str, Entry] = {}
    whiteouts = devices = attributes = 0
    for path, entry in tree.items():
        if entry.kind == tarfile.CHRTYPE and entry.device == (0, 0):
            whiteouts += 1
        elif entry.kind in _DEVICES and not root:
            devices += 1
        elif fit := _drop_overlay(entry.xattrs):
            attributes += 1
            kept[path] = replace(entry, xattrs=fit[0])
        else:
            kept[path] = entry
    notes = {
        "character devices 0:0 were left out: overlay file systems hide what has such a name":
            whiteouts,
        "device nodes were left out: only root can make them": devices,
        "entries lost attributes of overlay file systems": attributes,
    }  # fmt: skip
    return kept, tuple(f"{count} {note}" for note, count in notes.items() if count)


def _drop_overlay(xattrs: Mapping[str, str]) -> tuple[dict[str, str]] | None:
    if not any(name.startswith(_OVERLAY) for name in xattrs):
        return None
    return ({name: each for name, each in xattrs.items() if not name.startswith(_OVERLAY)},)


def require_range(tree: Tree, ids: int) -> None:
    """Raise HostError for an entry whose owner is beyond the ids that a user may give away."""
    for path, entry in tree.items():
        if max(entry.uid, entry.gid) >= ids:
            raise HostError(
                f"{path!r} belongs to {entry.uid}:{entry.gid}, and without root there are only "
                f"the ids below {ids}",
                hint="import it as root",
            )


def _complete(source: Source) -> Source:
    if os.geteuid() != 0:
        require_range(source.tree, FULL_RANGE)
    tree, notes = drop_unfit(source.tree, root=os.geteuid() == 0)
    return replace(source, tree=tree, notes=(*source.notes, *notes))


def _read_file(path: Path, scratch: Path, budget: Budget) -> Source:
    """An archive: of an image with its layers, or of the files themselves."""
    around = Budget(budget.limit)
    plain = decompress(path, scratch / "archive.tar", around)
    tree = read_tar(plain, layer=True, name=str(path))
    find = find_in_archive(tree, scratch)
    if LAYOUT_MARK in tree and "index.json" in tree:
        return read_layout(find, scratch, budget, str(path))
    if ARCHIVE_MARK in tree and is_saved(find):
        return read_archive(find, scratch, budget, str(path))
    around.take(sum_holes(tree), path)
    return Source(put_layer({}, tree, str(path)))
