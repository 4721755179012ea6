"""What the host's kernel wrote about an instance: an engine takes an instance's groups, and with
them their counters, away as soon as it has ended.

Source: /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

KILL, FORK = "oom-kill:", "fork rejected by pids controller"
_DEVICE = "/dev/kmsg"
_RECORD_MOST = 8192


@dataclass(frozen=True, slots=True)
class KernelLog:
    """The log from now on; ``descriptor`` is None where this user may not read it."""

    descriptor: int | None

    def read_about(self, name: str) -> list[str]:
        """The new records of a kill or a refused fork that name a group, oldest first."""
        named = re.compile(rf"{re.escape(name)}(?![\w-])")
        return [
            text for text in self._read_all()
            if (KILL in text or FORK in text) and named.search(text)
        ]  # fmt: skip

    def _read_all(self) -> Iterator[str]:
        while self.descriptor is not None:
            try:
                record = os.read(self.descriptor, _RECORD_MOST)
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            except OSError:  # no more
                return
            yield record.decode(errors="replace").partition(";")[2].partition("\n")[0]


@contextlib.contextmanager
def start_log() -> Iterator[KernelLog]:
    """Follow the kernel's log from here on."""
    try:
        descriptor = os.open(_DEVICE, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield KernelLog(None)
        return
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield KernelLog(descriptor)
    finally:
        os.close(descriptor)
