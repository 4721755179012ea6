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
