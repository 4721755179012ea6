"""Addresses of libvirt: what they may be, and whether they lead to another host.

Format: https://libvirt.org/uri.html
"""

import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, urlsplit

from harness.errors import InputError

EMBEDDED = "qemu:///embed"
SESSION = "qemu:///session"
_SYSTEM = "/system"
_USER_SOCKETS = ("libvirt/virtqemud-sock", "libvirt/libvirt-sock")


def is_embedded(uri: str | None) -> bool:
    """Whether libvirt runs inside this process."""
    return uri is None or uri == EMBEDDED


def is_remote(uri: str | None) -> bool:
    """Whether libvirt may be on another host: nothing of this one is visible there."""
    if uri is None:
        return False
    parts = urlsplit(uri)
    transport = _find_transport(parts)
    return bool(parts.hostname) or transport not in ("", "unix")


def is_system(uri: str) -> bool:
    """Whether the daemon is the system's, not a user's own."""
    return urlsplit(uri).path == _SYSTEM


def require_uri(uri: str) -> str:
    """The address if it can be one of QEMU's; InputError with what is wrong."""
    parts = urlsplit(uri)
    if parts.password is not None:
        raise InputError(
            "an address with a password would be kept with the results",
            hint="leave it out: libvirt reads it from its auth.conf, ssh from its own files",
        )
    if parts.scheme.partition("+")[0] != "qemu":
        raise InputError(
            f"{uri!r} is no address of libvirt's QEMU driver",
            hint="such as qemu:///system, qemu:///session or qemu+ssh://host/system",
        )
    return uri


def build_opened(uri: str) -> str:
    """The address as it is opened: ssh must not ask on the terminal that the run has, and a user,
    who is root in the lab, still means the daemon of his own."""
    if uri == SESSION:
        own = find_own_socket()
        return f"qemu+unix:///session?socket={own}" if own else uri
    parts = urlsplit(uri)
    if _find_transport(parts) != "ssh" or "no_tty" in parse_qs(parts.query):
        return uri
    return f"{uri}{'&' if parts.query else '?'}no_tty=1"


def list_user_sockets() -> list[Path]:
    """Where a user's own daemon listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or os.path.expanduser("~/.cache")
    return [Path(runtime, each) for each in _USER_SOCKETS]


def find_own_socket() -> Path | None:
    """The socket of a user's own daemon, if it runs."""
    return next((path for path in list_user_sockets() if path.is_socket()), None)


def find_socket(uri: str) -> str | None:
    """The socket that an address of this host names itself."""
    found = parse_qs(urlsplit(uri).query).get("socket")
    return found[0] if found else None


def _find_transport(parts: SplitResult) -> str:
    return parts.scheme.partition("+")[2]
