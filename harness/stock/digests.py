"""The digest of each packing, computed once and kept beside it in ``digests.json``.

A packing that is one file has the SHA-256 of its bytes, an OCI layout that of its manifest, a tree
that of the image: of its canonical tar. A file of another size or time is digested again.

Version of digests.json: 1, first release.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from harness.images.archive import digest_file
from harness.images.model import Packing
from harness.images.workshop import write_text
from harness.stock.inventory import Item

VERSION = 1
_RECORD = "digests.json"


def find_digests(item: Item, progress: Callable[[str], None]) -> dict[str, str]:
    """Digests (``sha256:…``) by packing; none for what vanished or cannot be read."""
    kept = _read_kept(item.path / _RECORD)
    found: dict[str, str] = {}
    fresh: dict[str, tuple[list[int], str]] = {}
    for packing in item.packings:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            if packing.path.is_dir():
                found[packing.name] = _find_folder_digest(item, packing)
                continue
            status = packing.path.stat()
            mark = [status.st_size, status.st_mtime_ns]
            if packing.name not in kept or kept[packing.name][0] != mark:
                progress(f"{item.name}: digest of {packing.name}")
                kept[packing.name] = (mark, digest_file(packing.path))
                fresh[packing.name] = kept[packing.name]
            found[packing.name] = kept[packing.name][1]
    if fresh:
        _write_kept(item.path / _RECORD, kept)
    return {name: f"sha256:{digest.removeprefix('sha256:')}" for name, digest in found.items()}


def _find_folder_digest(item: Item, packing: Packing) -> str:
    if packing.name == "tree":
        return item.digest
    index = (packing.path / "index.json").read_bytes()
    manifests = json.loads(index)["manifests"]
    return str(manifests[0]["digest"]) if len(manifests) == 1 else hashlib.sha256(index).hexdigest()


def _read_kept(record: Path) -> dict[str, tuple[list[int], str]]:
    try:
        document = json.loads(record.read_text())
        if document["version"] != VERSION:
            return {}
        return {
            str(name): ([int(size), int(time)], str(digest))
            for name, (size, time, digest) in document["packings"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_kept(record: Path, kept: dict[str, tuple[list[int], str]]) -> None:
    """A cache that may not be written, or a full disk: they are computed again another time."""
    packings = {name: [*mark, digest] for name, (mark, digest) in kept.items()}
    text = json.dumps({"version": VERSION, "packings": packings}, indent=1) + "\n"
    with contextlib.suppress(OSError):
        write_text(record, text)
