"""Moves of a container: skopeo pulls its layers from the registry, tar unpacks each to a folder.

As engines do it: the folders of the layers are then stacked by overlayfs, and a layer that the host
has already is neither fetched nor unpacked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.images.model import Image, Packing
from harness.images.oci import Compression
from harness.moves.app import RELEASES, build_layer, build_site
from harness.moves.layers import Layers, find_blob, link_file, write_layers
from harness.moves.link import Host
from harness.moves.model import Scenario, Site
from harness.moves.servers import pull_layout, push_layout
from harness.process import run_command

REGISTRY = "registry"
COMPRESSIONS: Mapping[str, Compression] = {"oci-gzip": "gzip", "oci-zstd": "zstd"}
_HOME = "skopeo"


@dataclass(frozen=True, slots=True)
class LayerMove:
    """Layers of one compression; ``releases`` are the layouts of what there is to move."""

    packing: str
    releases: Mapping[str, Layers]
    service: str = REGISTRY

    def prepare(self, site: Site, scenario: Scenario) -> None:
        if scenario.present is None:
            return
        there, layout = self.releases[scenario.present].folder, _layout(site)
        (layout / "blobs" / "sha256").mkdir(parents=True)
        for path in (path for path in there.rglob("*") if path.is_file()):
            link_file(path, layout / path.relative_to(there))
        index = layout / "index.json"  # will be written: not the very file of the server
        text = index.read_text()
        index.unlink()
        index.write_text(text)

    def transfer(self, site: Site, scenario: Scenario) -> None:
        link, tag = site.link, f"{self.packing}-{scenario.moved}"
        home = site.folder / _HOME
        pull_layout(link.client, link.server, tag, _layout(site), home, site.wait)

    def unpack(self, site: Site, scenario: Scenario) -> Mapping[str, Packing]:
        layers = self.releases[scenario.moved]
        folders = [str(site.image.tree)]
        if scenario.present is None:
            folders = [self._extract(site, digest) for digest in reversed(layers.base)]
        folders.insert(0, self._extract(site, layers.top))
        # overlayfs takes several lower folders in the place of one, the topmost first.
        stack = Path(":".join(folders))
        return {"tree": Packing("tree", stack, 0, 0)}

    def list_files(self, arrived: Mapping[str, Packing]) -> Sequence[Path]:
        folders = map(Path, str(arrived["tree"].path).split(":"))
        found = (path for folder in folders for path in folder.rglob("*"))
        return [path for path in found if path.is_file() and not path.is_symlink()]

    def _extract(self, site: Site, digest: str) -> str:
        blob = find_blob(_layout(site), digest)
        if not blob.exists():
            raise HostError(f"skopeo left out the layer {digest[:19]}")
        folder = site.folder / digest.replace(":", "-")
        folder.mkdir()
        command = build_extract(blob, COMPRESSIONS[self.packing], folder)
        run_command(command, timeout=site.wait)
        return str(folder)


def build_extract(blob: Path, compression: Compression, folder: Path) -> list[str]:
    """The command line that unpacks a layer with its owners, modes and extended attributes."""
    return [
        *("tar", "--extract", "--numeric-owner", "--same-owner", "--preserve-permissions"),
        *("--delay-directory-restore", "--xattrs", "--xattrs-include=*"),
        *(f"--{compression}", f"--directory={folder}", f"--file={blob}"),
    ]


def _layout(site: Site) -> Path:
    return site.folder / "layout"


def write_releases(image: Image, packing: str, folder: Path) -> dict[str, Layers]:
    """The layouts of every release on the base ``image``, in the new folder ``folder``."""
    base = image.packings[packing].path
    return {
        release: write_layers(
            base, build_layer(build_site(release)), COMPRESSIONS[packing], folder / release
        )
        for release in RELEASES
    }


def push_releases(host: Host, packing: str, releases: Mapping[str, Layers], home: Path) -> None:
    """Push every release to the registry, tagged ``oci-gzip-shop`` and the like."""
    for release, layers in releases.items():
        push_layout(host, layers.folder, f"{packing}-{release}", home)
