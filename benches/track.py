"""The same figures as an asv suite: ratios within one interleaved run, so that noise cancels out.

asv keeps the distribution behind a figure when a `track_` function returns its samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import benches.__main__ as figures
from benches.calibration import measure_calibration
from benches.containers import measure_containers
from benches.machines import measure_machines

Figure = Mapping[str, Any]


def as_figure(samples: Sequence[float]) -> Figure:
    return {"samples": list(samples), "number": 1}


def divide(samples: Mapping[str, Sequence[float]], name: str, to: str) -> Figure:
    """Ratios of two measures, paired by round."""
    return as_figure([a / b for a, b in zip(samples[name], samples[to], strict=True)])


class Containers:
    """`namespace` beside its yardsticks."""

    timeout = 300

    def setup_cache(self) -> Mapping[str, Sequence[float]]:
        return measure_containers(30)

    def track_namespace_to_c_program(self, samples: Mapping[str, Sequence[float]]) -> Figure:
        return divide(samples, "namespace", "reference")

    def track_namespace_to_crun(self, samples: Mapping[str, Sequence[float]]) -> Figure:
        return divide(samples, "namespace", "crun")

    def track_namespace_ready(self, samples: Mapping[str, Sequence[float]]) -> Figure:
        return as_figure(samples["namespace"])

    track_namespace_to_c_program.unit = "ratio"  # type: ignore[attr-defined]
    track_namespace_to_crun.unit = "ratio"  # type: ignore[attr-defined]
    track_namespace_ready.unit = "seconds"  # type: ignore[attr-defined]


class Machines:
    """libvirt's virtual machines beside the same QEMU by hand."""

    timeout = 600

    def setup_cache(self) -> Mapping[str, Sequence[float]]:
        return measure_machines(8)

    def track_direct_to_hand(self, samples: Mapping[str, Sequence[float]]) -> Figure:
        return divide(samples, "vm-direct.guest", "vm-direct.hand")

    def track_microvm_to_hand(self, samples: Mapping[str, Sequence[float]]) -> Figure:
        return divide(samples, "vm-microvm.guest", "vm-microvm.hand")

    track_direct_to_hand.unit = "ratio"  # type: ignore[attr-defined]
    track_microvm_to_hand.unit = "ratio"  # type: ignore[attr-defined]


class Calibration:
    """Reported less true delay."""

    timeout = 600

    def setup_cache(self) -> Mapping[tuple[str, float], Sequence[float]]:
        return measure_calibration(8)

    def track_error(
        self, found: Mapping[tuple[str, float], Sequence[float]], platform: str, delay: float
    ) -> Figure:
        return as_figure([value - delay for value in found[platform, delay]])

    track_error.params = (["process", "namespace"], [0.0, 0.02, 0.2])  # type: ignore[attr-defined]
    track_error.param_names = ("platform", "delay")  # type: ignore[attr-defined]
    track_error.unit = "seconds"  # type: ignore[attr-defined]


class CommandLine:
    """What a user waits for before anything is measured."""

    def track_help(self) -> Figure:
        return as_figure(figures.time_help(20))

    track_help.unit = "seconds"  # type: ignore[attr-defined]
