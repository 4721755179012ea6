"""A disk quota for what an instance writes: its folder on a small file system of its own."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness import linux
from harness.errors import HostError
from harness.process import run_command
from harness.units import format_size

_TIMEOUT = 30.0
_REFUSED = "this host gives no file system of {} for it"


@contextlib.contextmanager
def start_quota(folder: Path, size: int) -> Iterator[str | None]:
    """Mount a file system of ``size`` bytes on an empty folder; yields why not, or None.

    It has no journal and no reserved blocks, so that nearly all of it is the instance's.
    """
    image = folder.with_name(f"{folder.name}.ext4")
    reason = _mount_quota(image, folder, size)
    if reason is not None:  # while it is there, the file stands for a quota that holds
        image.unlink(missing_ok=True)
        yield reason
        return
    try:
        yield None
    finally:
        try:
            linux.unmount(folder)
        finally:
            image.unlink(missing_ok=True)


def _mount_quota(image: Path, folder: Path, size: int) -> str | None:
    make = ("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", str(image))
    try:
        with image.open("xb") as file:
            file.truncate(size)
        run_command(make, timeout=_TIMEOUT)
        run_command(("mount", "-o", "loop", str(image), str(folder)), timeout=_TIMEOUT)
    except HostError as error:
        return f"{_REFUSED.format(format_size(size))}: {error.message}"
    except OSError as error:
        return f"{_REFUSED.format(format_size(size))}: {error.strerror or error}"
    return None
