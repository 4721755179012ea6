"""Where a site is written: beside its old self, then both change places in one step.

A site is known by its record, ``site.json``: every file of it with a digest, and of which runs and
which program it was made. Nothing is ever removed that such a record does not name.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import InputError
from harness.store.names import sync_folder, write_atomically

RECORD = "site.json"
FORMAT = 1
"""Version of the record. History: 1, first release."""

_KIND = "site of container-or-vm"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class Record:
    """``parts``: what a folder or page was made of, by its name. ``files``: digests by path."""

    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def require_place(out: Path, folders: Sequence[Path]) -> Path:
    """The resolved place of the site; raises InputError where it would overwrite anything else."""
    site = out.resolve()
    for folder in (each.resolve() for each in folders):
        if site == folder or folder in site.parents:
            raise InputError(
                f"--site: {out} lies inside {folder.name}, which is published",
                hint="name a place beside it",
            )
        if site in folder.parents:
            raise InputError(
                f"--site: {folder.name}, which is published, lies inside {out}",
                hint="name a place beside it",
            )
    if site.exists():
        _require_own(site, out)
    elif not site.parent.is_dir():
        raise InputError(f"--site: {out.parent} is not there", hint="make that folder first")
    if not os.access(site.parent, os.W_OK):
        raise InputError(
            f"--site: {out.parent} cannot be written to", hint="name a folder that is yours"
        )
    return site


def _require_own(site: Path, out: Path) -> None:
    if not site.is_dir():
        raise InputError(f"--site: {out} is a file", hint="name a new folder")
    if not any(site.iterdir()):
        return
    record = read_record(site)
    if record is None:
        raise InputError(
            f"--site: {out} holds something else than a site of `publish`",
            hint="name a new folder, or an empty one",
        )
    foreign = sorted(set(_list_files(site)) - {*record.files, RECORD})
    if foreign:
        raise InputError(
            f"--site: {out} holds {foreign[0]}, which is not of the site and would be lost",
            hint="move it elsewhere",
        )


def read_record(site: Path) -> Record | None:
    """What a site was made of; None where a folder is no site that this release knows."""
    try:
        document = json.loads((site / RECORD).read_bytes())
        if document["kind"] != _KIND or document["format"] != FORMAT:
            return None
        return Record(dict(document["parts"]), dict(document["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(stage: Path, parts: dict[str, str]) -> None:
    """Write the record of a whole site, its files as they lie in ``stage``."""
    files = {name: _digest(stage / name) for name in _list_files(stage) if name != RECORD}
    document = {
        "kind": _KIND,
        "format": FORMAT,
        **asdict(Record(dict(sorted(parts.items())), files)),
    }
    write_atomically(stage / RECORD, (json.dumps(document, indent=1) + "\n").encode())


def take_over(old: Path, record: Record | None, stage: Path, name: str, made_of: str) -> bool:
    """Take a part of the old site as it is, if it was made of the same and nobody has changed it.

    ``name`` is the folder, or the start of the files' paths, that the part consists of.
    """
    if record is None or record.parts.get(name) != made_of:
        return False
    files = [each for each in record.files if each.startswith((f"{name}/", f"{name}."))]
    if not files or any(_digest(old / each) != record.files[each] for each in files):
        return False
    for each in files:
        (stage / each).parent.mkdir(parents=True, exist_ok=True)
        _link(old / each, stage / each)
    return True


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(old, new)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _list_files(folder: Path) -> list[str]:
    found = (each for each in folder.rglob("*") if not each.is_dir())
    return sorted(str(each.relative_to(folder)) for each in found)


@contextmanager
def start_stage(site: Path) -> Iterator[Path]:
    """An empty folder beside ``site`` that takes its place at the end; gone if that fails.

    What an earlier publish that was killed has left is removed. Raises InputError where another
    one is at work.
    """
    stage = site.with_name(f".{site.name}.publish")
    try:
        stage.mkdir(exist_ok=True)
        handle = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"--site: {site} cannot be made: {error.strerror}") from error
    try:
        _lock(handle, stage, site)
        try:
            _empty(stage)
            yield stage
            sync_folder(stage)
            _change_places(stage, site)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        os.close(handle)


def _lock(handle: int, stage: Path, site: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = stage.exists() and os.path.samestat(os.fstat(handle), stage.stat())
    except BlockingIOError:
        mine = False
    if not mine:
        raise InputError(f"--site: another publish is writing {site.name}", hint="wait for it")


def _empty(stage: Path) -> None:
    for each in stage.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _change_places(stage: Path, site: Path) -> None:
    """Exchange both in one step (renameat2(2)): there is no moment without a whole site."""
    if not site.exists():
        stage.rename(site)
    elif not _exchange(stage, site):
        aside = site.with_name(f".{site.name}.old")
        site.rename(aside)
        stage.rename(site)
        shutil.rmtree(aside)
    sync_folder(site.parent)


def _exchange(one: Path, other: Path) -> bool:
    """False where the C library or the file system cannot do it."""
    function = getattr(ctypes.CDLL(None), "renameat2", None)
    if function is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    done = function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return bool(done == 0)
