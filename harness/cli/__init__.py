"""The command line: what users type becomes plain data for the rooms behind it. No logic.

Commands import what they need when they run, so that `--help` answers at once.
"""

from collections.abc import Sequence

import click

from harness import __version__
from harness.cli.compare import compare
from harness.cli.images import images
from harness.cli.isolation import isolation
from harness.cli.layers import layers
from harness.cli.measure import clean, run
from harness.cli.publish import publish
from harness.cli.show import doctor, list_things, report
from harness.errors import InputError

PROGRAM = "python -m harness"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="container-or-vm")
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback on errors.")
def harness() -> None:
    """Measure one workload as a container and as a virtual machine, fairly, on this host."""


for _command in (
    doctor, list_things, run, layers, isolation, report, compare, publish, images, clean,
):  # fmt: skip
    harness.add_command(_command)


def run_words(words: Sequence[str]) -> int:
    """Carry out one command line; returns its exit code, raises InputError for wrong usage."""
    try:
        code = harness.main(list(words), prog_name=PROGRAM, standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else PROGRAM
        raise InputError(_format_usage(error), hint=f"see {path} --help") from None
    except click.ClickException as error:
        raise InputError(error.format_message()) from None
    return code if isinstance(code, int) else 0


def _format_usage(error: click.UsageError) -> str:
    return " ".join(error.format_message().split()).rstrip(".")
