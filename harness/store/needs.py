"""What stored runs need of the cache: the images, disks and kernels that were measured.

A run can be looked into, repeated and gone on with only as long as these are there. Where its
folder is stands in a note in the cache, ``results/RUN-ID``, since it may be anywhere (`--out`).
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.errors import InputError
from harness.paths import cache_dir
from harness.store.folder import read_manifest
from harness.store.names import MANIFEST, safe_name, write_atomically

_DEPTH = 3


def note_run(run_id: str, folder: Path) -> None:
    """Note where a run's result folder is; a cache that cannot be written keeps no note."""
    notes = _notes_dir()
    with contextlib.suppress(OSError):
        notes.mkdir(parents=True, exist_ok=True)
        write_atomically(notes / safe_name(run_id), str(folder.absolute()).encode())


def list_noted() -> list[Path]:
    """The result folders that were noted and are still there; notes of others are removed."""
    found = []
    for note in sorted(_notes_dir().glob("[!.]*")):
        with contextlib.suppress(OSError, ValueError):
            folder = Path(note.read_text())
            if (folder / MANIFEST).is_file():
                found.append(folder)
            else:
                note.unlink()
    return found


def _notes_dir() -> Path:
    return cache_dir() / "results"


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Every result folder that is one of ``folders`` or lies in them, some levels deep."""
    patterns = ["/".join(["*"] * depth + [MANIFEST]) for depth in range(_DEPTH)]
    found = {
        path.parent for folder in folders for pattern in patterns for path in folder.glob(pattern)
    }
    return sorted(found)


def read_needs(folders: Iterable[Path]) -> dict[tuple[str, str], str]:
    """The run that needs it, by kind and what tells it: an image's digest, for ``disk`` and
    ``snapshot`` that or the name of their image, a kernel's release.

    Raises InputError for a manifest that cannot be read: nobody knows what that run needs.
    """
    needs: dict[tuple[str, str], str] = {}
    for folder in find_runs(folders):
        try:
            manifest = read_manifest(folder)
        except InputError as error:
            raise InputError(
                f"what this run needs is unknown: {error.message}",
                hint="remove that folder, or say --force",
            ) from error
        for key in list_needs(manifest):
            needs.setdefault(key, str(folder))
    return needs


def list_needs(manifest: Mapping[str, object]) -> list[tuple[str, str]]:
    """What one run needs, from its manifest; pure."""
    platforms = [str(name) for name in _get_mapping(manifest, "platforms")]
    from_disk = any(name.startswith("vm-disk") for name in platforms)
    restored = any(name.startswith("vm-restore") for name in platforms)
    found = []
    for name, image in _get_mapping(manifest, "images").items():
        digest = str(image.get("digest", "")) if isinstance(image, Mapping) else ""
        found.append(("image", digest))
        found += [("disk", digest)] if from_disk else []
        found += [("snapshot", str(name))] if restored else []
    release = _get_mapping(manifest, "guest_kernel").get("release")
    return [*found, ("kernel", str(release))] if release else found


def _get_mapping(manifest: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = manifest.get(key)
    return found if isinstance(found, Mapping) else {}
