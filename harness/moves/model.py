"""The words of a move: which way an image goes, what is there already, and what arrives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.images.model import Image, Packing
from harness.moves.link import Link


@dataclass(frozen=True, slots=True)
class Scenario:
    """What travels (a release of the application), and what the new host has already, if any."""

    name: str
    moved: str
    present: str | None


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("first", "shop", None),
        Scenario("shared_base", "shop", "other"),
        Scenario("update", "shop-next", "shop"),
    )
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where one move arrives: the new host's ``folder``, and the link it comes over.

    ``image`` is the base. ``wait`` is the longest that a step may take, in seconds.
    """

    folder: Path
    image: Image
    link: Link
    wait: float


class Method(Protocol):
    """One packing and the programs that carry it. ``service`` is which server's log counts it."""

    @property
    def packing(self) -> str: ...

    @property
    def service(self) -> str: ...

    def prepare(self, site: Site, scenario: Scenario) -> None:
        """Put what the new host has already into its folder; before the clock."""

    def transfer(self, site: Site, scenario: Scenario) -> None:
        """Fetch over the link what is missing."""

    def unpack(self, site: Site, scenario: Scenario) -> Mapping[str, Packing]:
        """Make what an instance starts from; packings that stand for the base image's own."""

    def list_files(self, arrived: Mapping[str, Packing]) -> Sequence[Path]:
        """The files that a start may read, of what was unpacked."""
