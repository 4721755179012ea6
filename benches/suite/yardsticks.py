"""The drivers beside yardsticks that do the same work: what the harness itself adds.

Ratios within one interleaved run, so that noise cancels out.
"""

from collections.abc import Mapping, Sequence

from benches.calibration import measure_calibration
from benches.containers import measure_containers
from benches.engines import ENGINES, measure_engines
from benches.machines import measure_machines
from benches.suite.figure import Figure, as_figure, divide, read_rounds

Samples = Mapping[str, Sequence[float]]


class Containers:
    """`namespace` beside its yardsticks."""

    timeout = 300

    def setup_cache(self) -> Samples:
        return measure_containers(read_rounds(30))

    def track_namespace_to_c_program(self, samples: Samples) -> Figure:
        return divide(samples, "namespace", "reference")

    def track_namespace_to_crun(self, samples: Samples) -> Figure:
        return divide(samples, "namespace", "crun")

    track_namespace_to_c_program.unit = "ratio"  # type: ignore[attr-defined]
    track_namespace_to_crun.unit = "ratio"  # type: ignore[attr-defined]


class Engines:
    """Each engine as the harness runs it, beside its own command line."""

    timeout = 900

    def setup_cache(self) -> Samples:
        return measure_engines(read_rounds(20))

    def track_to_by_hand(self, samples: Samples, engine: str) -> Figure:
        return divide(samples, engine, f"{engine}.hand")

    track_to_by_hand.params = (list(ENGINES),)  # type: ignore[attr-defined]
    track_to_by_hand.param_names = ("engine",)  # type: ignore[attr-defined]
    track_to_by_hand.unit = "ratio"  # type: ignore[attr-defined]


class Machines:
    """libvirt's virtual machines beside the same QEMU by hand."""

    timeout = 600

    def setup_cache(self) -> Samples:
        return measure_machines(read_rounds(8))

    def track_to_by_hand(self, samples: Samples, platform: str) -> Figure:
        return divide(samples, f"{platform}.guest", f"{platform}.hand")

    track_to_by_hand.params = (["vm-direct", "vm-microvm"],)  # type: ignore[attr-defined]
    track_to_by_hand.param_names = ("platform",)  # type: ignore[attr-defined]
    track_to_by_hand.unit = "ratio"  # type: ignore[attr-defined]


class Calibration:
    """Reported less true delay."""

    timeout = 600

    def setup_cache(self) -> Mapping[tuple[str, float], Sequence[float]]:
        return measure_calibration(read_rounds(8))

    def track_error(
        self, found: Mapping[tuple[str, float], Sequence[float]], platform: str, delay: float
    ) -> Figure:
        return as_figure([value - delay for value in found.get((platform, delay), ())])

    track_error.params = (["process", "namespace"], [0.0, 0.02, 0.2])  # type: ignore[attr-defined]
    track_error.param_names = ("platform", "delay")  # type: ignore[attr-defined]
    track_error.unit = "seconds"  # type: ignore[attr-defined]
