"""A disk quota for what an instance writes: its folder on a small file system of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness import linux
from harness.errors import HostError
from harness.process import run_command

_TIMEOUT = 30.0


@contextlib.contextmanager
def start_quota(folder: Path, size: int) -> Iterator[str | None]:
    """Mount a file system of ``size`` bytes on an empty folder; yields why not, or None.

    It has no journal and no reserved blocks, so that nearly all of it is the instance's.
    """
    image = folder.with_name(f"{folder.name}.ext4")
    reason = None
    try:
        with image.open("xb") as file:
            file.truncate(size)
        make = ("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", str(image))
        run_command(make, timeout=_TIMEOUT)
        run_command(("mount", "-o", "loop", str(image), str(folder)), timeout=_TIMEOUT)
    except HostError as error:
        reason = f"this host gives no file system for it: {error.message}"
    try:
        yield reason
    finally:
        if reason is None:
            linux.unmount(folder)
        image.unlink(missing_ok=True)
