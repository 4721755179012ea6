"""Ask the kernel by trying: do something in a child that has namespaces of its own, and see.

What is asked of a list, as /proc/filesystems is one, misses what the kernel loads when it is used.
Source: user_namespaces(7) («Defining user and group ID mappings»).
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from harness import linux
from harness.errors import describe_unexpected
from harness.handover import Handover


def find_refusal(attempt: Callable[[], None]) -> OSError | None:
    """What the kernel says to ``attempt`` in a child with a mount namespace of its own, and for an
    ordinary user a user namespace that has its root; None if it succeeds. Nothing of it stays.

    A child that dies of it is an error without a number.
    """
    told = Handover()
    child = os.fork()
    if child == 0:
        _try(attempt, told)
    _, status = os.waitpid(child, 0)
    left = told.get()
    if isinstance(left, list):
        number, words = left
        return OSError(number, words)
    return OSError(0, _describe_end(status)) if status else None


def _describe_end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    how = signal.strsignal(-code) if code < 0 else code
    return f"the process that tried it ended with {how}"


def _try(attempt: Callable[[], None], told: Handover) -> None:
    """The child's part; it never returns."""
    code = 1
    try:
        _enter_namespaces()
        attempt()
        code = 0
    except OSError as error:
        told.put([error.errno or 0, error.strerror or str(error)])
    except BaseException as error:
        told.put([0, describe_unexpected(error)])
    finally:
        os._exit(code)


def _enter_namespaces() -> None:
    user, group = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWNS | (linux.CLONE_NEWUSER if user else 0))
    if user:  # without a number of its own it may make no file there
        linux.set_dumpable()
        for name, text in (
            ("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")
        ):  # fmt: skip
            Path("/proc/self", name).write_text(text)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
