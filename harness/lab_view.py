"""What the lab sees of the host beyond its kernel: a /run and an environment of its own.

The buses and services of the host are not the harness's: an engine that registers what it starts
with systemd-machined names it by a number of the lab's pid namespace, which means another process
there; one that finds a bus asks systemd for groups; one that finds a journal writes to it. What
engines leave below /run goes with the lab.
"""

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from harness import linux
from harness.errors import HostError
from harness.paths import LAB_CACHE, cache_dir, use_lab_cache

RUN = Path("/run")
HIDDEN = (
    *("dbus", "systemd", "lock", "netns", "runc", "crun", "lxc", "containers", "libpod"),
    *("docker", "containerd"),
)
"""What the lab has its own of, or none: the system bus, systemd's own sockets (manager, logind,
machined, journal), and what engines of the host keep by a fixed name."""
_OF_USERS = ("bus", "systemd")
"""In a user's folder below /run/user: the bus, and the sockets of the user's own systemd."""
LOCALE = "C.UTF-8"
_RESOLVER = "systemd/resolve"
_DESCRIPTORS = Path("/proc/self/fd")
_DROPPED = {
    *("INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LANGUAGE", "MAINPID", "MANAGERPID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "XDG_RUNTIME_DIR", "XDG_SESSION_ID"),
}
_DROPPED_FAMILIES = ("DBUS_", "LC_", "LISTEN_", "SYSTEMD_")


def set_up_run() -> None:
    """Mount the lab's own /run, with what else is in the host's, and the cache by a short name."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    require_programs(cache)
    with _opened(RUN) as host, _opened(cache) as own:
        names = sorted(os.listdir(RUN))
        linux.mount("tmpfs", RUN, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        for name in names:
            if name not in HIDDEN:
                with contextlib.suppress(FileNotFoundError):  # it has gone in the meantime
                    _keep(host / name, RUN / name)
        _make_own(host)
        for folder in RUN.glob("user/*"):
            _hide_bus(folder)
        _keep(own, LAB_CACHE)
    use_lab_cache()


def require_programs(cache: Path) -> None:
    """Raise HostError where no program may be started from the cache: it has the run's own, and
    those of every image."""
    if os.statvfs(cache).f_flag & os.ST_NOEXEC:
        raise HostError(
            f"the cache {cache} is on a file system that is mounted noexec",
            hint="point HARNESS_CACHE at one from which programs can be started, or as root: "
            f"mount -o remount,exec {shlex.quote(str(_find_mount(cache)))}",
        )


def _find_mount(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.is_mount())


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Path]:
    """Another name of a folder, which stays when something is mounted over it."""
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _keep(source: Path, target: Path) -> None:
    """Have what is at ``source`` at ``target``, which is made."""
    mode = source.stat(follow_symlinks=False).st_mode
    if source.parent != _DESCRIPTORS and stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    linux.mount(str(source), target, "", linux.MS_BIND | linux.MS_REC)


def _make_own(host: Path) -> None:
    """The folders that programs expect, and the resolver's file, which is no bus."""
    for name, mode in (("lock", 0o1777), ("netns", 0o755), ("systemd", 0o755)):
        (RUN / name).mkdir()
        (RUN / name).chmod(mode)
    if (host / _RESOLVER).is_dir():
        _keep(host / _RESOLVER, RUN / _RESOLVER)


def _hide_bus(folder: Path) -> None:
    """Mount nothing over a user's bus; of another user there is nothing to see."""
    for name in _OF_USERS:
        with contextlib.suppress(OSError):
            place = folder / name
            if place.is_dir():
                linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=700")
            elif place.exists():
                linux.mount("/dev/null", place, "", linux.MS_BIND)


def set_up_environment() -> None:
    """Leave out of this process's environment what leads to the host's services, and have the
    programs of the run write numbers and messages in one form, whatever the user's language."""
    for name in tuple(os.environ):
        if name in _DROPPED or name.startswith(_DROPPED_FAMILIES):
            del os.environ[name]
    os.environ["LC_ALL"] = LOCALE
