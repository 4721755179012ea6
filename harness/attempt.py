"""Ask the kernel by trying: do something in a child that has namespaces of its own, and see.

What is asked of a list, as /proc/filesystems is one, misses what the kernel loads when it is used.
"""

import os
from collections.abc import Callable

from harness import linux
from harness.errors import describe_unexpected
from harness.handover import Handover


def find_refusal(attempt: Callable[[], None]) -> OSError | None:
    """What the kernel says to ``attempt`` in a child with a mount namespace of its own, and for an
    ordinary user a user namespace; None if it succeeds. Nothing of it stays."""
    told = Handover()
    child = os.fork()
    if child == 0:
        _try(attempt, told)
    os.waitpid(child, 0)
    left = told.get()
    if not isinstance(left, list):
        return None
    number, words = left
    return OSError(number, words)


def _try(attempt: Callable[[], None], told: Handover) -> None:
    """The child's part; it never returns."""
    try:
        linux.unshare(linux.CLONE_NEWNS | (linux.CLONE_NEWUSER if os.geteuid() else 0))
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        attempt()
    except OSError as error:
        told.put([error.errno or 0, error.strerror or str(error)])
    except BaseException as error:
        told.put([0, describe_unexpected(error)])
    finally:
        os._exit(0)
