"""What it takes to move an image: bytes that an HTTP server sent for every file of a packing."""

import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness.drivers.base import Packed
from harness.model import Measurement

TRANSPORTS = (
    "oci-gzip", "oci-zstd", "qcow2", "raw-zstd", "squashfs", "erofs", "disk-qcow2",
    "disk-raw-zstd", "snapshot-zstd",
)  # fmt: skip
"""Packings that travel; the others are only what an instance runs from."""

_CHUNK = 1 << 20


def measure_first(packed: Sequence[Packed]) -> list[Measurement]:
    """``portability.first`` of each travelling packing; the headline row is the smallest."""
    rows = [
        Measurement("portability.first", _transfer(each.paths), each.packing)
        for each in packed
        if each.packing in TRANSPORTS
    ]
    if rows:
        rows.append(Measurement("portability.first", min(row.value for row in rows)))
    return rows


def _transfer(paths: Sequence[Path]) -> int:
    """Fetch every file over loopback; the body bytes that the server counted."""
    files = [file for path in paths for file in _files_of(path)]
    with start_server(files) as server:
        for number in range(len(files)):
            url = f"http://127.0.0.1:{server.server_port}/{number}"
            with urllib.request.urlopen(url, timeout=60) as answer:
                while answer.read(_CHUNK):
                    pass
    return server.sent  # complete only now: the server's threads have ended


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


class CountingServer(ThreadingHTTPServer):
    """Serves a list of files by number and counts the bytes of every body it sent."""

    daemon_threads = False

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.sent = 0


class _Handler(BaseHTTPRequestHandler):
    server: CountingServer

    def do_GET(self) -> None:
        path = self.server.files[int(self.path.lstrip("/"))]
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.wfile.write(chunk)
                self.server.sent += len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: stderr is for people."""


@contextmanager
def start_server(files: Sequence[Path]) -> Iterator[CountingServer]:
    """Serve ``files`` on a free loopback port."""
    with CountingServer(files) as server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="portability"
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
