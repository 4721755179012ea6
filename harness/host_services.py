"""The host's buses and services, kept out of the lab: its messages are not for them.

A service of the host counts processes by its own numbers and keeps what it is told beyond the run:
systemd-machined refuses a machine whose process it cannot find, a journal keeps an engine's lines.
What the harness starts needs none of them. With ``connected``, a libvirt of the host's own is
asked, as anybody asks it: its client may need the buses then.
Sources: file-hierarchy(7), sd_bus_open(3), sd_listen_fds(3), sd_notify(3), systemd.exec(5).
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from harness import linux

RUN = Path("/run")
_NOTHING = Path("/dev/null")

_BUSES = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "DBUS_STARTER_ADDRESS",
          "DBUS_STARTER_BUS_TYPE", "XDG_RUNTIME_DIR")  # fmt: skip
_SERVICE = (
    "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID",
    "WATCHDOG_USEC", "JOURNAL_STREAM", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "MANAGERPID",
    "MANAGERPIDFDID", "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "CREDENTIALS_DIRECTORY",
    "MAINPID", "XDG_SESSION_ID", "XDG_SESSION_TYPE", "XDG_SESSION_CLASS", "XDG_SEAT", "XDG_VTNR",
)  # fmt: skip
"""What a service manager or a login tells its own children."""

_KEPT = ("resolve",)
"""What of systemd's folder others need: /etc/resolv.conf often points there."""


def build_lab_environment(environ: Mapping[str, str], *, connected: bool) -> dict[str, str]:
    """The environment of everything in the lab; pure."""
    dropped = {*_SERVICE, *(() if connected else _BUSES)}
    return {name: value for name, value in environ.items() if name not in dropped}


def hide_services(run: Path = RUN) -> None:
    """Cover the sockets of the host's buses, its service manager and its journal in this mount
    namespace. A host that has none of them, or does not let them be covered, stays as it is."""
    for folder in (run / "dbus", *run.glob("user/*/systemd")):
        _cover(folder)
    for socket in run.glob("user/*/bus"):
        with contextlib.suppress(OSError):
            linux.mount(str(_NOTHING), socket, "", linux.MS_BIND)
    _cover(run / "systemd", _KEPT)


def _cover(folder: Path, kept: tuple[str, ...] = ()) -> None:
    """Lay an empty file system over a folder, and what is to be kept of it over that."""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        found = {name: _open_place(folder / name, stack) for name in kept}
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        linux.mount("tmpfs", folder, "tmpfs", flags, "mode=755,size=64k")
        for name, place in found.items():
            if place is not None:
                (folder / name).mkdir()
                source = f"/proc/self/fd/{place}"
                linux.mount(source, folder / name, "", linux.MS_BIND | linux.MS_REC)


def _open_place(path: Path, stack: contextlib.ExitStack) -> int | None:
    """A descriptor that still leads to a folder once another file system lies over it."""
    with contextlib.suppress(OSError):
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, place)
        return place
    return None
