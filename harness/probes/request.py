"""The first successful request from the host: when does a service really answer?"""

import socket
from urllib.parse import urlsplit

from harness.errors import InputError, TrialError
from harness.starter import read_clock

_NANOSECONDS = 1_000_000_000
_ATTEMPT_S = 1.0


def parse_request(url: str) -> tuple[int, str]:
    """(port, path) of a workload's ``http://:8080/path``; raises InputError for another form."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname or parts.port is None:
        raise InputError(f"request {url!r} cannot be sent", hint='write "http://:8080/path"')
    return parts.port, parts.path or "/"


def request_first_answer(address: str, port: int, path: str, deadline: int) -> int:
    """GET until the first answer with a status below 400; its CLOCK_MONOTONIC ns.

    A refused or unanswered attempt is made again at once until ``deadline``; then TrialError.
    """
    problem = "no attempt was made"
    while read_clock() < deadline:
        try:
            status = _get(address, port, path, deadline)
        except OSError as error:
            problem = str(error) or type(error).__name__
            continue
        stamp = read_clock()
        if status < 400:
            return stamp
        problem = f"HTTP status {status}"
    raise TrialError(f"no successful answer from http://{address}:{port}{path}: {problem}")


def _get(address: str, port: int, path: str, deadline: int) -> int:
    left = max(0.001, (deadline - read_clock()) / _NANOSECONDS)
    with socket.create_connection((address, port), timeout=min(_ATTEMPT_S, left)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        head = connection.recv(4096)
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise ConnectionError("the answer is not HTTP")
    return int(words[1])
