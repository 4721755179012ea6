"""How libvirt is opened: its log and events, a daemon within a bound, and what it must be able to.

A daemon of another host is reached over the network that the harness was started in: the lab's own
has no way out.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import linux, outer_network
from harness.drivers.libvirt_uri import (
    SESSION,
    build_opened,
    find_own_socket,
    is_embedded,
    is_remote,
    list_user_sockets,
    require_uri,
)
from harness.errors import HostError

LOG_NAME = "libvirt.log"
OPEN_BOUND_S = 10.0

_LOG_WARNINGS = 3  # libvirt's number for warnings and worse
_ALIVE_EVERY_S = 2
_ALIVE_MISSED = 3

FEATURES = {
    "an embedded driver": "6.1.0",
    "a guest's port as a stream": "1.0.2",
    "descriptions held against the schema": "1.2.17",
    "sparse uploads": "3.4.0",
    "disks whose chain is stated": "5.10.0",
    "the CPU with all that QEMU has": "7.1.0",
    "words in the SMBIOS table": "4.1.0",
    "folders shared by virtiofs": "6.2.0",
}
"""The libvirt that first had what is used here; from its release notes."""

DAEMON_FEATURES = (
    "a guest's port as a stream",
    "descriptions held against the schema",
    "sparse uploads",
    "disks whose chain is stated",
)
"""What every trial over a daemon uses."""


def prepare_libvirt(folder: Path | None) -> None:
    """Before the first connection: a log in ``folder``, not on stderr, and a thread for events."""
    log = folder / LOG_NAME if folder else os.devnull
    os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", f"{_LOG_WARNINGS}:file:{log}")
    os.environ.setdefault("LIBVIRT_LOG_FILTERS", "")
    _start_events()


@functools.cache
def _start_events() -> None:
    """A thread that serves libvirt's events as long as the process lives."""
    libvirt = _import_libvirt()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def serve() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=serve, name="libvirt-events", daemon=True).start()


def open_daemon(uri: str, bound: float = OPEN_BOUND_S) -> Any:
    """The connection to a daemon, alive and new enough; HostError within ``bound`` seconds."""
    require_uri(uri)
    require_own_daemon(uri)
    found: list[Any] = []

    def work() -> None:
        try:
            if is_remote(uri):
                outer_network.enter()
            found.append(open_connection(build_opened(uri)))
        except (HostError, OSError) as error:
            found.append(error)

    thread = threading.Thread(target=work, name="libvirt-open", daemon=True)
    thread.start()
    thread.join(bound)
    if not found:
        raise HostError(
            f"libvirt connection {uri}: no answer within {bound:g} s",
            hint=f"try it by hand: virsh --connect '{uri}' version",
        )
    if isinstance(found[0], OSError):
        raise HostError(
            f"libvirt connection {uri}: the lab of this user has no way to another host: "
            f"{found[0].strerror}",
            hint="run as root, or name a libvirt of this host",
        ) from found[0]
    if isinstance(found[0], HostError):
        raise found[0]
    with contextlib.suppress(_import_libvirt().libvirtError):  # not every transport has it
        found[0].setKeepAlive(_ALIVE_EVERY_S, _ALIVE_MISSED)
    require_features(uri, read_daemon_version(found[0]), DAEMON_FEATURES)
    return found[0]


def require_own_daemon(uri: str) -> None:
    """HostError for the session of an ordinary user whose daemon does not run.

    libvirt's client starts it by itself, but in the lab the user looks like root to it, and it goes
    to the system's daemon instead.
    """
    if uri != SESSION or linux.is_root_of_host() or find_own_socket() is not None:
        return
    places = " or ".join(map(str, list_user_sockets()))
    raise HostError(
        f"libvirt connection {uri}: this user's daemon does not run (no {places})",
        hint="start it with `virtqemud --daemon --timeout 3600`, or libvirtd in its place",
    )


def open_connection(uri: str) -> Any:
    """What libvirt gives for an address, however long that takes; HostError with what it says."""
    libvirt = _import_libvirt()
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        message = format_error(error)
        raise HostError(
            f"libvirt connection {uri}: {message}", hint=find_hint(uri, message)
        ) from error


def find_hint(uri: str, message: str) -> str:
    """What mends a connection that cannot be opened."""
    if is_embedded(uri.partition("?")[0]):
        return "`python -m harness doctor` names what is not installed"
    if "authenticat" in message or "polkit" in message:
        return (
            "as root: usermod -aG libvirt USER, then log in anew; "
            "without --connection the harness needs no daemon"
        )
    if "Failed to connect socket" in message or "connect to" in message:
        return (
            "start the daemon (systemctl start libvirtd, or virtqemud and virtstoraged); "
            "without --connection the harness needs none"
        )
    return "without a connection of your own the harness needs no daemon"


def read_daemon_version(connection: Any) -> int:
    """The version of the libvirt at the other end, as libvirt counts."""
    return int(connection.getLibVersion())


def require_features(uri: str, version: int, features: Iterable[str]) -> None:
    """HostError for the first feature that a libvirt of that version does not have."""
    for feature in features:
        if version < parse_version(FEATURES[feature]):
            raise HostError(
                f"libvirt connection {uri}: {feature} came with libvirt {FEATURES[feature]}, "
                f"and this is {format_version(version)}",
                hint="a newer libvirt there, or the embedded one, which is the default",
            )


def parse_version(text: str) -> int:
    """``9.0.0`` as libvirt counts: 9000000."""
    major, minor, release = map(int, text.split("."))
    return major * 1_000_000 + minor * 1_000 + release


def format_version(number: int) -> str:
    """9000000 as ``9.0.0``."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def format_error(error: Exception) -> str:
    """libvirt's message as one line; the last is the cause, above it may be QEMU's command."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _import_libvirt() -> Any:
    """The binding, when it is first needed: it is not on every host, and slow to load."""
    import libvirt

    return libvirt
