"""Container images of an application on a base: the base's own layers, and one above them."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.images.oci import Compression, build_index, compress_file

_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Layers:
    """An OCI layout and its layers' digests: ``base`` from below, then ``top``."""

    folder: Path
    base: tuple[str, ...]
    top: str

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "/")


def write_layers(base: Path, layer: bytes, compression: Compression, out: Path) -> Layers:
    """Write the layout ``out``: the image of the layout ``base`` with ``layer``, a tar, on top."""
    blobs = out / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifest = read_manifest(base)
    below = tuple(str(each["digest"]) for each in manifest["layers"])
    for digest in below:
        link_file(find_blob(base, digest), find_blob(out, digest))
    plain = out / "layer.tar"
    plain.write_bytes(layer)
    compress_file(plain, out / "layer", compression)
    plain.unlink()
    top = _add_blob(blobs, (out / "layer").read_bytes())
    (out / "layer").unlink()
    kind = f"{_MEDIA}.layer.v1.tar+{compression}"
    config = json.loads(find_blob(base, manifest["config"]["digest"]).read_text())
    config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
    config.get("history", []).append({"created_by": "a static site"})
    manifest["config"] = {**manifest["config"], **_add_blob(blobs, _dump(config))}
    manifest["layers"].append({"mediaType": kind, **top})
    write_index(out, _add_blob(blobs, _dump(manifest)))
    return Layers(out, below, str(top["digest"]))


def write_index(out: Path, manifest: Mapping[str, object]) -> None:
    """The two small files that make a folder with blobs a layout."""
    (out / "oci-layout").write_bytes(_dump({"imageLayoutVersion": "1.0.0"}))
    (out / "index.json").write_bytes(_dump(build_index(manifest)))


def read_manifest(layout: Path) -> dict[str, Any]:
    """The manifest that a layout with one image has."""
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    found: dict[str, Any] = json.loads(find_blob(layout, digest).read_text())
    return found


def find_blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def link_file(source: Path, target: Path) -> None:
    """The same file at another place; a copy where the file system has no room for links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _add_blob(blobs: Path, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _dump(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
