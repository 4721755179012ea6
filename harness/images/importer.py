"""Root file systems from elsewhere: a folder, an archive, or an OCI image with its layers.

A source may only describe what lies inside its root: names that climb out are refused, and a path
through a symbolic link is followed within the root, as a chroot would.
"""

import bz2
import gzip
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HostError, InputError
from harness.images.archive import read_tar, require_inside
from harness.images.rooted import require_owners, run_rooted
from harness.images.rootfs import Entry, Tree
from harness.process import run_command

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40
_TIMEOUT = 900.0
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ": lzma.open,
    b"BZh": bz2.open,
}
_ARCHIVE_MARKS = {"oci-layout": "oci-archive", "manifest.json": "docker-archive"}


def read_source(source: str, scratch: Path) -> dict[str, Entry]:
    """The entries of ``source``: a folder, an archive, a layout or an OCI reference.

    ``scratch`` is an empty folder that keeps the entries' content. Raises InputError for what is
    missing or broken, HostError where a tool is missing.
    """
    path = Path(source)
    if path.is_dir():
        return read_layout(path, scratch) if _is_layout(path) else read_folder(path, scratch)
    if path.is_file():
        return _read_archive(path, scratch)
    if ":" not in source:
        raise InputError(
            f"{source} does not exist",
            hint="give a folder, an archive, or an OCI reference such as docker://debian:12",
        )
    return read_layout(fetch_layout(source, scratch), scratch)


def read_folder(root: Path, scratch: Path) -> dict[str, Entry]:
    """The entries of a folder on this host; without root, one's own files become root's."""
    require_owners()
    out = scratch / "folder.tar"
    options = ["--format=pax", "--numeric-owner", "--one-file-system", "--xattrs"]
    where = ["--xattrs-include=*", f"--directory={root}", f"--file={out}"]
    run_rooted(["tar", "--create", *options, *where, "."], timeout=_TIMEOUT)
    return read_tar(out)


def read_layout(layout: Path, scratch: Path) -> dict[str, Entry]:
    """The merged layers of the first image in an OCI layout."""
    tree: dict[str, Entry] = {}
    try:
        for number, layer in enumerate(_read_layers(layout)):
            plain = decompress(_blob_path(layout, layer), scratch / f"layer-{number}.tar")
            tree = apply_layer(tree, read_tar(plain))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{layout} is not a whole OCI layout: {error!r}") from error
    return tree


def fetch_layout(reference: str, scratch: Path) -> Path:
    """Copy an OCI image to a layout in ``scratch`` with skopeo; raises HostError, InputError."""
    if not shutil.which("skopeo"):
        raise HostError(
            f"{reference} cannot be fetched: skopeo is not installed",
            hint="install the package skopeo, or import a folder or an archive",
        )
    out = scratch / "fetched"
    target = f"oci:{out}:image"
    command = ["skopeo", "--override-os=linux", "--override-arch=amd64", "copy", "--quiet"]
    done = run_command([*command, reference, target], timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["skopeo said nothing"]
        # skopeo logs time="…" level=fatal msg="…".
        reason = lines[-1].partition(' msg="')[2].removesuffix('"') or lines[-1]
        raise InputError(f"{reference} cannot be fetched: {reason}")
    return out


def apply_layer(lower: Tree, layer: Tree) -> dict[str, Entry]:
    """``lower`` with ``layer`` on top; whiteouts as in the OCI image specification (layer.md)."""
    tree = dict(lower)
    for path in layer:
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove_below(tree, resolve_path(tree, path).rpartition("/")[0])
        elif name.startswith(_WHITEOUT):
            hidden = f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
            hidden = resolve_path(tree, hidden)
            tree.pop(hidden, None)
            _remove_below(tree, hidden)
    for path, entry in layer.items():
        if not path.rpartition("/")[2].startswith(_WHITEOUT):
            _put(tree, resolve_path(tree, path), entry)
    return tree


def resolve_path(tree: Tree, path: str) -> str:
    """``path`` with the symbolic links among its folders followed, never above the root."""
    pending = path.split("/")
    done: list[str] = []
    followed = 0
    while len(pending) > 1:
        part = pending.pop(0)
        entry = tree.get("/".join([*done, part]))
        if part == "..":
            done = done[:-1]
        elif entry is not None and entry.kind == tarfile.SYMTYPE:
            followed += 1
            if followed > _MAX_LINKS:
                raise InputError(f"member {path!r} goes through a circle of symbolic links")
            done = [] if entry.target.startswith("/") else done
            pending = [*entry.target.split("/"), *pending]
        elif part not in ("", "."):
            done.append(part)
    return "/".join([*done, pending[0]])


def decompress(source: Path, out: Path) -> Path:
    """``source`` itself if it is not compressed, else its plain content in ``out``."""
    with source.open("rb") as file:
        head = file.read(8)
    if head.startswith(_ZSTD_MAGIC):
        run_command(["zstd", "-q", "-d", "-f", source, "-o", out], timeout=_TIMEOUT)
        return out
    opener = next((found for magic, found in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return source
    try:
        with opener(source) as packed, out.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{source} is cut short or broken: {error}") from error
    return out


def _read_archive(path: Path, scratch: Path) -> dict[str, Entry]:
    plain = decompress(path, scratch / "archive.tar")
    tree = read_tar(plain)
    for mark, transport in _ARCHIVE_MARKS.items():
        if mark in tree:
            return read_layout(fetch_layout(f"{transport}:{plain}", scratch), scratch)
    return apply_layer({}, tree)


def _is_layout(folder: Path) -> bool:
    return (folder / "oci-layout").is_file()


def _read_layers(layout: Path) -> list[dict[str, Any]]:
    document = json.loads((layout / "index.json").read_text())
    while "layers" not in document:
        # An index may hold another index before it comes to a manifest.
        document = json.loads(_blob_path(layout, document["manifests"][0]).read_text())
    layers: list[dict[str, Any]] = document["layers"]
    return layers


def _blob_path(layout: Path, descriptor: dict[str, Any]) -> Path:
    algorithm, _, value = descriptor["digest"].partition(":")
    return layout / "blobs" / require_inside(f"{algorithm}/{value}", layout)


def _put(tree: dict[str, Entry], path: str, entry: Entry) -> None:
    if not entry.is_folder:
        _remove_below(tree, path)
    tree[path] = replace(entry, path=path)


def _remove_below(tree: dict[str, Entry], folder: str) -> None:
    for path in [path for path in tree if path.startswith(f"{folder}/")]:
        del tree[path]
