"""Files with holes: where their data lies, and how to read it one piece after the other."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from harness.images.rootfs import Span, Sparse

_BLOCK = 4096
_CHUNK = 256 * _BLOCK
_TAR_BLOCK = 512


def normalize(sparse: Sparse) -> Sparse:
    """The same file with every block of zeros a hole: whoever wrote it, the pieces are the same.

    Pieces that do not begin at a block keep their first bytes as they are.
    """
    found: list[tuple[int, Span]] = []
    for position, span in sparse.pieces:
        for at, size in _find_data(span, position):
            found.append((at, Span(span.path, span.offset + at - position, size)))
    return Sparse(_join(found), sparse.size)


def build_map(sparse: Sparse) -> bytes:
    """The map before the data, in GNU's sparse format 1.0: decimal numbers, one a line.

    A file that ends with a hole has an empty piece there, as GNU tar writes it.
    """
    pieces = [(position, span.size) for position, span in sparse.pieces]
    last = pieces[-1] if pieces else (0, 0)
    if sum(last) < sparse.size or not pieces:
        pieces.append((sparse.size, 0))
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    return text + bytes(-len(text) % _TAR_BLOCK)


@contextmanager
def open_pieces(
    content: Span | Sparse, before: bytes = b"", *, holes: bool = True
) -> Iterator[IO[bytes]]:
    """A file that reads ``before`` and then the content; without ``holes`` its data alone."""
    chunks = _read_chunks(content, before, holes)
    yield cast(IO[bytes], io.BufferedReader(_Chunks(chunks), _CHUNK))


class _Chunks(io.RawIOBase):
    """Pieces of bytes as one stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # typeshed's Buffer is 3.12's
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _read_chunks(content: Span | Sparse, before: bytes, holes: bool) -> Iterator[bytes]:
    if before:
        yield before
    if isinstance(content, Span):
        yield from _read_span(content)
        return
    done = 0
    for position, span in content.pieces:
        if holes:
            yield from _read_zeros(position - done)
        yield from _read_span(span)
        done = position + span.size
    if holes:
        yield from _read_zeros(content.size - done)


def _read_span(span: Span) -> Iterator[bytes]:
    with span.path.open("rb", buffering=0) as file:
        file.seek(span.offset)
        left = span.size
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk


def _read_zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, _CHUNK))
        count -= _CHUNK


def _find_data(span: Span, position: int) -> Iterator[tuple[int, int]]:
    """(position in the file, length) of each block of a piece that is not all zeros."""
    at = position
    pending = b""
    for chunk in _read_span(span):
        pending += chunk
        start = 0
        while size := _next_size(at, len(pending) - start):
            if pending[start : start + size].strip(b"\0"):
                yield at, size
            start, at = start + size, at + size
        pending = pending[start:]
    if pending.strip(b"\0"):
        yield at, len(pending)


def _next_size(at: int, available: int) -> int:
    """Up to the next block's end; 0 where that has not been read yet."""
    size = _BLOCK - at % _BLOCK
    return size if size <= available else 0


def _join(pieces: list[tuple[int, Span]]) -> tuple[tuple[int, Span], ...]:
    joined: list[tuple[int, Span]] = []
    for position, span in pieces:
        if joined:
            before, last = joined[-1]
            follows = before + last.size == position and last.offset + last.size == span.offset
            if follows and last.path == span.path:
                joined[-1] = (before, Span(last.path, last.offset, last.size + span.size))
                continue
        joined.append((position, span))
    return tuple(joined)
