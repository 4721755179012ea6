"""`python -m harness`: the only place that ends the process, and that shows errors.

Every error is one line on stderr; a traceback reaches the user only with --debug.
"""

import codecs
import io
import locale
import os
import sys
from collections.abc import Callable, Sequence

from harness.errors import (
    HarnessError,
    HostError,
    InternalError,
    describe_os_error,
    describe_unexpected,
)

DEBUG = "--debug"
INTERRUPTED = 130
_FAULT = f"a fault of the harness; {DEBUG} shows where"
_ADMIN_FOLDERS = ("/usr/sbin", "/sbin")


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns its exit code."""
    # Debian leaves these out of a user's PATH, and mke2fs and ip live there.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *_ADMIN_FOLDERS])
    words = [word for word in arguments if word != DEBUG]
    try:
        return _find_entry(words)(words)
    except KeyboardInterrupt:
        return _show("interrupted", INTERRUPTED)
    except Exception as error:
        if DEBUG in arguments:
            raise
        return _show(*_describe(error))


def _find_entry(words: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The command line proper; without click there is still `doctor`, to say what is missing."""
    try:
        import click  # noqa: F401 - is it there?
    except ModuleNotFoundError:
        if words[:1] == ["doctor"]:
            from harness import doctor

            return lambda rest: doctor.main("--json" in rest)
        raise HostError(
            "the harness is not set up for this Python", hint="`make run` sets it up"
        ) from None
    from harness import cli

    return cli.run_words


def _describe(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    if isinstance(error, InternalError):
        return f"internal error: {error.message} ({_FAULT})", error.exit_code
    if isinstance(error, HarnessError):
        return f"error: {error}", error.exit_code
    if isinstance(error, OSError):
        return f"error: {describe_os_error(error)}", HostError.exit_code
    return f"internal error: {describe_unexpected(error)} ({_FAULT})", InternalError.exit_code


def _show(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


def run() -> None:
    """The installed command `harness`."""
    _require_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of a file may be no text at all
            stream.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))


def _require_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale has another encoding.

    Files, their names and what other programs say are UTF-8 then, as everywhere; the terminal keeps
    its own encoding, with a substitute for each letter that it lacks.
    """
    encoding = locale.getencoding()
    if sys.flags.utf8_mode or codecs.lookup(encoding).name == "utf-8":
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:replace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    run()
