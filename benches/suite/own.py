"""What the harness costs its user: the wait for the command line, and for the analysis."""

from benches.__main__ import measure_help
from benches.suite.figure import Figure, as_figure, read_rounds


class CommandLine:
    """What a user waits for before anything is measured."""

    def track_help(self) -> Figure:
        return as_figure(measure_help(read_rounds(20)))

    track_help.unit = "seconds"  # type: ignore[attr-defined]
