"""What an ordinary user needs for the lab: ids to map, and a host that allows user namespaces.

Sources: user_namespaces(7), newuidmap(1), the kernel's Documentation/admin-guide/sysctl/user.rst,
Debian's and Ubuntu's own switches of the same purpose, proc_pid_status(5).
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HostError
from harness.process import run_command

_SUBORDINATE_IDS = 65536
_CAP_SYS_ADMIN = 21
_FILTERED = "2"
"""What `Seccomp` of a process's status says where a filter decides about its system calls."""

_OF_USERS = "max_user_namespaces"
_ENOUGH = 15_000
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL, errno.ENOSYS)
"""How the kernel refuses a namespace or a mount, as opposed to a fault of the harness."""


# ---- ids ---------------------------------------------------------------------------------------


def require_subordinate_ids() -> None:
    """Raise HostError unless this user may map a range of ids: an image has many owners."""
    if shutil.which("newuidmap") is None:
        raise HostError("newuidmap is not installed", hint="install the package uidmap")
    for name in ("subuid", "subgid"):
        if find_subordinate_range(Path("/etc") / name) is None:
            user = _user_name()
            raise HostError(
                f"{user} has no subordinate ids in /etc/{name}",
                hint="as root: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {user}",
            )


def find_subordinate_range(path: Path) -> tuple[int, int] | None:
    """(first, count) of this user's range in /etc/subuid or /etc/subgid; None without one."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            owner, _, numbers = line.partition(":")
            if owner in (_user_name(), str(os.getuid())):
                first, _, count = numbers.partition(":")
                if int(count) >= _SUBORDINATE_IDS:
                    return int(first), int(count)
    return None


def _user_name() -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def map_ids(pid: int) -> None:
    """Map this user to root of ``pid``'s user namespace, and the subordinate range after it."""
    for tool, name, own in (
        ("newuidmap", "subuid", os.getuid()),
        ("newgidmap", "subgid", os.getgid()),
    ):
        span = find_subordinate_range(Path("/etc") / name)
        if span is None:
            raise HostError(f"no subordinate range in /etc/{name}")
        numbers = (0, own, 1, 1, span[0], span[1])
        done = run_command([tool, str(pid), *map(str, numbers)], timeout=10, check=False)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
            raise HostError(
                f"{tool} may not map this user's ids: {said}",
                hint=f"it has to be setuid root on a mount without nosuid: chmod u+s "
                f"{shutil.which(tool)}",
            )


# ---- what the host allows ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Walls:
    """What of this host decides whether a process may make namespaces and mount in them.

    ``capable`` is whether it has CAP_SYS_ADMIN. The numbers are those of sysctls, None where the
    kernel has none of the name; ``most`` are those of `user.max_…_namespaces` by their names, and
    ``filtered`` is whether a seccomp filter is on.
    """

    root: bool
    capable: bool
    cloning: int | None = None
    most: Mapping[str, int] = field(default_factory=dict)
    apparmor: int | None = None
    filtered: bool = False
    chroot: bool = False


def read_walls(proc: Path = Path("/proc")) -> Walls:
    """The walls around this process."""
    status = dict(
        line.split(":\t", 1) for line in _read(proc / "self/status").splitlines() if ":\t" in line
    )
    capabilities = int(status.get("CapEff", "0"), 16)
    sysctl = proc / "sys"
    return Walls(
        root=os.geteuid() == 0,
        capable=bool(capabilities >> _CAP_SYS_ADMIN & 1),
        cloning=_read_number(sysctl / "kernel/unprivileged_userns_clone"),
        most={
            path.name: number
            for path in sorted((sysctl / "user").glob("max_*_namespaces"))
            if (number := _read_number(path)) is not None
        },
        apparmor=_read_number(sysctl / "kernel/apparmor_restrict_unprivileged_userns"),
        filtered=status.get("Seccomp", "0").strip() == _FILTERED,
        chroot=not any(
            line.split()[4:5] == ["/"] for line in _read(proc / "self/mountinfo").splitlines()
        ),
    )


def explain_refusal(error: OSError, walls: Walls) -> HostError:
    """What stands in the way of a namespace, or of a mount in it, with what mends it; pure."""
    what = f"{error.filename}: " if error.filename else ""
    asked = f"this host does not let the harness make its lab: {what}{error.strerror or error}"
    if error.errno not in _REFUSED or _is_full(error):
        return HostError(asked)
    reason, remedy = _find_wall(error.errno or 0, walls)
    return HostError(f"{asked}: {reason}" if reason else asked, hint=remedy or None)


def _is_full(error: OSError) -> bool:
    """Whether a disk, or the table of mounts, has no room: only a new namespace has a limit that
    the kernel tells by the same number."""
    return error.errno == errno.ENOSPC and error.filename != "unshare"


def _find_wall(number: int, walls: Walls) -> tuple[str, str]:
    """The likeliest wall and the remedy; empty where nothing is known."""
    if walls.root and not walls.capable:
        return (
            "root has no CAP_SYS_ADMIN here, as in a container",
            "start the container with `--privileged`, or run the harness outside of it",
        )
    if sysctl := _find_sysctl(number, walls):
        name, value, wanted = sysctl
        return f"{name} is {value}", f"as root: sysctl {name}={wanted}"
    if walls.chroot:
        return "it runs in a chroot", "run it in the host's own root, or as root"
    if walls.filtered:
        return (
            "a seccomp filter is on, as in a container",
            "start the container with `--security-opt seccomp=unconfined` and `--privileged`",
        )
    if not walls.root:
        return "", "run it as root"
    return "something outside forbids it, as AppArmor, SELinux or a container's masks do", (
        "in a container: start it with `--privileged`"
    )


def _find_sysctl(number: int, walls: Walls) -> tuple[str, int, int] | None:
    """The switch that is in the way: name, its value, the value that is needed."""
    if not walls.root and walls.cloning == 0:
        return "kernel.unprivileged_userns_clone", 0, 1
    used = sorted(walls.most.items(), key=lambda each: (each[1], each[0] != _OF_USERS))
    if used and (number == errno.ENOSPC or (used[0][1] == 0 and not walls.root)):
        name, most = used[0]
        return f"user.{name}", most, max(most * 2, _ENOUGH)
    if not walls.root and walls.apparmor:
        return "kernel.apparmor_restrict_unprivileged_userns", walls.apparmor, 0
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _read_number(path: Path) -> int | None:
    with contextlib.suppress(ValueError):
        return int(_read(path))
    return None
