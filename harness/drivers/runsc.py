"""What gVisor's runsc can do depends on its release; for every platform that uses it."""

import contextlib
import functools
import re
from pathlib import Path

from harness.drivers.commanded import find_program
from harness.errors import HostError
from harness.process import run_command

_FIRST_WITH_SYNONYM = 20230501
_FIRST_WITH_CHECK = 20250101
_NAMESPACED = Path("/proc/sys/net/core/rmem_default")


def find_netstack_fault() -> str | None:
    """Why runsc cannot have a network here; asked inside the lab.

    Older releases take a network namespace in which this file is seen for the host's own, and
    refuse it; newer kernels show it in every one.
    """
    if _NAMESPACED.exists() and (read_release() or _FIRST_WITH_CHECK) < _FIRST_WITH_CHECK:
        return "this release of runsc takes every network of this kernel for the host's own"
    return None


def build_socket_option() -> str:
    """How runsc is told that the agent may use the channel's socket, in words of its release."""
    if (read_release() or _FIRST_WITH_SYNONYM) < _FIRST_WITH_SYNONYM:
        return "--fsgofer-host-uds"
    return "--host-uds=open"


@functools.cache
def read_release() -> int | None:
    """The date in runsc's version (``release-20221219.0``) as a number; None if it has none."""
    with contextlib.suppress(HostError):
        said = run_command([find_program("runsc") or "runsc", "--version"], timeout=10).stdout
        found = re.search(r"20\d{6}", said)
        return int(found[0]) if found else None
    return None
