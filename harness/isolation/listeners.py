"""Services of the host that an instance should not reach, each of which says a word of its own.

The host is the lab here: it has a loopback, a bridge, abstract Unix sockets and files of its own.
"""

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness import lab

LOOPBACK, BRIDGE, ABSTRACT, FILE = "host-loopback", "host-bridge", "host-abstract", "host-file"


@contextlib.contextmanager
def start_listeners(folder: Path) -> Iterator[Mapping[str, tuple[str, str]]]:
    """Listen on the host; yields the agent's word for each target and what it says, by name.

    The bridge is left out where the lab has none. All are closed at the end.
    """
    with contextlib.ExitStack() as stack:
        found: dict[str, tuple[str, str]] = {}
        for name, listener, target in _open_all(folder):
            token = secrets.token_hex(8)
            stack.callback(_close, listener)
            threading.Thread(target=_answer, args=(listener, token), daemon=True).start()
            found[name] = (target, token)
        yield found


def _open_all(folder: Path) -> Iterator[tuple[str, socket.socket, str]]:
    for name, address in ((LOOPBACK, "127.0.0.1"), (BRIDGE, lab.GATEWAY)):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind((address, 0))
        except OSError:  # a lab without a network of its own
            listener.close()
            continue
        listener.listen()
        yield name, listener, f"tcp:{address}:{listener.getsockname()[1]}"
    abstract = f"harness-{secrets.token_hex(4)}"
    path = folder / "host.sock"
    path.unlink(missing_ok=True)
    for name, where, target in (
        (ABSTRACT, f"\0{abstract}", f"abstract:{abstract}"),
        (FILE, str(path), f"path:{path}"),
    ):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(where)
        listener.listen()
        yield name, listener, target


def _answer(listener: socket.socket, token: str) -> None:
    with contextlib.suppress(OSError):  # closed: the run is over
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(token.encode())


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)  # wakes its thread; close alone does not
    listener.close()
