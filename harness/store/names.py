"""File names: from names that users chose, and the way to write a file whole or not at all."""

import hashlib
import os
import re
from pathlib import Path

MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
SAMPLES = "samples.parquet"

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 80


def safe_name(name: str) -> str:
    """A file name for ``name``: letters, digits, ``_`` and ``-`` only, never empty.

    Names that are safe already stay as they are. Any other name gets a short digest of itself,
    so that two names never share a file: ``namespace#2`` becomes ``namespace-2-`` and 6 digits.
    """
    plain = _UNSAFE.sub("-", name).strip("-")[:_LONGEST]
    if plain == name and plain:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}-{digest}" if plain else digest


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a new name, flush it to the disk, then rename: readers never see half."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new file survives a power cut (fsync(2))."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
