"""The one family of errors that a user may see.

The library raises; only ``harness.__main__`` prints and exits.
"""


class HarnessError(Exception):
    """Something the user can understand and mend.

    ``message`` names the thing and the reason, ``hint`` the remedy; both are one line.
    ``exit_code`` is what the command line ends with (INTERFACE: 2 usage or input, 3 host cannot).
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(HarnessError):
    """Wrong usage: a plan, workload, option, folder or name that cannot be right."""


class HostError(HarnessError):
    """This host cannot do what was asked: something is missing or forbidden here."""

    exit_code = 3


class TrialError(HarnessError):
    """One trial failed; the run goes on and the trial is stored with its evidence."""

    exit_code = 1


class InternalError(HarnessError):
    """An exception that nobody expected, in another process of the harness: a fault of its own."""

    exit_code = 70


KINDS: dict[str, type[HarnessError]] = {
    each.__name__: each for each in (HarnessError, InputError, HostError, TrialError, InternalError)
}
"""The whole family by name: an error that crosses processes is raised again as what it was."""


def describe_unexpected(error: BaseException) -> str:
    """An exception that is not of the family, in one line: its type and its words."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")


def describe_os_error(error: OSError) -> str:
    """A refusal of the kernel in one line: the file, if one is known, and the reason."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


SET_UP_HINT = "`make run` sets it up"
"""What mends a Python package that is not there."""


def describe_import(error: ImportError) -> str:
    """A Python package that is not there, or does not load, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is not installed"
    return f"a Python package does not load: {error}"
