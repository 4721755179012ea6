"""OCI layouts and `docker save` archives: every blob is checked against its digest before use.

Formats: the OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md); Docker's
image specification 1.2 for ``manifest.json``.
"""

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.images.archive import read_tar
from harness.images.importer_config import (
    ARCHITECTURE,
    SYSTEM,
    build_config,
    require_platform,
)
from harness.images.importer_layers import put_layer, resolve_path
from harness.images.importer_unpack import Budget, decompress
from harness.images.model import ImageConfig
from harness.images.rootfs import Entry, Span, Tree, sum_holes
from harness.images.sparse import open_pieces

Find = Callable[[str], Path | None]
"""The file of a name inside a layout or an archive."""

LAYOUT_MARK = "oci-layout"
ARCHIVE_MARK = "manifest.json"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_TAG = "org.opencontainers.image.ref.name"
_JSON_MOST = 16 << 20
_NESTED = 4
_DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Source:
    """What was read: the tree, the image's own configuration, and what had to be left out."""

    tree: dict[str, Entry]
    config: ImageConfig | None = None
    notes: tuple[str, ...] = ()


def read_layout(find: Find, scratch: Path, budget: Budget, name: str) -> Source:
    """The image for this kind of machine in an OCI layout, its layers merged."""
    try:
        manifest = _find_manifest(find, name)
        document = _read_json(_require_blob(find, manifest["config"], "its configuration", name))
        require_platform(document, name)
        layers, digests = manifest["layers"], document["rootfs"]["diff_ids"]
        _require_count(layers, digests, name)
        tree: dict[str, Entry] = {}
        for number, (descriptor, digest) in enumerate(zip(layers, digests, strict=True), 1):
            label, out = f"layer {number} of {len(layers)}", scratch / f"layer-{number}.tar"
            blob = _require_blob(find, descriptor, label, name)
            tree = _add_layer(tree, blob, out, budget, name, label, digest)
        return Source(tree, build_config(document, tree))
    except _DAMAGE as error:
        raise InputError(f"{name} is not a whole OCI layout: {error!r}") from error


def read_archive(find: Find, scratch: Path, budget: Budget, name: str) -> Source:
    """The image in a `docker save` archive, its layers merged; layers are known by their content's
    digest."""
    try:
        images = _read_json(_require(find, ARCHIVE_MARK, name))
        if len(images) != 1:
            hint = "save one alone: docker save IMAGE"
            raise InputError(f"{name} holds {len(images)} images", hint=hint)
        document = _read_json(_require(find, images[0]["Config"], name))
        require_platform(document, name)
        layers, digests = images[0]["Layers"], document["rootfs"]["diff_ids"]
        _require_count(layers, digests, name)
        tree: dict[str, Entry] = {}
        for number, (path, digest) in enumerate(zip(layers, digests, strict=True), 1):
            label, out = f"layer {number} of {len(layers)}", scratch / f"layer-{number}.tar"
            blob = _require(find, path, name)
            tree = _add_layer(tree, blob, out, budget, name, label, digest)
        return Source(tree, build_config(document, tree))
    except _DAMAGE as error:
        raise InputError(f"{name} is not a whole image archive: {error!r}") from error


def is_saved(find: Find) -> bool:
    """Whether a ``manifest.json`` is the list of images that `docker save` writes, not a file of
    the root file system's own."""
    try:
        images = _read_json(_require(find, ARCHIVE_MARK, ""))
    except (InputError, ValueError):
        return False
    if not isinstance(images, list) or not images:
        return False
    return all(isinstance(each, dict) and {"Config", "Layers"} <= each.keys() for each in images)


def find_in_folder(folder: Path) -> Find:
    """The files of a layout that is a folder."""

    def find(path: str) -> Path | None:
        found = folder / path
        return found if found.is_file() else None

    return find


def find_in_archive(tree: Tree, scratch: Path) -> Find:
    """The files of a layout that is an archive: each is copied out when it is asked for."""

    def find(path: str) -> Path | None:
        entry = tree.get(path)
        if entry is not None and entry.kind == tarfile.SYMTYPE:  # older `docker save`
            folder = path.rpartition("/")[0]
            entry = tree.get(resolve_path(tree, f"{folder}/{entry.target}".lstrip("/")))
        if entry is None or not isinstance(entry.content, Span):
            return None
        out = scratch / f"member-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
        with open_pieces(entry.content) as file, out.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        return out

    return find


def _add_layer(
    tree: Tree, blob: Path, out: Path, budget: Budget, name: str, label: str, digest: str
) -> dict[str, Entry]:
    """``digest`` is that of the layer's plain content, as the configuration has it."""
    plain = decompress(blob, out, budget, f"{name}: {label}")
    _require_digest(digest, f"{label} in the configuration", name)
    if _digest_as(plain, digest) != digest:
        raise _mismatch(name, f"{label}, unpacked,", digest)
    entries = read_tar(plain, layer=True, name=f"{name}: {label}")
    budget.take(sum_holes(entries), name)
    return put_layer(tree, entries, f"{name}: {label}")


def _find_manifest(find: Find, name: str) -> dict[str, Any]:
    document: dict[str, Any] = _read_json(_require(find, "index.json", name))
    for _ in range(_NESTED):
        if "layers" in document:
            return document
        # An index may hold another index before it comes to a manifest.
        chosen = _choose(document["manifests"], name)
        document = _read_json(_require_blob(find, chosen, "its manifest", name))
    raise InputError(f"{name} is not a whole OCI layout: its indexes are nested too deeply")


def _choose(manifests: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    platforms = [each.get("platform") or {} for each in manifests]
    words = [f"{each.get('os', SYSTEM)}/{each.get('architecture', ARCHITECTURE)}"
             for each in platforms]  # fmt: skip
    fitting = [each for each, word in zip(manifests, words, strict=True)
               if word == f"{SYSTEM}/{ARCHITECTURE}"]  # fmt: skip
    if not fitting:
        held = ", ".join(word for word in words if not word.startswith("unknown")) or "nothing"
        raise InputError(
            f"{name} is an image for {held}, and this harness runs {SYSTEM}/{ARCHITECTURE}",
            hint="name the variant of the image that is built for x86-64",
        )
    if len({each["digest"] for each in fitting}) > 1:  # one image may have several names
        raise _several(fitting, name)
    return fitting[0]


def _several(fitting: Sequence[Mapping[str, Any]], name: str) -> InputError:
    tags = [(each.get("annotations") or {}).get(_TAG) for each in fitting]
    named = ", ".join(str(tag)[:80] for tag in tags if tag)
    transport = "oci-archive" if Path(name).is_file() else "oci"
    return InputError(
        f"{name} holds {len(fitting)} images for {SYSTEM}/{ARCHITECTURE}"
        + (f": {named}" if named else ""),
        hint=f"say which: {transport}:{name}:TAG",
    )


def _require_blob(find: Find, descriptor: Mapping[str, Any], label: str, name: str) -> Path:
    """The file of a descriptor; raises InputError if it is missing or not what its digest says."""
    digest, size = str(descriptor["digest"]), descriptor["size"]
    _require_digest(digest, label, name)
    path = _require(find, f"blobs/{digest.replace(':', '/')}", name)
    if _digest_as(path, digest) != digest:
        raise _mismatch(name, label, digest)
    if path.stat().st_size != size:
        raise InputError(
            f"{name}: {label} has {path.stat().st_size} bytes, and its descriptor says {size!r}",
            hint="get the image anew",
        )
    return path


def _digest_as(path: Path, digest: str) -> str:
    """The digest of a file by the algorithm of another."""
    algorithm = digest.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _require_digest(digest: str, label: str, name: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{name}: {label} has no digest that can be checked: {digest[:80]!r}")


def _require_count(layers: Sequence[object], digests: Sequence[object], name: str) -> None:
    if len(layers) != len(digests):
        raise InputError(
            f"{name} has {len(layers)} layers, and its configuration names {len(digests)}",
            hint="get the image anew",
        )


def _mismatch(name: str, label: str, digest: str) -> InputError:
    return InputError(
        f"{name}: {label} does not match its digest {digest[:19]}…: it is cut short or was changed",
        hint="get the image anew",
    )


def _require(find: Find, path: str, name: str) -> Path:
    found = find(path)
    if found is None:
        raise InputError(f"{name} is not whole: it has no {path[:80]}", hint="get the image anew")
    return found


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _JSON_MOST:
        raise ValueError(f"{path.name} is too large")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
