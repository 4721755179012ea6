"""The packings of one image, all from its canonical tar, and each the same bytes every time."""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.images.model import Packing
from harness.images.oci import Compression, compress_file, write_layout
from harness.images.recipes import EPOCH
from harness.images.rooted import require_tools, run_rooted, tool_path
from harness.images.workshop import Progress
from harness.process import run_command

PATHS = {
    "tree": "tree",
    "oci-gzip": "oci-gzip",
    "oci-zstd": "oci-zstd",
    "ext4-raw": "disk.raw",
    "qcow2": "disk.qcow2",
    "raw-zstd": "disk.raw.zst",
}
"""The packings that every image gets, and what each is called inside an image's folder."""

EXTRA_PATHS = {"squashfs": "root.squashfs", "erofs": "root.erofs"}
"""Packings that are made when a platform asks for them: read-only file systems."""

_BLOCK = 4096
_INODE = 256
_SLACK = 64 << 20
_ALIGN = 1 << 20
_TIMEOUT = 900.0
_NAMESPACE = uuid.UUID("9f1ac7de-3b86-4cf5-9a3b-6d0b6a2b8c51")
_EXT4 = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum,64bit"
)
"""Stated in full, so that the host's mke2fs.conf decides nothing."""


def write_packings(
    tar: Path,
    digest: str,
    files: int,
    apparent: int,
    folder: Path,
    progress: Progress,
    holes: int = 0,
) -> dict[str, Packing]:
    """Write every packing of ``tar`` into ``folder`` and return them with their sizes.

    ``files`` and ``apparent`` are the number of entries and the bytes of their content, of which
    ``holes`` need no space on a disk.
    """
    require_tools("tar", "zstd", "mke2fs", "debugfs", "dumpe2fs", "qemu-img")
    paths = {name: folder / path for name, path in PATHS.items()}
    with ThreadPoolExecutor(max_workers=2) as pool:
        layouts = pool.submit(_write_layouts, tar, digest, paths, progress)
        progress("extracting the tree")
        extract_tree(tar, paths["tree"])
        progress("making the ext4 disk")
        write_ext4(paths["tree"], paths["ext4-raw"], digest, files, apparent - holes)
        progress("compressing the disk")
        convert_qcow2(paths["ext4-raw"], paths["qcow2"])
        compress_file(paths["ext4-raw"], paths["raw-zstd"], "zstd")
        layouts.result()
    run_command(["sync", "--file-system", folder], timeout=300)
    return measure_packings(folder, apparent)


def extract_tree(tar: Path, tree: Path) -> None:
    """Extract the canonical tar with its owners, modes and extended attributes."""
    tree.mkdir()
    tree.chmod(0o755)
    keep = [
        "--numeric-owner",
        "--same-owner",
        "--preserve-permissions",
        "--delay-directory-restore",
        "--warning=no-unknown-keyword",
    ]
    xattrs = ["--xattrs", "--xattrs-include=*"]
    command = ["tar", "--extract", *keep, *xattrs, f"--directory={tree}", f"--file={tar}"]
    run_rooted(command, timeout=_TIMEOUT, env={"LC_ALL": "C.UTF-8"})
    os.utime(tree, (EPOCH, EPOCH))


def write_ext4(tree: Path, out: Path, digest: str, files: int, apparent: int) -> None:
    """Make a sparse ext4 image of ``tree`` without a loop device; its ids come from ``digest``."""
    size, inodes = size_ext4(files, apparent)
    draft = out.with_name(f"{out.name}.draft")
    draft.touch()
    os.truncate(draft, size)
    command = build_mke2fs(tree, draft, digest, inodes)
    run_rooted(command, timeout=_TIMEOUT, env=_ext4_environment())
    _fix_inode_times(draft)
    # The zeros of the journal and the inode tables need no space until a guest writes them.
    run_command(["cp", "--sparse=always", draft, out], timeout=_TIMEOUT)
    draft.unlink()


def size_ext4(files: int, apparent: int) -> tuple[int, int]:
    """Bytes and inodes of a disk for ``files`` entries: what they need, 20 % and 64 MiB."""
    inodes = files + files // 5 + 1024
    needed = apparent + files * _BLOCK + inodes * _INODE
    size = needed + needed // 5 + _SLACK
    return -(-size // _ALIGN) * _ALIGN, inodes


def build_mke2fs(tree: Path, out: Path, digest: str, inodes: int) -> list[str]:
    """The command line that makes the file system: nothing random, nothing left for later."""
    identity = uuid.uuid5(_NAMESPACE, digest)
    extended = f"hash_seed={identity},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    return [
        *("mke2fs", "-q", "-F", "-t", "ext4", "-O", _EXT4),
        *("-b", str(_BLOCK), "-I", str(_INODE), "-N", str(inodes), "-m", "0"),
        *("-L", "root", "-U", str(identity), "-E", extended),
        *("-d", str(tree), str(out)),
    ]


def convert_qcow2(raw: Path, out: Path) -> None:
    """A compressed qcow2 of ``raw``, written in order by one coroutine."""
    command: list[str | Path] = [
        "qemu-img",
        "convert",
        "-m",
        "1",
        "-c",
        "-f",
        "raw",
        "-O",
        "qcow2",
        raw,
        out,
    ]
    run_command(command, timeout=_TIMEOUT)


def write_extra(name: str, tree: Path, out: Path, digest: str) -> None:
    """Make a read-only file system of ``tree``: a packing of EXTRA_PATHS."""
    command = build_extra(name, tree, out, digest)
    require_tools(command[0])
    run_rooted(command, timeout=_TIMEOUT)


def build_extra(name: str, tree: Path, out: Path, digest: str) -> list[str]:
    """The command line that makes it: no time but EPOCH, no identity but the image's."""
    if name == "squashfs":
        times = ("-mkfs-time", str(EPOCH), "-all-time", str(EPOCH))
        quiet = ("-noappend", "-quiet", "-no-progress")
        return ["mksquashfs", str(tree), str(out), "-comp", "zstd", *times, *quiet]
    identity = str(uuid.uuid5(_NAMESPACE, digest))
    return ["mkfs.erofs", "-zlz4hc", f"-T{EPOCH}", f"-U{identity}", "--quiet", str(out), str(tree)]


def measure_file(name: str, path: Path) -> Packing:
    """A packing that is one file, with its sizes."""
    apparent, allocated = sum_file_sizes([path])
    return Packing(name, path, apparent, allocated)


def measure_packings(folder: Path, tree_apparent: int) -> dict[str, Packing]:
    """Every packing in ``folder`` with its sizes."""
    packings = {}
    for name, relative in PATHS.items():
        path = folder / relative
        if name == "tree":
            apparent, allocated = tree_apparent, _read_usage(path)
        else:
            apparent, allocated = sum_file_sizes(_list_files(path))
        packings[name] = Packing(name, path, apparent, allocated, _read_virtual(name, path))
    return packings


def sum_file_sizes(paths: Iterable[Path]) -> tuple[int, int]:
    """Apparent and allocated bytes of files."""
    infos = [path.stat() for path in paths]
    return sum(info.st_size for info in infos), sum(info.st_blocks * 512 for info in infos)


def _write_layouts(tar: Path, digest: str, paths: Mapping[str, Path], progress: Progress) -> None:
    kinds: tuple[Compression, ...] = ("gzip", "zstd")
    for kind in kinds:
        progress(f"writing the OCI layout ({kind})")
        write_layout(tar, digest, kind, paths[f"oci-{kind}"])


def _ext4_environment() -> dict[str, str]:
    epoch = str(EPOCH)
    times = {"E2FSPROGS_FAKE_TIME": epoch, "SOURCE_DATE_EPOCH": epoch}
    return {"MKE2FS_CONFIG": "/dev/null", **times, **tool_path()}


def _fix_inode_times(disk: Path) -> None:
    """Replace the times that mke2fs took from the host: when the tree was extracted and read."""
    counts = {}
    for line in _read_header(disk).splitlines():
        key, _, value = line.partition(":")
        counts[key] = value.strip()
    last_used = int(counts["Inode count"]) - int(counts["Free inodes"])
    first = int(counts["First inode"])
    lines = [
        f"set_inode_field <{inode}> {field} @{EPOCH}"
        for inode in (2, *range(first, last_used + 1))
        for field in ("atime", "ctime", "crtime")
    ]
    script = "\n".join([*lines, ""])
    command: list[str | Path] = ["debugfs", "-w", "-f", "-", disk]
    run_command(command, timeout=_TIMEOUT, stdin=script, env=_ext4_environment())


def _read_header(disk: Path) -> str:
    return run_command(["dumpe2fs", "-h", disk], timeout=60, env=_ext4_environment()).stdout


def _list_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _read_usage(tree: Path) -> int:
    usage = run_rooted(["du", "--summarize", "--block-size=1", tree], timeout=300).stdout
    return int(usage.split()[0])


def _read_virtual(name: str, path: Path) -> int | None:
    if name == "ext4-raw":
        return path.stat().st_size
    if name != "qcow2":
        return None
    info = run_command(["qemu-img", "info", "--output=json", path], timeout=60).stdout
    return int(json.loads(info)["virtual-size"])
