"""What the harness costs its user: the wait for the command line, and for the analysis."""

from collections.abc import Mapping, Sequence

from benches.__main__ import measure_help
from benches.analysis import measure_analysis
from benches.suite.figure import Figure, as_figure, read_rounds


class CommandLine:
    """What a user waits for before anything is measured."""

    def track_help(self) -> Figure:
        return as_figure(measure_help(read_rounds(20)))

    track_help.unit = "seconds"  # type: ignore[attr-defined]


class Analysis:
    """A million samples, from the file to the verdicts, in a process of its own."""

    timeout = 600

    def setup_cache(self) -> Mapping[str, Sequence[float]]:
        runs = [measure_analysis(looped=5) for _ in range(read_rounds(3))]
        return {name: [each[name] for each in runs] for name in ("seconds", "peak_bytes")}

    def track_seconds(self, found: Mapping[str, Sequence[float]]) -> Figure:
        return as_figure(found["seconds"])

    def track_peak_memory(self, found: Mapping[str, Sequence[float]]) -> Figure:
        return as_figure(found["peak_bytes"])

    track_seconds.unit = "seconds"  # type: ignore[attr-defined]
    track_peak_memory.unit = "bytes"  # type: ignore[attr-defined]
