"""Whether the cache is a place that a run can live in: asked before anything is built or started.

Programs are run from it, images are unpacked in it, instances write below it. Source: statvfs(3).
"""

import os
import shlex
from pathlib import Path

from harness.errors import HostError, describe_os_error
from harness.paths import cache_dir

ELSEWHERE = "HARNESS_CACHE names another folder"


def require_cache() -> Path:
    """The folder of the cache, made where it is not there; raises HostError if it will not do."""
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        flags = os.statvfs(cache).f_flag
    except OSError as error:
        raise HostError(
            f"the cache {cache} cannot be made: {describe_os_error(error)}", hint=ELSEWHERE
        ) from None
    if fault := find_fault(flags, writable=os.access(cache, os.W_OK | os.X_OK)):
        raise HostError(f"the cache {cache} {fault}", hint=_find_remedy(cache, flags))
    return cache


def _find_remedy(cache: Path, flags: int) -> str:
    if not flags & os.ST_NOEXEC:
        return ELSEWHERE
    mount = next(each for each in (cache, *cache.parents) if each.is_mount())
    return f"{ELSEWHERE}, or as root: mount -o remount,exec {shlex.quote(str(mount))}"


def find_fault(flags: int, *, writable: bool) -> str:
    """Why a folder will not do, from the flags of its mount; empty if it will. Pure."""
    if flags & os.ST_RDONLY:
        return "is on a file system that is mounted read-only"
    if not writable:
        return "may not be written by this user"
    if flags & os.ST_NOEXEC:
        return "is on a file system that is mounted noexec, and programs are run from it"
    return ""
