"""A lean HTTP client: files over one kept connection, in this process, without a thread."""

import http.client
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import TrialError
from harness.moves.link import Host

_BUFFER = 1 << 20


@contextmanager
def start_client(client: Host, address: str, port: int, wait: float) -> Iterator["Client"]:
    """A connection in ``client``'s network. ``wait`` is the longest silence in seconds."""
    connection = http.client.HTTPConnection(address, port, timeout=wait)
    try:
        with client.enter():
            connection.connect()
        yield Client(connection)
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # a file of ours, not the connection
        raise TrialError(f"the transfer broke off: {error or type(error).__name__}") from error
    finally:
        connection.close()


class Client:
    """Fetches files over one connection."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def fetch(self, path: str, out: Path) -> int:
        """GET ``path`` into the new file ``out``; its bytes. TrialError for less than all."""
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        if answer.status != 200:
            raise TrialError(f"the server answers {path} with {answer.status}")
        whole, got = int(answer.headers["Content-Length"]), 0
        buffer = memoryview(bytearray(_BUFFER))
        with out.open("xb", buffering=0) as file:
            while count := answer.readinto(buffer):
                _write_all(file.fileno(), buffer[:count], out)
                got += count
        if got < whole:
            raise TrialError(f"the transfer of {path} broke off after {got} of {whole} bytes")
        return got


def _write_all(file: int, data: memoryview, path: Path) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError as error:
        error.filename = str(path)  # says where, as an error of open() does
        raise
