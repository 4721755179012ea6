"""Folders of the cache for what is thrown away: never in /tmp, which others may have filled.

A folder is locked as long as it is used, by whatever process; `clean` removes those that are not.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.paths import cache_dir
from harness.places import require_cache


def _find_root() -> Path:
    return cache_dir() / "tmp"


@contextlib.contextmanager
def start_temporary(purpose: str) -> Iterator[Path]:
    """A new empty folder that is gone afterwards; raises HostError where there can be none."""
    require_cache()
    root = _find_root()
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=root))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clean_temporary() -> list[str]:
    """Remove the folders that nobody uses; a line for each."""
    said = []
    for folder in sorted(_find_root().glob("*-*")):
        with contextlib.suppress(OSError), _locked(folder):
            shutil.rmtree(folder)
            said.append(f"removed {folder}")
    return said


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; raises BlockingIOError where somebody else does."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(place)
