"""Where things live on this host: the cache of images, scratch space, the register of runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder of all that can be made again: ``$HARNESS_CACHE``, else the user's cache.

    Images, programs, the guest kernel, proofs of accelerators, and per-run scratch space. Links are
    followed: runc refuses a root file system whose path has one.
    """
    explicit = os.environ.get("HARNESS_CACHE")
    if explicit:
        return Path(explicit).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return (Path(base) / "container-or-vm").resolve()


def scratch_root() -> Path:
    """Parent of every run's scratch folder (upper layers, disk overlays, sockets)."""
    return cache_dir() / "scratch"


def register_dir() -> Path:
    """One record per live run: what it made outside its namespaces, for `clean`."""
    return cache_dir() / "runs"
