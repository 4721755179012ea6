"""Where a run may make control groups of version 2: at the top, or in a group that was given to it.

An ordinary user owns a group that a service manager has delegated (`Delegate=yes`), root of a
container the one that it sees as the top. A group whose children are to be limited may hold no
processes itself, so those that live in a delegated one, this process and its shell, move to a leaf
beside the run's groups, and back when the last run is over.
Sources: cgroup-v2.rst («Delegation», «No Internal Process Constraint»), cgroup_namespaces(7),
systemd.resource-control(5).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("memory", "cpu", "pids")
HOME = "harness-home"
"""The leaf in a delegated group for what lived in it before."""
SCOPE = "systemd-run --user --scope -p Delegate=yes"
"""What gives a command control groups of its user's own, where systemd manages the session."""

_UNMASK = "in a container: start it with `--privileged`"
_ATTEMPTS = 20


# ---- where ---------------------------------------------------------------------------------------


def find_own(mount: Path, controller: str = "", proc: Path = Path("/proc/self")) -> Path | None:
    """This process's own group in the hierarchy mounted at ``mount``: of version 2, or that of
    version 1 with ``controller``. None where it cannot be seen from here."""
    path = parse_membership((proc / "cgroup").read_text(), controller)
    root = parse_mount_root((proc / "mountinfo").read_text(errors="replace"), mount)
    below = None if path is None else locate(path, root)
    return None if below is None else mount / below


def parse_membership(text: str, controller: str = "") -> str | None:
    """The path of a hierarchy in /proc/PID/cgroup; that of version 2 has no controllers."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if {controller, f"name={controller}"} & set(controllers.split(",")):
            return path.removesuffix(" (deleted)")
    return None


def parse_mount_root(text: str, mount: Path) -> str:
    """Which group the top of the mount at ``mount`` is, from /proc/PID/mountinfo."""
    found = "/"
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) > 4 and words[4] == str(mount):
            found = words[3]  # the last one lies over the others
    return found


def locate(path: str, root: str) -> str | None:
    """A group's path below a mount whose top is the group ``root``; None if it is not below."""
    if path == root or root == "/":
        below = path if root == "/" else ""
    elif path.startswith(f"{root}/"):
        below = path[len(root) :]
    else:
        return None
    return None if below.startswith("/..") else below.lstrip("/")


def find_base(mount: Path) -> Path | None:
    """The group below which this process may make others; None if there is none.

    It may still hold processes itself: see `settled`.
    """
    if _is_usable(mount) and (_is_root(mount) or is_open(mount)):
        return mount
    own = find_own(mount)
    base = own.parent if own is not None and own.name == HOME else own
    return base if base is not None and _is_usable(base) else None


def _is_root(group: Path) -> bool:
    """Whether it is the kernel's own root group, which alone may have processes and children."""
    return not (group / "cgroup.type").exists()


def _is_usable(group: Path) -> bool:
    places = (group, group / "cgroup.procs", group / "cgroup.subtree_control")
    return "memory" in _read_words(group / "cgroup.controllers") and all(
        os.access(each, os.W_OK) for each in places
    )


def takes_processes(group: Path) -> bool:
    """Whether this process may move there: a group of version 2 with children that have
    controllers takes none, but for the kernel's own root."""
    return os.access(group / "cgroup.procs", os.W_OK) and (
        _is_root(group) or not _read_words(group / "cgroup.subtree_control")
    )


def is_open(group: Path) -> bool:
    """Whether groups below it have their memory accounted."""
    return "memory" in _read_words(group / "cgroup.subtree_control")


def open_top(base: Path) -> bool:
    """Have the memory of groups below ``base`` accounted, where nothing has to make room for it;
    whether it is.

    A group with processes would take some controllers all the same, and its children then none of
    its processes (cgroup-v2.rst, «Threads»).
    """
    if _is_root(base):
        open_group(base)
    return is_open(base)


def open_group(group: Path) -> None:
    """Give the groups below a group every controller that they can have, each on its own: a host
    may refuse one and give the others."""
    control = group / "cgroup.subtree_control"
    for each in CONTROLLERS:
        if each not in _read_words(control):
            with contextlib.suppress(OSError):
                control.write_text(f"+{each}")


def _read_words(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().split()
    return []


# ---- making room -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stay:
    """The use of a delegated group by a run. ``lock`` is shared by all runs that are in it, and
    kept by every process that has inherited it; -1 where nothing had to make room."""

    base: Path | None = None
    lock: int = -1

    def leave(self) -> None:
        """Put back what made room, unless another run needs it. To be called by any process that
        counts processes as the host does; safe to call twice."""
        if self.base is not None and self.lock >= 0:
            _put_back(self.base, self.lock)


@contextlib.contextmanager
def settled(mount: Path) -> Iterator[Stay]:
    """Make room in the group that this process may divide, as long as it lasts.

    It says nothing where that cannot be: `find_base` has none then, or one that does not open.
    """
    base = find_base(mount) if (mount / "cgroup.controllers").exists() else None
    if base is None or (base == mount and _is_root(base)):
        yield Stay(base)
        return
    lock = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
    stay = Stay(base, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        make_room(base)
        yield stay
    finally:
        stay.leave()
        os.close(lock)


def make_room(base: Path) -> None:
    """Move what lives in a group to a leaf below it, and open the group; it stays as it was where
    that is refused."""
    if is_open(base):
        return
    home = base / HOME
    with contextlib.suppress(OSError):
        home.mkdir(exist_ok=True)
        _move_all(base, home)
        open_group(base)


def clean_up_own(mount: Path) -> None:
    """The same for the group that this process lives in: its run may have left no record."""
    own = find_own(mount) if (mount / "cgroup.controllers").exists() else None
    if own is not None and own.name == HOME:
        clean_up(own.parent)


def clean_up(base: Path) -> None:
    """Put back what a dead run has moved, unless another run needs it."""
    with contextlib.suppress(OSError):
        lock = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _put_back(base, lock)
        finally:
            os.close(lock)


def _put_back(base: Path, lock: int) -> None:
    home = base / HOME
    with contextlib.suppress(OSError):
        if not home.is_dir():
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_open(base) or _read_words(home / "cgroup.procs"):
            _close_group(base)
        _move_all(home, base)
        home.rmdir()


def _close_group(base: Path) -> None:
    """Take away what `make_room` gave: with any controller on before, a group with processes could
    not have moved them («Threads»: its children are then no domains)."""
    control = base / "cgroup.subtree_control"
    for each in _read_words(control):
        control.write_text(f"-{each}")


def _move_all(source: Path, target: Path) -> None:
    """Move every process of a group, those that are forked meanwhile too."""
    for _ in range(_ATTEMPTS):
        pids = _read_words(source / "cgroup.procs")
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (target / "cgroup.procs").write_text(pid)


# ---- why there is none ---------------------------------------------------------------------------


def explain_missing(mount: Path, *, root: bool) -> str:
    """Why this process may make no usable groups, and what would give it some."""
    if not (mount / "cgroup.controllers").exists():
        if "memory" in _read_words(mount / "unified/cgroup.controllers"):
            return (
                f"memory is accounted in {mount}/unified only, beside groups of version 1 (boot "
                "the host with version 2 only)"
            )
        if not (mount / "memory").is_dir():
            return "this host has no control groups for memory mounted"
        return _explain_first(mount / "memory", root=root)
    if "memory" not in _read_words(mount / "cgroup.controllers"):
        return "this kernel, or what gives it its groups, has no controller of memory"
    if os.statvfs(mount).f_flag & os.ST_RDONLY:
        return f"{mount} is read-only ({_UNMASK})"
    own = find_own(mount)
    if own is None:
        return "this process's own control group cannot be seen from here"
    managed = any(part.endswith((".slice", ".scope", ".service")) for part in own.parts)
    name = f"/{'/'.join(own.relative_to(mount).parts)}"
    if _is_usable(own if own.name != HOME else own.parent):
        return f"the control group {name} does not open for groups below it"
    if root:
        return f"root may not divide the control group {name} ({_UNMASK})"
    remedy = f"{SCOPE} COMMAND gives it one" if managed else "run it as root"
    return f"the control group {name} is not this user's to divide ({remedy})"


def _explain_first(memory: Path, *, root: bool) -> str:
    """The same for control groups of version 1."""
    if not root:
        why = "control groups of version 1 are root's alone"
        return f"{why} (run it as root, or boot the host with version 2 only)"
    if os.statvfs(memory).f_flag & os.ST_RDONLY:
        return f"{memory} is read-only ({_UNMASK})"
    return f"no control groups can be made in {memory} ({_UNMASK})"
