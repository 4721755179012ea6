"""What one process of the harness hands to another, beside its exit code: one JSON value in memory.

It lies in a file without a name (memfd_create(2)) that forked processes share, so that neither a
full disk nor a pipe that nobody empties can hold it up.
"""

import json
import os
from dataclasses import dataclass, field
from typing import IO

from harness.errors import KINDS, HarnessError
from harness.paths import format_outside


def _open_memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("handover"), "w+b", buffering=0)


@dataclass(frozen=True, slots=True)
class Handover:
    """Empty at first; `put` replaces what was there. It is gone with the last process."""

    file: IO[bytes] = field(default_factory=_open_memory)

    def put(self, value: object) -> None:
        """Leave a value of JSON types for whoever shares this."""
        text = json.dumps(value).encode()
        os.ftruncate(self.file.fileno(), 0)
        os.pwrite(self.file.fileno(), text, 0)

    def get(self) -> object:
        """The value that was left last; None where there is none."""
        text = os.pread(self.file.fileno(), os.fstat(self.file.fileno()).st_size, 0)
        return json.loads(text) if text else None


def leave_error(told: Handover, error: HarnessError, trace: str = "") -> None:
    """Leave an error for the process that waits, unless there is one already: the first counts."""
    if told.get() is None:
        kind = next(each.__name__ for each in type(error).__mro__ if each.__name__ in KINDS)
        hint = error.hint and format_outside(error.hint)
        told.put([kind, format_outside(error.message), hint, trace])


def raise_left(told: Handover) -> None:
    """Raise the error that was left, as what it was; its trace is shown with --debug."""
    left = told.get()
    if not isinstance(left, list):
        return
    kind, message, hint, trace = left
    error = KINDS[kind](message, hint=hint)
    if trace:
        error.add_note(trace)
    raise error
