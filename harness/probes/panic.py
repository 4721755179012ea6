"""Whether a guest's kernel panicked: by what it printed, whatever became of the trial.

The kernel prints it on every console it has (kernel/panic.c), and the console's log is in the
instance's folder. A device that reports it (pvpanic) would be one that users' machines have not.
"""

import contextlib
from pathlib import Path

MARK = "panic"
_CONSOLE = "console.log"
_WORDS = b"Kernel panic"


def has_panicked(folder: Path) -> bool:
    """Whether the console's log in an instance's folder has a panic; False without a log."""
    with contextlib.suppress(OSError):
        return _WORDS in (folder / _CONSOLE).read_bytes()
    return False
