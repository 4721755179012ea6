"""The journal: every trial of a run, one JSON object a line, on the disk before the next starts.

Format. The first line is a header, ``{"schema_version": 1, "run_id": …}``; every other line is
one `harness.model.Outcome` by field name. A line counts once its newline is there: what follows
the last newline was cut off by a crash, is ignored by readers and removed by the next writer.
Lines are ASCII (JSON escapes), so that no cut can fall inside a character.

History. 1: first release.
"""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from harness.errors import HarnessError, HostError, InputError
from harness.model import SCHEMA_VERSION, Outcome
from harness.store.names import sync_folder

_OUTCOMES = msgspec.json.Decoder(Outcome)


class Journal:
    """An open journal that outcomes are appended to. One writer at a time holds its lock."""

    def __init__(self, path: Path, run_id: str) -> None:
        """Open or make the journal at ``path``; cuts off what a crash left of a last line."""
        self.path = path
        self._file: BinaryIO = path.open("ab+", buffering=0)
        try:
            self._lock()
            self._end = _find_end(self._read())
            os.ftruncate(self._file.fileno(), self._end)
            if self._end == 0:
                self._write(_encode({"schema_version": SCHEMA_VERSION, "run_id": run_id}))
                sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    def append(self, *outcomes: Outcome) -> None:
        """Add trials, more than one at once where they belong together, and return when they are
        on the disk. Raises HostError if they cannot be."""
        self._write(b"".join(map(encode_outcome, outcomes)))

    def drop_last(self, count: int) -> None:
        """Cut off the last ``count`` trials: they belong to something that did not come to its
        end and begins anew."""
        lines = self._read()[: self._end].splitlines(keepends=True)
        self._end -= sum(map(len, lines[len(lines) - count :]))
        os.ftruncate(self._file.fileno(), self._end)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file and its lock. Safe to call twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self.path} is being written by another run", hint="wait for it, or end it"
            ) from None

    def _read(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), self._end)  # half a line would swallow the next
            raise HostError(
                f"{self.path} cannot be written: {error.strerror}",
                hint="free some space, then go on with --resume",
            ) from error
        self._end += len(line)


def read_journal(path: Path) -> list[Outcome]:
    """Every trial that was recorded whole, in the order it ended.

    Raises InputError where there is no journal, for another schema version, and for a damaged
    line, naming its number; an unfinished last line is no damage.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="name a result folder of `run`"
        ) from error
    lines = data[: _find_end(data)].splitlines()
    if not lines:
        return []
    require_schema(_parse_line(path, 1, lines[0]), path)
    return [_parse_outcome(path, number, line) for number, line in enumerate(lines[1:], start=2)]


def is_being_written(path: Path) -> bool:
    """Whether a run is at work: it holds its journal's lock from the first trial to the last."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def require_schema(document: Mapping[str, object], path: Path) -> None:
    """Raise InputError unless ``document`` has the schema version this release reads."""
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        found = "no schema version" if version is None else f"schema version {version}"
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        raise InputError(
            f"{path} has {found}, this release reads version {SCHEMA_VERSION}",
            hint="use a newer release" if newer else "use the release that wrote it",
        )


def encode_outcome(outcome: Outcome) -> bytes:
    """The journal line of ``outcome``. A value that is no number is an error, never a zero."""
    for row in outcome.measurements:
        if not math.isfinite(row.value):
            raise HarnessError(f"{row.metric} of trial {outcome.trial} is {row.value}, no number")
    return _encode(asdict(outcome))


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=str).encode("ascii") + b"\n"


def _find_end(data: bytes) -> int:
    """Length of the part that was written whole: up to and with the last newline."""
    return data.rfind(b"\n") + 1


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise InputError(
            f"{path}, line {number}: damaged, not a JSON object",
            hint="remove that line to go on without its trial",
        )
    return document


def _parse_outcome(path: Path, number: int, line: bytes) -> Outcome:
    try:
        return _OUTCOMES.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # the slower way says what is wrong, and takes what JSON does not have, such as NaN
    document = _parse_line(path, number, line)
    try:
        return msgspec.convert(document, Outcome)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{path}, line {number}: not a trial: {error}",
            hint="remove that line to go on without its trial",
        ) from None
