"""What the lab looks like inside: its mounts, and how those below a folder are taken away again.

Sources: mount_namespaces(7), proc_pid_mountinfo(5), cgroup-v2.rst, mknod(2).
"""

import contextlib
import os
import re
import stat
from pathlib import Path

from harness import cgroup, lab_view, linux
from harness.paths import cache_dir


def make_places(host_proc: Path) -> None:
    """Make the folders of the cache that something is mounted on; raises OSError."""
    for folder in (host_proc, _hidden_view(), cgroup.hidden_mount()):
        folder.mkdir(parents=True, exist_ok=True)


def _hidden_view() -> Path:
    return cache_dir() / "lab"


def set_up_mounts(host_proc: Path, *, connected: bool) -> None:
    """Private mounts; /proc and /sys of the new namespaces; a cgroup view that engines accept.

    The host's own /proc is at ``host_proc`` then, where that is allowed. With ``connected`` the
    host's buses are there too. `make_places` comes before. Raises OSError.
    """
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    with contextlib.suppress(OSError):  # not allowed in a user namespace, nor of use there
        linux.mount("/proc", host_proc, "", linux.MS_BIND)
    linux.mount("proc", "/proc", "proc", quiet)
    lab_view.set_up_run(connected=connected)
    try:
        _set_up_null()
    except OSError:  # another user may change nothing about the host's
        if linux.is_root_of_host():
            raise
    hidden = _hidden_view()
    linux.mount("/sys/fs/cgroup", hidden, "", linux.MS_BIND | linux.MS_REC)
    try:
        linux.mount("sysfs", "/sys", "sysfs", quiet)
        linux.mount(str(hidden), "/sys/fs/cgroup", "", linux.MS_BIND | linux.MS_REC)
    except OSError:  # a host that hides parts of /sys keeps its own view
        pass
    with contextlib.suppress(OSError):  # there engines look for AppArmor; for root only
        linux.mount("securityfs", "/sys/kernel/security", "securityfs", quiet)
    linux.unmount(hidden)
    unified = cgroup.MOUNT / "unified"
    if cgroup.has_controllers(unified):
        with contextlib.suppress(OSError):  # a mount locked by the user namespace stays
            linux.mount(str(unified), cgroup.hidden_mount(), "", linux.MS_BIND)
            linux.unmount(unified)
            # crun makes groups there all the same: they must not get into the host's tmpfs.
            linux.mount("tmpfs", unified, "tmpfs", quiet, "mode=755,size=1m")


def _set_up_null() -> None:
    """A /dev/null of the lab's own: gVisor gives the one that it has for input to its user."""
    place = lab_view.DEVICES
    place.mkdir()
    linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=755,size=64k")
    own = place / "null"
    os.mknod(own, stat.S_IFCHR, os.stat(os.devnull).st_rdev)
    own.chmod(0o666)
    linux.mount(str(own), os.devnull, "", linux.MS_BIND)


def unmount_below(folder: Path) -> None:
    """Detach every mount below ``folder``, the last first: deleting must not enter any of them."""
    inside = f"{folder.resolve()}/"
    with Path("/proc/self/mountinfo").open(errors="surrogateescape") as mounts:
        targets = [parse_mount_path(line.split()[4]) for line in mounts]
    for target in reversed(targets):
        if target.startswith(inside):
            with contextlib.suppress(OSError):
                linux.unmount(target)


def parse_mount_path(text: str) -> str:
    """A path as /proc/self/mountinfo has it, blanks and backslashes written in octal: as it is."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
