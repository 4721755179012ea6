"""Built images in the cache: ``images/NAME/DIGEST12/`` with its packings and ``image.json``.

``image.json`` is written last and the folder is renamed into place after it, so what can be found
is whole. ``images/NAME/current`` is a symbolic link to the digest that the name stands for.

Version of image.json: 1, first release. ``config`` is there for images that came with one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.images.model import Image, ImageConfig, Packing
from harness.images.pack import EXTRA_PATHS, measure_file
from harness.images.workshop import move_into_place, point_to, write_text
from harness.paths import cache_dir

VERSION = 1

RECIPE, IMPORT = "recipe", "import"

_RECORD = "image.json"
_CURRENT = "current"


@dataclass(frozen=True, slots=True)
class Record:
    """An image and where it came from.

    ``origin`` is ``recipe`` or ``import``; ``inputs`` decide whether the image is still what its
    recipe would give (agent, recipe, suite), and have the ``source`` of an import.
    """

    image: Image
    origin: str
    inputs: Mapping[str, str]


def images_dir() -> Path:
    """The folder of all images."""
    return cache_dir() / "images"


def short_digest(digest: str) -> str:
    """The first 12 digits of ``sha256:…``: the name of an image's folder."""
    return digest.removeprefix("sha256:")[:12]


def find_record(name: str) -> Record | None:
    """The current image of ``name``, or None if there is none or it is not whole."""
    return read_record(images_dir() / name / _CURRENT)


def list_records() -> list[Record]:
    """The current image of every name, by name."""
    records = (find_record(name) for name in list_stored())
    return [record for record in records if record is not None]


def read_record(folder: Path) -> Record | None:
    """The image in ``folder``; None if its record or a packing is missing or of another version."""
    try:
        folder = folder.resolve(strict=True)
        document = json.loads((folder / _RECORD).read_text())
        if document["version"] != VERSION:
            return None
        packings = {
            name: Packing(
                name,
                folder / entry["path"],
                entry["apparent"],
                entry["allocated"],
                entry["virtual"],
            )
            for name, entry in document["packings"].items()
        }
        packings |= _find_extras(folder)
        image = Image(
            document["name"],
            document["digest"],
            folder,
            packings,
            parse_config(document.get("config")),
            document["origin"] == IMPORT,
            document.get("facts", {}),
        )
        record = Record(image, document["origin"], document["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(packing.path.exists() for packing in packings.values())
    return record if whole else None


def _find_extras(folder: Path) -> dict[str, Packing]:
    """Packings that were made later, when a platform asked for them."""
    paths = {name: folder / path for name, path in EXTRA_PATHS.items()}
    return {name: measure_file(name, path) for name, path in paths.items() if path.is_file()}


def publish(record: Record, replace_same: bool) -> Record:
    """Move a built image to its place in the cache and make it the current one of its name.

    The same digest may be there already, with instances running from it: it stays where it is
    unless ``replace_same``.
    """
    built = record.image.folder
    parent = images_dir() / record.image.name
    final = parent / short_digest(record.image.digest)
    existing = read_record(final)
    if existing is None or replace_same:
        write_text(built / _RECORD, format_record(record))
        move_into_place(built, final)
    else:
        same = replace(existing.image, config=record.image.config)
        kept = Record(same, record.origin, record.inputs)
        write_text(final / _RECORD, format_record(kept))
    point_to(parent / _CURRENT, final.name)
    published = read_record(final)
    assert published is not None, final
    return published


def format_record(record: Record) -> str:
    """``image.json``: paths are relative to its folder, so that a cache may be moved."""
    image = record.image
    packings = {
        name: {
            "path": os.path.relpath(packing.path, image.folder),
            "apparent": packing.apparent,
            "allocated": packing.allocated,
            "virtual": packing.virtual,
        }
        for name, packing in image.packings.items()
        if name not in EXTRA_PATHS
    }
    document = {
        "version": VERSION,
        "name": image.name,
        "digest": image.digest,
        "origin": record.origin,
        "inputs": dict(record.inputs),
        "facts": dict(image.facts),
        "packings": packings,
        **({"config": asdict(image.config)} if image.config else {}),
    }
    return json.dumps(document, indent=1) + "\n"


def parse_config(document: Mapping[str, Any] | None) -> ImageConfig | None:
    """The image's own configuration from its record."""
    if document is None:
        return None
    return ImageConfig(
        entrypoint=tuple(document["entrypoint"]),
        command=tuple(document["command"]),
        environment=dict(document["environment"]),
        directory=document["directory"],
        user=document["user"],
        identity=document["identity"],
        home=document["home"],
    )


def list_folders(name: str) -> list[Path]:
    """The folders of all images of ``name``, current or not."""
    parent = images_dir() / name
    paths = sorted(parent.iterdir()) if parent.is_dir() else []
    return [
        path
        for path in paths
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]


def list_stored() -> list[str]:
    """Every name that has at least one image in the cache."""
    folders = sorted(images_dir().iterdir()) if images_dir().is_dir() else []
    return [folder.name for folder in folders if list_folders(folder.name)]
