"""Where things live on this host: the cache of images, scratch space, the register of runs."""

import os
from pathlib import Path

from harness.errors import HostError


def cache_dir() -> Path:
    """The folder of all that can be made again: ``$HARNESS_CACHE``, else the user's cache.

    Images, programs, the guest kernel, proofs of accelerators, and per-run scratch space. Links are
    followed: runc refuses a root file system whose path has one. Raises HostError for a user who
    has no home.
    """
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


def scratch_root() -> Path:
    """Parent of every run's scratch folder (upper layers, disk overlays, sockets)."""
    return cache_dir() / "scratch"


def register_dir() -> Path:
    """One record per live run: what it made outside its namespaces, for `clean`."""
    return cache_dir() / "runs"
