"""An OCI image layout with one layer, and always the same bytes for the same tree.

Formats: the OCI image specification 1.0 (image-layout.md, manifest.md, config.md); the zstd layer
type is from its 1.1.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from harness.images.archive import digest_file
from harness.images.model import ImageConfig
from harness.images.recipes import EPOCH
from harness.process import run_command

Compression = Literal["gzip", "zstd"]

GZIP_LEVEL = 6
ZSTD_LEVEL = 3
"""The levels that container engines push with; the disk image is packed with the same zstd."""

_MEDIA = "application/vnd.oci.image"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1 << 20


def write_layout(tar: Path, diff_id: str, compression: Compression, out: Path) -> None:
    """Write the layout folder ``out`` with ``tar``, of digest ``diff_id``, as its only layer."""
    blobs = out / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = blobs / "layer"
    compress_file(tar, layer, compression)
    digest = digest_file(layer)
    layer.rename(blobs / digest.removeprefix("sha256:"))
    layer_type = f"{_MEDIA}.layer.v1.tar+{compression}"
    size = (blobs / digest.removeprefix("sha256:")).stat().st_size
    config = _write_blob(blobs, build_config(diff_id))
    manifest = _write_blob(
        blobs,
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": {"mediaType": f"{_MEDIA}.config.v1+json", **config},
            "layers": [{"mediaType": layer_type, "digest": digest, "size": size}],
        },
    )
    (out / "oci-layout").write_text(_dump({"imageLayoutVersion": "1.0.0"}))
    (out / "index.json").write_text(_dump(build_index(manifest)))


def configure_layout(layout: Path, config: ImageConfig) -> None:
    """Give a layout of `write_layout` the configuration of the image that it was made from.

    The layouts in the cache have none: the harness tells engines itself what they are to run.
    """
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    manifest = _take_blob(blobs, index["manifests"][0])
    document = _take_blob(blobs, manifest["config"])
    document["config"] = format_config(config)
    manifest["config"].update(_write_blob(blobs, document))
    (layout / "index.json").write_text(_dump(build_index(_write_blob(blobs, manifest))))


def format_config(config: ImageConfig) -> dict[str, object]:
    """An image's own configuration in the words of its JSON; what is empty is left out."""
    found: dict[str, object] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "WorkingDir": config.directory,
        "User": config.user,
    }
    return {key: value for key, value in found.items() if value}


def build_config(diff_id: str) -> dict[str, object]:
    """The image's configuration: what an engine runs unless told otherwise."""
    created = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [f"PATH={_PATH}"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "harness images build"}],
    }


def build_index(manifest: Mapping[str, object]) -> dict[str, object]:
    """The layout's ``index.json`` with one manifest, tagged ``latest``."""
    return {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.index.v1+json",
        "manifests": [
            {
                "mediaType": f"{_MEDIA}.manifest.v1+json",
                **manifest,
                "platform": {"architecture": "amd64", "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
        ],
    }


def compress_file(source: Path, out: Path, compression: Compression) -> None:
    """Compress ``source`` to ``out`` without its name or date."""
    if compression == "zstd":
        level = f"-{ZSTD_LEVEL}"
        run_command(["zstd", "-q", "-f", level, "--no-progress", source, "-o", out], timeout=900)
        return
    with (
        source.open("rb") as plain,
        out.open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed,
    ):
        shutil.copyfileobj(plain, packed, _CHUNK)


def _write_blob(blobs: Path, document: Mapping[str, object]) -> dict[str, object]:
    data = os.fsencode(_dump(document))
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def _take_blob(blobs: Path, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a blob, which another one will replace."""
    path = blobs / str(descriptor["digest"]).removeprefix("sha256:")
    document: dict[str, Any] = json.loads(path.read_bytes())
    path.unlink()
    return document


def _dump(document: Mapping[str, object]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def write_archive(layout: Path, reference: str, out: Path) -> None:
    """An OCI layout with one image as the archive that ``docker load`` reads."""

    def read(descriptor: Mapping[str, Any]) -> bytes:
        return (layout / "blobs" / str(descriptor["digest"]).replace(":", "/")).read_bytes()

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(read(index["manifests"][0]))
    names = [f"layer{number}.tar" for number in range(len(manifest["layers"]))]
    listing = [{"Config": "config.json", "RepoTags": [reference], "Layers": names}]
    with tarfile.open(out, "w") as archive:
        _add_bytes(archive, "config.json", read(manifest["config"]))
        for name, layer in zip(names, manifest["layers"], strict=True):
            _add_bytes(archive, name, read(layer))
        _add_bytes(archive, "manifest.json", json.dumps(listing).encode())


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
