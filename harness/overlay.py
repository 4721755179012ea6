"""Whether overlayfs can be used in a folder: asked by mounting one there.

Source: Documentation/filesystems/overlayfs.rst (the upper layer's file system must do certain
things, and overlayfs itself is among those that do not).
"""

import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path

from harness import linux
from harness.attempt import find_refusal
from harness.errors import HarnessError
from harness.paths import scratch_root
from harness.places import ELSEWHERE, require_cache
from harness.temporary import start_temporary

_LAYERS = ("lower", "upper", "work", "merged")


def find_overlay_fault() -> str | None:
    """Why instances cannot have their layers in the scratch folder, and what helps; None if they
    can. The kernel loads what it needs for it."""
    try:
        require_cache()
    except HarnessError as error:
        return str(error)
    return _find_fault(scratch_root())


@functools.cache
def _find_fault(scratch: Path) -> str | None:
    try:
        with start_temporary("overlay", in_scratch=True) as folder:
            refusal = find_refusal(build_attempt(folder))
    except OSError as error:
        refusal = error
    return describe_refusal(refusal, scratch) if refusal else None


def build_attempt(folder: Path) -> Callable[[], None]:
    """What mounts an overlay of new layers in ``folder``. They have plain names below it: a path
    may hold what divides the options."""

    def attempt() -> None:
        os.chdir(folder)
        for name in _LAYERS:
            Path(name).mkdir()
        linux.mount("overlay", "merged", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work")

    return attempt


def describe_refusal(refusal: OSError, scratch: Path) -> str:
    """The kernel's answer in words, with the remedy; pure."""
    if refusal.errno == errno.ENODEV:
        return "this kernel has no overlayfs (install a kernel that has it: CONFIG_OVERLAY_FS)"
    if refusal.errno in (errno.EINVAL, errno.EOPNOTSUPP):
        return (
            f"overlayfs cannot have its layers in {scratch}: {refusal.strerror} "
            f"({ELSEWHERE}, on ext4, xfs, btrfs or tmpfs)"
        )
    return f"overlayfs cannot be mounted in {scratch}: {refusal.strerror}"
