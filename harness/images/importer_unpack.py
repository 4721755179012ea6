"""Compressed files made plain, within a limit that holds while they are read, not afterwards."""

import bz2
import gzip
import lzma
import signal
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, HostError, InputError
from harness.images.workshop import MAKE_ROOM
from harness.process import Completed, run_command, says_full
from harness.units import format_bytes

LIMIT = 20 << 30
"""How large an image may get when it is unpacked, unless told otherwise."""

_TIMEOUT = 900.0
_CHUNK = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ": lzma.open,
    b"BZh": bz2.open,
}
_XFSZ = (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)
_TOO_LARGE = "file too large"  # EFBIG: strerror(3) begins it with a capital, Go does not


@dataclass(slots=True)
class Budget:
    """How many bytes an import may still unpack. The whole of it is one limit."""

    limit: int = LIMIT
    used: int = 0

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    def take(self, count: int, source: object) -> None:
        """Count bytes that were unpacked; raises InputError where they are too many."""
        self.used += count
        if self.used > self.limit:
            raise self.exceeded(source)

    def exceeded(self, source: object) -> InputError:
        return InputError(
            f"{source} holds more than {format_bytes(self.limit)}",
            hint="if that is right, allow more with --limit",
        )


def decompress(source: Path, out: Path, budget: Budget, name: object = None) -> Path:
    """``source`` itself if it is not compressed, else its plain content in ``out``.

    ``name`` is what errors call it. Raises InputError for one that is broken or too large.
    """
    with source.open("rb") as file:
        head = file.read(8)
    if head.startswith(_ZSTD_MAGIC):
        _decompress_zstd(source, out, budget, name or source)
        return out
    opener = next((found for magic, found in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        budget.take(source.stat().st_size, name or source)
        return source
    try:
        with opener(source) as packed, out.open("wb") as plain:
            while chunk := packed.read(_CHUNK):
                budget.take(len(chunk), name or source)
                plain.write(chunk)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
        # What the disk says has a number; gzip and bz2 raise OSErrors of their own without one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{name or source} is cut short or broken: {error}") from error
    return out


def run_limited(
    argv: Sequence[str | Path],
    budget: Budget,
    name: object,
    run: Callable[..., Completed] = run_command,
    **options: Any,
) -> Completed:
    """Run a tool that may write no file larger than what the budget has left."""
    limited = ["prlimit", f"--fsize={budget.left + 1}", "--", *argv]
    done = run(limited, timeout=_TIMEOUT, check=False, **options)
    if done.returncode in _XFSZ or _TOO_LARGE in done.stderr.lower():
        raise budget.exceeded(name)
    return done


def explain(name: object, done: Completed) -> HarnessError:
    """Why a tool failed, in one line: its own words, or that the disk is full."""
    lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    # skopeo logs time="…" level=fatal msg="…".
    reason = lines[-1].partition(' msg="')[2].removesuffix('"') or lines[-1]
    if says_full(done.stderr):
        return HostError(f"{name} cannot be unpacked: no space left on the disk", hint=MAKE_ROOM)
    return InputError(f"{name} cannot be read: {reason}")


def _decompress_zstd(source: Path, out: Path, budget: Budget, name: object) -> None:
    command: list[str | Path] = ["zstd", "-q", "-d", "-f", "--no-sparse", source, "-o", out]
    done = run_limited(command, budget, name)
    if done.returncode != 0:
        error = explain(name, done)
        if isinstance(error, HostError):
            raise error
        raise InputError(f"{name} is cut short or broken: {error.message}")
    budget.take(out.stat().st_size, name)
