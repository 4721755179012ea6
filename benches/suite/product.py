"""What the product says: start, memory and bytes per platform, and machines beside a container.

One run of the command line's own, in randomised blocks; every figure is read from its samples.
"""

from collections.abc import Mapping

from benches.product import CONTAINER, MACHINES, PLATFORMS, Values, measure_product
from benches.suite.figure import Figure, as_figure, read_rounds

_METRICS = ["startup.ready", "memory.pss"]


class Product:
    """Figures of one run of `noop` on `tiny`."""

    timeout = 900

    def setup_cache(self) -> Mapping[tuple[str, str], Values]:
        return measure_product(read_rounds(10))

    def track_startup(self, found: Mapping[tuple[str, str], Values], platform: str) -> Figure:
        return as_figure(list(found.get((platform, "startup.ready"), {}).values()))

    def track_memory(self, found: Mapping[tuple[str, str], Values], platform: str) -> Figure:
        return as_figure(list(found.get((platform, "memory.pss"), {}).values()))

    def track_bytes_to_ship(self, found: Mapping[tuple[str, str], Values], platform: str) -> Figure:
        return as_figure(list(found.get((platform, "portability.first"), {}).values()))

    def track_machine_to_container(
        self, found: Mapping[tuple[str, str], Values], platform: str, metric: str
    ) -> Figure:
        """Paired by block, as in the report."""
        machine, container = (found.get((name, metric), {}) for name in (platform, CONTAINER))
        return as_figure(
            [machine[block] / container[block] for block in machine.keys() & container]
        )

    for _track, _unit in (
        (track_startup, "seconds"),
        (track_memory, "bytes"),
        (track_bytes_to_ship, "bytes"),
    ):
        _track.params = (list(PLATFORMS),)  # type: ignore[attr-defined]
        _track.param_names = ("platform",)  # type: ignore[attr-defined]
        _track.unit = _unit  # type: ignore[attr-defined]
    track_machine_to_container.params = (list(MACHINES), _METRICS)  # type: ignore[attr-defined]
    track_machine_to_container.param_names = ("platform", "metric")  # type: ignore[attr-defined]
    track_machine_to_container.unit = "ratio"  # type: ignore[attr-defined]
