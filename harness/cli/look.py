"""How a run looks at its own ratios: in a process of its own, between two blocks.

The measuring process never loads what analyses. It would be some hundred megabytes larger from the
first look on, and libvirt's embedded driver starts every QEMU by a fork of this very process.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import harness
from harness.errors import HostError
from harness.pace import Judge
from harness.precision import Decision, parse_decision
from harness.process import run_command

_TIMEOUT_S = 600.0
_LOOK = (
    "import sys; from harness.analysis.precision import print_decision; "
    "print_decision(*sys.argv[1:])"
)


def build_judge(folder: Path, precision: float | None, say: Callable[[str], None]) -> Judge | None:
    """What looks at the run in ``folder``; None where no precision is wanted.

    A look that fails is said, and finds nothing narrow: the run goes on to the next.
    """
    if precision is None:
        return None

    def look(blocks: int) -> Decision:
        try:
            return parse_decision(ask_decision(folder, blocks, precision))
        except (HostError, ValueError, KeyError, TypeError) as error:
            say(f"the ratios after {blocks} blocks could not be looked at: {error}")
            return Decision(narrow=False, failed=True)

    return look


def ask_decision(folder: Path, blocks: int, precision: float) -> str:
    """The decision about the first ``blocks`` measured blocks as JSON; raises HostError."""
    argv = [sys.executable, "-c", _LOOK, str(folder), str(blocks), repr(precision)]
    package = str(Path(harness.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths)}
    return run_command(argv, timeout=_TIMEOUT_S, env=environment).stdout
