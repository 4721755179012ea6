"""Where moves happen: the link, the servers on one side of it, and what they offer."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.drivers.base import Driver
from harness.images.model import Image
from harness.moves import stock
from harness.moves.containers import COMPRESSIONS, REGISTRY
from harness.moves.link import Link, start_link
from harness.moves.machines import FILES
from harness.moves.model import Method
from harness.moves.servers import Service, start_files, start_registry

_PLACES = {"vm-direct": "ext4-raw", "vm-disk": "disk-raw"}


@dataclass(slots=True)
class Place:
    """A link with its servers. ``offers`` fills as moves ask for it; what could not be made once
    is not tried again."""

    link: Link
    folder: Path
    services: dict[str, Service]
    chunks: bool
    say: Callable[[str], None]
    offers: dict[tuple[str, str], dict[str, Method]] = field(default_factory=dict)
    faults: dict[tuple[str, str], Exception] = field(default_factory=dict)

    def require_method(self, driver: Driver, image: Image, packing: str) -> Method:
        """How a packing moves; what the servers need for it is made first."""
        key = (driver.name, image.name)
        if key in self.faults:
            raise self.faults[key]
        if key not in self.offers:
            self.say(f"preparing the moves of {image.name} for {driver.name}")
            try:
                self.offers[key] = self._write(driver, image)
            except Exception as error:
                self.faults[key] = error
                raise
        return self.offers[key][packing]

    def is_whole(self) -> bool:
        """Whether every server still runs."""
        return all(service.find_fault() is None for service in self.services.values())

    def _write(self, driver: Driver, image: Image) -> dict[str, Method]:
        name = f"{driver.name}-{image.name}"
        packings = stock.list_packings(driver.name)
        if packings[0] in COMPRESSIONS:
            return stock.write_containers(image, self.folder / name, self.link.server)
        packed = {each.packing: each.paths for each in driver.packed(image)}
        return stock.write_machines(
            packed, _PLACES[driver.name], packings, _root(self.folder) / name, chunks=self.chunks
        )


@contextlib.contextmanager
def start_place(
    folder: Path, needed: set[str], chunks: bool, say: Callable[[str], None]
) -> Iterator[Place]:
    """The link and the servers in ``needed``, with all files in the new folder ``folder``.

    ``chunks`` says whether machines' disks are offered in chunks too.
    """
    folder.mkdir()
    _root(folder).mkdir()
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(start_link())
        services = {}
        if REGISTRY in needed:
            services[REGISTRY] = stack.enter_context(
                start_registry(link.server, folder / "registry")
            )
        if FILES in needed:
            services[FILES] = stack.enter_context(
                start_files(link.server, _root(folder), folder / "files")
            )
        yield Place(link, folder, services, chunks, say)


def _root(folder: Path) -> Path:
    """What the HTTP server hands out."""
    return folder / "www"
