"""Run a tool as root of its own namespaces: packages and trees need owners besides one's own.

As root (of the host or of a user namespace) that is a mount and a PID namespace; else also a user
namespace with the caller's range of subordinate ids (subuid(5)). Mounts and processes that a tool
leaves behind end with the namespaces, and those end with the harness (PR_SET_PDEATHSIG).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HostError
from harness.process import Completed, run_command

_FULL_RANGE = 65_536


def build_rooted(argv: Sequence[str | Path], *, root: bool) -> list[str]:
    """The command line that runs ``argv`` as root in namespaces of its own."""
    user = [] if root else ["--map-root-user", "--map-auto"]
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        *(os.fspath(word) for word in argv),
    ]


def run_rooted(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``argv`` to its end as root of its own namespaces; raises HostError."""
    return run_command(
        build_rooted(argv, root=os.geteuid() == 0), timeout=timeout, check=check, env=env
    )


def require_owners() -> None:
    """Raise HostError where this process cannot give files to the users that Debian has."""
    if os.geteuid() == 0:
        if count_ids(Path("/proc/self/uid_map").read_text()) < _FULL_RANGE:
            raise HostError(
                "this user namespace has too few user ids for a Debian system",
                hint="give the user a range: usermod --add-subuids 100000-165535 "
                "--add-subgids 100000-165535 USER",
            )
        return
    probe = run_rooted(["true"], timeout=30, check=False)
    if probe.returncode != 0:
        reason = probe.stderr.strip().splitlines()
        raise HostError(
            f"no user namespace with a range of ids: {reason[-1] if reason else 'unshare failed'}",
            hint="install uidmap and run usermod --add-subuids 100000-165535 "
            "--add-subgids 100000-165535 USER",
        )


def count_ids(uid_map: str) -> int:
    """How many ids a ``/proc/PID/uid_map`` maps (user_namespaces(7))."""
    return sum(int(line.split()[2]) for line in uid_map.splitlines() if line.strip())
