"""A small HTTP server that logs the body bytes it has sent: ``python -m harness.moves.server``.

A process of its own, so that serving takes no time from whoever measures. One line for each answer
on stdout: status, body bytes, path.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class FileServer(ThreadingHTTPServer):
    """Serves the files below ``root``."""

    def __init__(self, root: Path, address: str, port: int) -> None:
        super().__init__((address, port), _Handler)
        self.root = root


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"  # keeps the connection
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = unquote(self.path).strip("/").split("/")
        path = self.server.root.joinpath(*parts)
        if ".." in parts or not path.is_file():
            self._answer_missing()
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._send_head(200, size)
            sent = 0
            try:
                while sent < size:
                    count = os.sendfile(self.connection.fileno(), file.fileno(), sent, size - sent)
                    if count == 0:
                        break
                    sent += count
            finally:
                _log(200, sent, self.path)

    def _answer_missing(self) -> None:
        self._send_head(404, 0)
        _log(404, 0, self.path)

    def _send_head(self, status: int, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """What is logged is what was sent, and only afterwards."""


def _log(status: int, sent: int, path: str) -> None:
    os.write(1, f"{status} {sent} {path}\n".encode())


def main() -> None:
    root, address, port = sys.argv[1:]
    with FileServer(Path(root), address, int(port)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
