"""QEMU, wherever this host's distribution has it."""

import functools
import os
import shutil
from collections.abc import Sequence

from harness.errors import HostError
from harness.process import run_command

NAME = "qemu-system-x86_64"
CANDIDATES = (NAME, "/usr/libexec/qemu-kvm", "qemu-kvm")
"""What it is called: on Red Hat Enterprise Linux and its like by another name, outside PATH."""


def find_emulator(candidates: Sequence[str] = CANDIDATES) -> str | None:
    """The path of the program; None without one."""
    return next((path for each in candidates if (path := shutil.which(each))), None)


def require_emulator() -> str:
    """As `find_emulator`; raises HostError."""
    found = find_emulator()
    if found is None:
        raise HostError(f"{NAME} is not installed", hint="`make run` installs it")
    return found


def read_qemu_version() -> str:
    """The first line of ``--version``; raises HostError without QEMU."""
    path = require_emulator()
    return _ask_version(path, os.stat(path).st_mtime_ns)


@functools.cache
def _ask_version(path: str, _changed: int) -> str:
    return run_command([path, "--version"], timeout=10).stdout.partition("\n")[0]
