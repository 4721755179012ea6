"""What the lab sees of the host beyond its kernel: a /run and an environment of its own.

The buses and services of the host are not the harness's: an engine that registers what it starts
with systemd-machined names it by a number of the lab's pid namespace, which means another process
there; one that finds a bus asks systemd for groups; one that finds a journal writes to it. What
engines leave below /run goes with the lab.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import linux
from harness.errors import InputError
from harness.paths import LAB_CACHE, cache_dir, use_lab_cache

RUN = Path("/run")
DEVICES = RUN / "devices"
"""What the lab has of its own instead of the host's devices."""
HIDDEN = (
    *("dbus", "systemd", "lock", "netns", "runc", "crun", "lxc", "containers", "libpod"),
    *("docker", "containerd"),
    *(LAB_CACHE.name, DEVICES.name),
)
"""What the lab has its own of, or none: the system bus, systemd's own sockets (manager, logind,
machined, journal), what engines of the host keep by a fixed name, and the lab's own names."""
_SERVICES = ("dbus", "systemd")
_OF_USERS = ("bus", "systemd")
"""In a user's folder below /run/user: the bus, and the sockets of the user's own systemd."""
LOCALE = "C.UTF-8"
_RESOLVER = "systemd/resolve"
_DESCRIPTORS = Path("/proc/self/fd")
_DROPPED = {
    *("INVOCATION_ID", "JOURNAL_STREAM", "LANG", "LANGUAGE", "MAINPID", "MANAGERPID"),
    *("MANAGERPIDFDID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    *("MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "CREDENTIALS_DIRECTORY"),
}
_DROPPED_FAMILIES = ("LC_", "LISTEN_", "SYSTEMD_")
_OF_SESSION = ("XDG_RUNTIME_DIR", "XDG_SESSION_ID")
_OF_BUSES = "DBUS_"


def set_up_run(*, connected: bool) -> None:
    """Mount the lab's own /run, with what else is in the host's, and the cache by a short name.

    With ``connected`` the host's buses stay: a client of its own libvirt may need them.
    """
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with _opened(RUN) as host, _opened(cache) as own:
        names = sorted(os.listdir(RUN))
        linux.mount("tmpfs", RUN, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        for name in names:
            if name not in HIDDEN or (connected and name in _SERVICES):
                with contextlib.suppress(FileNotFoundError):  # it has gone in the meantime
                    _keep(host / name, RUN / name)
        _make_own(host)
        for folder in () if connected else RUN.glob("user/*"):
            _hide_bus(folder)
        _keep(own, LAB_CACHE)
    use_lab_cache()


def require_kept(folder: Path) -> None:
    """Raise InputError for a folder of results below /run that the lab has another one of: what is
    written there goes with the lab. To be called outside of it."""
    place = folder.resolve()
    if not place.is_relative_to(RUN):
        return
    first = next(iter(place.relative_to(RUN).parts), "")
    if first in ("", *HIDDEN) or not (RUN / first).is_dir():
        raise InputError(
            f"results in {folder} would be lost: a run has a {RUN} of its own",
            hint="--out names a folder elsewhere",
        )


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
        if not (RUN / name).exists():
            (RUN / name).mkdir()
            (RUN / name).chmod(mode)
    if (host / _RESOLVER).is_dir() and not (RUN / _RESOLVER).exists():
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


def build_lab_environment(environ: Mapping[str, str], *, connected: bool) -> dict[str, str]:
    """The environment of everything in the lab: without what leads to the host's services, and in
    a language in which programs write numbers and messages in one form. Pure.

    With ``connected`` the addresses of the buses stay.
    """
    names = set(_DROPPED) if connected else {*_DROPPED, *_OF_SESSION}
    families = _DROPPED_FAMILIES if connected else (*_DROPPED_FAMILIES, _OF_BUSES)
    kept = {
        name: value
        for name, value in environ.items()
        if name not in names and not name.startswith(families)
    }
    return {**kept, "LC_ALL": LOCALE}


def set_up_environment(*, connected: bool) -> None:
    """Make it this process's own."""
    environment = build_lab_environment(os.environ, connected=connected)
    os.environ.clear()
    os.environ.update(environment)
