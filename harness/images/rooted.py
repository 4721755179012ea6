"""Run a tool as root of its own namespaces: packages and trees need owners besides one's own.

As root (of the host or of a user namespace) that is a mount and a PID namespace; else also a user
namespace with the caller's range of subordinate ids (subuid(5)). Mounts and processes that a tool
leaves behind end with the namespaces, and those end with the harness (PR_SET_PDEATHSIG).
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HostError
from harness.process import Completed, run_command

FULL_RANGE = 65_536
# Debian leaves the folders of system tools out of a user's PATH.
_SYSTEM_TOOLS = "/usr/sbin:/sbin"


def build_rooted(argv: Sequence[str | Path], *, root: bool) -> list[str]:
    """The command line that runs ``argv`` as root in namespaces of its own."""
    user = [] if root else ["--map-root-user", "--map-auto"]
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", *user, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
        # Maintainer scripts make files with the umask that they find.
        *("sh", "-c", 'umask 022 && exec "$@"', "sh"),
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
    rooted = build_rooted(argv, root=os.geteuid() == 0)
    return run_command(rooted, timeout=timeout, check=check, env={**tool_path(), **(env or {})})


def tool_path() -> dict[str, str]:
    """The PATH that also finds system tools, as an addition to the environment."""
    return {"PATH": f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_TOOLS}"}


def require_tools(*names: str) -> None:
    """Raise HostError for the first program that is not installed."""
    for name in names:
        if shutil.which(name, path=tool_path()["PATH"]) is None:
            raise HostError(
                f"{name} is not installed", hint="`python -m harness doctor` names the package"
            )


def require_owners() -> None:
    """Raise HostError where this process cannot give files to the users that Debian has."""
    if os.geteuid() == 0:
        if count_ids(Path("/proc/self/uid_map").read_text()) < FULL_RANGE:
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
