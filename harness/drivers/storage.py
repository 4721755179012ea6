"""What a guest's root is on: the back ends of a virtual machine's disk, as plain values.

Whatever it is, an image's own files are never written: an instance has a copy, an overlay, or a
layer above a root that is read-only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.drivers.base import UPPER
from harness.drivers.domain_xml import Drive, Share
from harness.variants import READ_ONLY_DISKS, DiskFormat, Options

BELOW = "base.raw"
"""How a shared qcow2 calls the raw disk that it is a layer on: a file in its own folder."""

_UPPER_SIZE = 4 << 30  # sparse: an instance takes what it writes
_UPPER_INODES = 32_768  # their tables are written at once, 256 bytes each
_EXT4 = "none,extent,filetype,flex_bg,large_file,sparse_super,64bit"


@dataclass(frozen=True, slots=True)
class Storage:
    """A guest's disks. ``commands`` make the instance's own files, before the clock.

    A ``share`` is a view of the one shared folder that cannot be written.
    ``words`` tell the agent of a directly booted guest how to mount its root. ``own`` is what the
    instance writes, ``shared`` what all instances of the image read.
    """

    shared: tuple[Path, ...]
    drives: tuple[Drive, ...] = ()
    share: Share | None = None
    commands: tuple[tuple[str, ...], ...] = ()
    words: tuple[str, ...] = ()
    own: tuple[Path, ...] = ()


def build_storage(
    options: Options, sources: Mapping[str, Path], folder: Path, quota: int | None = None
) -> Storage:
    """The disks of one instance with its files in ``folder``. A disk for what it writes alone has
    the size of the ``quota``, in bytes.

    ``sources`` are the files of the image by what they are: ``raw``, and ``squashfs``, ``erofs`` or
    ``virtiofs`` (a folder) where that is asked for.
    """
    kind: DiskFormat = options.disk or "overlay"
    if kind in READ_ONLY_DISKS:
        return _build_layered(kind, options, sources[kind], folder, quota)
    return _WRITABLE[kind](sources["raw"], folder)


def find_source(options: Options) -> str:
    """Which of an image's forms a guest's root comes from."""
    return options.disk if options.disk in READ_ONLY_DISKS else "raw"


def build_overlay(base: Path, folder: Path) -> Storage:
    """A thin qcow2 on the disk that all instances share.

    That is raw, or a qcow2 that lies on the raw disk `BELOW` beside it.
    """
    path = folder / "overlay.qcow2"
    chain: tuple[tuple[Path, Literal["raw", "qcow2"]], ...] = ((base, "raw"),)
    if base.suffix == ".qcow2":
        chain = ((base, "qcow2"), (base.with_name(BELOW), "raw"))
    kind = chain[0][1]
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(path))
    drive = Drive(path, "qcow2", chain)
    return Storage(tuple(each for each, _ in chain), (drive,), commands=(create,), own=(path,))


def _build_raw(base: Path, folder: Path) -> Storage:
    path = folder / "disk.raw"
    copy = ("cp", "--sparse=always", "--reflink=auto", str(base), str(path))
    return Storage((base,), (Drive(path),), commands=(copy,), own=(path,))


def _build_qcow2(base: Path, folder: Path) -> Storage:
    path = folder / "disk.qcow2"
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(base), str(path))
    return Storage((base,), (Drive(path, "qcow2"),), commands=(convert,), own=(path,))


def _build_layered(
    kind: str, options: Options, source: Path, folder: Path, quota: int | None
) -> Storage:
    """A read-only root, and the layer above it in memory or on a disk of the instance's own."""
    share = Share(folder / "root") if kind == "virtiofs" else None
    lower = () if share else (Drive(source, read_only=True),)
    words = (f"harness.fs={kind}", *((f"harness.root={share.tag}",) if share else ()))
    if options.upper != "disk":
        return Storage((source,), lower, share, words=(*words, "harness.upper=tmpfs"))
    path = folder / UPPER
    inodes = ("-N", str(_UPPER_INODES)) if quota is None else ()
    make = (
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        _EXT4,
        "-m",
        "0",
        *inodes,
        str(path),
        f"{(quota or _UPPER_SIZE) >> 10}k",
    )
    device = "/dev/vdb" if lower else "/dev/vda"
    return Storage(
        (source,),
        (*lower, Drive(path)),
        share,
        commands=(make,),
        words=(*words, f"harness.upper={device}"),
        own=(path,),
    )


_WRITABLE: Mapping[str, Callable[[Path, Path], Storage]] = {
    "overlay": build_overlay,
    "raw": _build_raw,
    "qcow2": _build_qcow2,
}
