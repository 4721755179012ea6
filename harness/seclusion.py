"""The host's buses, session manager and journal: what starts in the lab does not see them.

They count processes and name machines by the host's namespaces, in which the lab's mean something
else; and what a run does is none of their business. A client of D-Bus is told an address where
nobody is; for those whose address is built in (journald's sockets, systemd's own) nothing is behind
it any more.

Sources: DBus specification («well-known message bus instances»), sd-daemon(3), sd_notify(3).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import lab, linux

_NOWHERE = "unix:path=/nonexistent"
_BUSES = ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS")
_CALLED_BACK = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_PID", "WATCHDOG_USEC")
_FOLDERS = ("/run/dbus", "/run/systemd")
_USERS = ("bus", "dbus-1", "systemd")
"""Below the folder of a user's session (``XDG_RUNTIME_DIR``)."""
_SYSLOG = Path("/dev/log")


def enter() -> None:
    """From now on nothing that this process starts in the lab finds them. Safe to call twice."""
    os.environ.update(dict.fromkeys(_BUSES, _NOWHERE))
    for name in _CALLED_BACK:
        os.environ.pop(name, None)
    if not lab.is_inside():  # mounts are the host's there
        return
    for path in list(list_sockets(os.environ)):
        with contextlib.suppress(OSError):
            linux.mount(os.devnull, path, "", linux.MS_BIND)


def list_sockets(environment: Mapping[str, str]) -> Iterator[Path]:
    """The sockets at which the host's services listen."""
    session = environment.get("XDG_RUNTIME_DIR")
    places = [Path(each) for each in _FOLDERS]
    places += [Path(session, each) for each in _USERS] if session else []
    for place in places:
        for path in (place, *place.rglob("*")):
            if _is_socket(path):
                yield path
    if _is_socket(_SYSLOG) and not _SYSLOG.is_symlink():
        yield _SYSLOG


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket() and not path.is_symlink()
    except OSError:
        return False
