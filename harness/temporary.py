"""Folders of the cache for what is thrown away: never in /tmp, which others may have filled.

A folder is locked as long as it is used, by whatever process; `clean` removes those that are not.
Where they lie is locked too while one is made or while `clean` looks: a new one has no lock yet.
"""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.paths import cache_dir, format_outside, scratch_root
from harness.places import require_cache


def _find_root() -> Path:
    return cache_dir() / "tmp"


@contextlib.contextmanager
def start_temporary(purpose: str, *, in_scratch: bool = False) -> Iterator[Path]:
    """A new empty folder that is gone afterwards; raises HostError where there can be none.

    With ``in_scratch`` it is where runs have their scratch folders, which may be a mount of its
    own.
    """
    require_cache()
    root, dot = (scratch_root(), ".") if in_scratch else (_find_root(), "")
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(root, fcntl.LOCK_SH):
            folder = Path(tempfile.mkdtemp(prefix=f"{dot}{purpose}-", dir=root))
            stack.enter_context(_locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
            stack.callback(_throw_away, folder)
        yield folder


def clean_temporary() -> list[str]:
    """Remove the folders that nobody uses; a line for each, or for what could not be removed."""
    said = []
    for root, names in ((_find_root(), "*-*"), (scratch_root(), ".*-*")):
        with contextlib.suppress(FileNotFoundError), _locked(root, fcntl.LOCK_EX):
            for folder in sorted(root.glob(names)):
                said += _clean(folder)
    return said


def _clean(folder: Path) -> list[str]:
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return _remove(folder) or [f"removed {folder}"]
    except (BlockingIOError, FileNotFoundError):  # somebody uses it, or has just removed it
        return []
    except OSError as error:
        return [f"could not remove {folder}: {error.strerror}"]


def _throw_away(folder: Path) -> None:
    for line in _remove(folder):
        print(f"warning: {format_outside(line)}", file=sys.stderr)


def _remove(folder: Path) -> list[str]:
    """Remove a folder with all that is in it; a line for each thing that could not be removed."""
    problems = _try_to_remove(folder)
    closed = [path for path, error in problems.items() if isinstance(error, PermissionError)]
    for path in closed:  # the kernel lets an overlay's own folder be entered by root alone
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
    problems = _try_to_remove(folder) if closed else problems
    return [f"could not remove {path}: {error}" for path, error in problems.items()]


def _try_to_remove(folder: Path) -> dict[str, BaseException]:
    """What could not be removed, with the reason."""
    problems: dict[str, BaseException] = {}

    def note(_: object, path: str, error: tuple[object, BaseException, object]) -> None:
        if not isinstance(error[1], FileNotFoundError):
            problems[path] = error[1]

    shutil.rmtree(folder, onerror=note)
    return problems


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold a folder's lock; raises BlockingIOError where that would wait and may not."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(place, how)
        yield
    finally:
        os.close(place)
