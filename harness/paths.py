"""Where things live on this host: the cache of images, scratch space, the register of runs."""

import os
from pathlib import Path

from harness.errors import HostError

LAB_CACHE = Path("/run/lab")
"""What the cache is called inside the lab, wherever it is: short enough for a socket (108 bytes,
unix(7)), of one mount with all that is in it, and without a letter that means something to a
mount option, a configuration file or a shell."""

_outside: list[Path] = []  # in the lab, the cache as the rest of the host knows it


def cache_dir() -> Path:
    """The folder of all that can be made again: ``$HARNESS_CACHE``, else the user's cache.

    Images, programs, the guest kernel, proofs of accelerators, and per-run scratch space. Links are
    followed: runc refuses a root file system whose path has one. In the lab: `LAB_CACHE`. Raises
    HostError for a user who has no home.
    """
    return LAB_CACHE if _outside else _find_cache()


def _find_cache() -> Path:
    explicit = os.environ.get("HARNESS_CACHE")
    if explicit:
        return Path(explicit).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or str(find_home() / ".cache")
    return (Path(base) / "container-or-vm").resolve()


def find_home() -> Path:
    """This user's home; raises HostError where neither HOME nor a line of passwd names it."""
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise HostError(
            f"user {os.getuid()} has no home folder: HOME is not set, and /etc/passwd has no line",
            hint="HARNESS_CACHE names a folder for images and scratch files",
        )
    return Path(home)


def use_lab_cache() -> None:
    """From now on this process, and what it forks, calls the cache by its name in the lab."""
    _outside.append(_find_cache())


def find_outside(path: Path) -> Path:
    """What a path in the cache is called outside the lab: by a daemon of the host, in a record."""
    if _outside and path.is_relative_to(LAB_CACHE):
        return _outside[0] / path.relative_to(LAB_CACHE)
    return path


def format_outside(text: str) -> str:
    """A text for people, in which a path in the cache has the name that they know."""
    return text.replace(f"{LAB_CACHE}/", f"{_outside[0]}/") if _outside else text


def scratch_root() -> Path:
    """Parent of every run's scratch folder (upper layers, disk overlays, sockets)."""
    return cache_dir() / "scratch"


def register_dir() -> Path:
    """One record per live run: what it made outside its namespaces, for `clean`."""
    return cache_dir() / "runs"
