"""What the servers offer and how it travels: made once for an image, before the first move."""

from collections.abc import Mapping
from pathlib import Path

from harness.images.model import Image
from harness.moves import machines
from harness.moves.app import RELEASES, build_site, write_site
from harness.moves.containers import COMPRESSIONS, LayerMove, push_releases, write_releases
from harness.moves.disks import find_offset, write_disk, write_forms
from harness.moves.link import Host
from harness.moves.machines import DISK_FORMS, FORMS
from harness.moves.model import Method

Packed = Mapping[str, tuple[Path, ...]]
"""What a platform needs of an image, by packing: the packing itself, and what travels with it."""

_SITES = "sites"


def list_packings(platform: str) -> tuple[str, ...]:
    """The packings that a platform's moves compare; empty for one that does not move."""
    return _PACKINGS.get(platform, ())


_PACKINGS: Mapping[str, tuple[str, ...]] = {
    "namespace": tuple(COMPRESSIONS),
    "vm-direct": tuple(FORMS),
    "vm-disk": tuple(DISK_FORMS),
}
PLATFORMS = tuple(_PACKINGS)
"""The platforms whose moves are measured: one for each way in which an image is packed."""


def write_containers(image: Image, folder: Path, server: Host) -> dict[str, Method]:
    """Layouts of every release, pushed to the registry; how each packing moves."""
    found: dict[str, Method] = {}
    for packing in COMPRESSIONS:
        releases = write_releases(image, packing, folder / packing)
        push_releases(server, packing, releases, folder / "skopeo")
        found[packing] = LayerMove(packing, releases)
    return found


def write_machines(
    packed: Packed, place: str, packings: tuple[str, ...], folder: Path, *, chunks: bool
) -> dict[str, Method]:
    """Disks of every release in every form, in ``folder`` below the HTTP server's root.

    ``place`` is the packing that a guest's disk is, in ``packed``.
    """
    folder.mkdir(parents=True)
    whole = "disk-qcow2" if place == "disk-raw" else "qcow2"
    base, boot = packed[place][0], packed[whole][1:]
    sites, disks = folder / _SITES, {}
    for release in RELEASES:
        write_site(build_site(release), sites / release)
        disks[release] = folder / f"{release}.raw"
        write_disk(base, sites / release, find_offset(base), disks[release])
    for release in RELEASES[:2]:
        write_forms(disks[release], base, release, folder, chunks=chunks)
    (folder / "base.qcow2").symlink_to(packed[whole][0])
    names = tuple(_offer(folder, path) for path in boot)
    forms = {**FORMS, **DISK_FORMS}
    return {each: forms[each](each, place, folder.name, base, disks, names) for each in packings}


def _offer(folder: Path, path: Path) -> str:
    """Let the server hand out a file that lies elsewhere; its name there."""
    name = machines.KERNEL if path.name.startswith(machines.KERNEL) else path.name
    (folder / name).symlink_to(path)
    return name
