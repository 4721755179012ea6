"""Moves of a virtual machine: its disk in one of several forms, and for the first its kernel.

A lean HTTP client fetches whole files; casync fetches the chunks that no local disk has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.storage import BELOW
from harness.images.model import Packing
from harness.images.vmlinux import extract_elf
from harness.moves.disks import CASYNC
from harness.moves.fetch import start_client
from harness.moves.model import Scenario, Site
from harness.moves.servers import FILES_PORT
from harness.process import run_command

FILES = "files"
KERNEL = "bzImage"
_DISK = "disk.raw"
_BASE = "base.qcow2"


@dataclass(frozen=True, slots=True)
class DiskMove:
    """A whole compressed qcow2, and what the other forms share.

    ``place`` is the part of an image that the disk stands for, ``base`` the disk that releases were
    made from, ``disks`` those of the releases. ``root`` is the folder on the server, and ``boot``
    are its files that travel along the first time.
    """

    packing: str
    place: str
    root: str
    base: Path
    disks: Mapping[str, Path]
    boot: tuple[str, ...] = ()
    service: str = FILES

    def prepare(self, site: Site, scenario: Scenario) -> None:
        """Nothing that a host has already is of use to a whole file."""

    def transfer(self, site: Site, scenario: Scenario) -> None:
        first = scenario.present is None
        files = [*(self.boot if first else ()), *self.list_parts(scenario)]
        address = site.link.server.address
        with start_client(site.link.client, address, FILES_PORT, site.wait) as client:
            for name in files:
                client.fetch(f"/{self.root}/{name}", site.folder / name)

    def list_parts(self, scenario: Scenario) -> list[str]:
        """The files of the disk that are fetched whole."""
        return [f"{scenario.moved}.qcow2"]

    def unpack(self, site: Site, scenario: Scenario) -> Mapping[str, Packing]:
        if scenario.present is None and KERNEL in self.boot:
            extract_elf(site.folder / KERNEL, site.folder / "vmlinux")
        disk = self.unpack_disk(site, scenario)
        return {self.place: Packing(self.place, disk, 0, 0)}

    def unpack_disk(self, site: Site, scenario: Scenario) -> Path:
        """Make the disk that an instance starts from; its path."""
        return _convert(site, f"{scenario.moved}.qcow2", _DISK)

    def list_files(self, arrived: Mapping[str, Packing]) -> Sequence[Path]:
        disk = arrived[self.place].path
        return [disk, *([disk.with_name(BELOW)] if disk.suffix == ".qcow2" else [])]


class ZstdMove(DiskMove):
    """The raw disk, packed with zstd."""

    __slots__ = ()

    def list_parts(self, scenario: Scenario) -> list[str]:
        return [f"{scenario.moved}.raw.zst"]

    def unpack_disk(self, site: Site, scenario: Scenario) -> Path:
        packed, disk = site.folder / f"{scenario.moved}.raw.zst", site.folder / _DISK
        argv = ("zstd", "-q", "-d", "--sparse", "--no-progress", packed, "-o", disk)
        run_command(argv, timeout=site.wait)
        return disk


class OverlayMove(DiskMove):
    """A qcow2 with what differs from the base; used as it came, on a base that is unpacked."""

    __slots__ = ()

    def prepare(self, site: Site, scenario: Scenario) -> None:
        if scenario.present is not None:
            (site.folder / BELOW).symlink_to(self.base)

    def list_parts(self, scenario: Scenario) -> list[str]:
        return [*([_BASE] if scenario.present is None else []), f"{scenario.moved}.overlay.qcow2"]

    def unpack_disk(self, site: Site, scenario: Scenario) -> Path:
        if scenario.present is None:
            _convert(site, _BASE, BELOW)
        return site.folder / f"{scenario.moved}.overlay.qcow2"


class ChunkMove(DiskMove):
    """Content-defined chunks: casync writes the disk while it fetches, and what the host's disk of
    before has it takes from there. Nothing is left to unpack."""

    __slots__ = ()

    def transfer(self, site: Site, scenario: Scenario) -> None:
        DiskMove.transfer(self, site, scenario)
        source = f"http://{site.link.server.address}:{FILES_PORT}/{self.root}"
        seed = [f"--seed={self.disks[scenario.present]}"] if scenario.present else []
        argv = build_casync(source, scenario.moved, seed, site.folder / _DISK)
        environment = {"TMPDIR": str(site.folder)}  # else chunks would lie in /var/tmp
        run_command(site.link.client.wrap(argv), timeout=site.wait, env=environment)

    def list_parts(self, _scenario: Scenario) -> list[str]:
        return []

    def unpack_disk(self, site: Site, _scenario: Scenario) -> Path:
        return site.folder / _DISK


def build_casync(source: str, release: str, seed: Sequence[str], out: Path) -> list[str | Path]:
    """The command line that writes the disk ``out`` from the chunks at ``source``."""
    return [CASYNC, "extract", f"--store={source}/store", *seed, f"{source}/{release}.caibx", out]


def _convert(site: Site, source: str, target: str) -> Path:
    disk = site.folder / target
    argv = ("qemu-img", "convert", "-f", "qcow2", "-O", "raw", site.folder / source, disk)
    run_command(argv, timeout=site.wait)
    return disk


FORMS: Mapping[str, type[DiskMove]] = {
    "qcow2": DiskMove,
    "raw-zstd": ZstdMove,
    "overlay": OverlayMove,
    "casync": ChunkMove,
}
DISK_FORMS: Mapping[str, type[DiskMove]] = {"disk-qcow2": DiskMove, "disk-raw-zstd": ZstdMove}
