"""`python -m harness`: the only place that ends the process, and that shows errors.

Every error is one line on stderr; a traceback reaches the user only with --debug.
"""

import os
import sys
from collections.abc import Callable, Sequence

from harness.errors import HarnessError, HostError

DEBUG = "--debug"
INTERNAL_ERROR = 70
INTERRUPTED = 130
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
    except HarnessError as error:
        if DEBUG in arguments:
            raise
        return _show(f"error: {error}", error.exit_code)
    except OSError as error:
        if DEBUG in arguments:
            raise
        return _show(f"error: {_describe(error)}", HostError.exit_code)
    except Exception as error:
        if DEBUG in arguments:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        hint = f"a fault of the harness; {DEBUG} shows where"
        return _show(f"internal error: {reason} ({hint})", INTERNAL_ERROR)


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


def _describe(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _show(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


def run() -> None:
    """The installed command `harness`."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
