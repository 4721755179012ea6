"""Machine disks of an application on a base, and the forms in which they travel.

The application's files are put into a copy of the base's own file system, so that a disk differs
from its base, and one release from the next, in the blocks of those files alone.
"""

import struct
import uuid
from collections.abc import Iterable
from pathlib import Path

from harness.drivers.storage import BELOW
from harness.errors import HostError
from harness.images.oci import compress_file
from harness.images.pack import convert_qcow2
from harness.images.recipes import EPOCH
from harness.images.rooted import tool_path
from harness.moves.app import FOLDER
from harness.process import run_command

ROOT_TYPE = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
"""A root partition for x86-64 (Discoverable Partitions Specification)."""
IMAGE_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
"""Any Linux file system: the image, where the system beside it has a root of its own."""

CASYNC = "casync"
_SECTOR = 512
_TIMEOUT = 900.0


def write_disk(base: Path, site: Path, offset: int, out: Path) -> None:
    """Copy the raw disk ``base`` to ``out`` and put the files of ``site`` into it.

    ``offset`` is where the ext4 file system begins, in bytes. Raises HostError without room for it.
    """
    run_command(["cp", "--sparse=always", "--reflink=auto", base, out], timeout=_TIMEOUT)
    disk = f"{out}?offset={offset}" if offset else str(out)
    script = build_script(sorted(site.iterdir()))
    command = ["debugfs", "-w", "-f", "-", disk]
    environment = {"E2FSPROGS_FAKE_TIME": str(EPOCH), **tool_path()}
    done = run_command(command, timeout=_TIMEOUT, stdin=script, env=environment)
    if problem := find_problem(done.stderr):
        raise HostError(f"the application cannot be put into {base.name}: {problem}")


def build_script(files: Iterable[Path]) -> str:
    """What debugfs(8) is told: the folder, then every file."""
    parents = [FOLDER.rsplit("/", depth)[0] for depth in range(FOLDER.count("/"), 0, -1)]
    lines = [f"mkdir /{path}" for path in (*parents, FOLDER)]
    lines += [f'write "{path}" /{FOLDER}/{path.name}' for path in files]
    return "\n".join([*lines, ""])


def find_problem(text: str) -> str | None:
    """What debugfs complained of; it ends with 0 all the same. A folder may be there already."""
    lines = [line for line in text.splitlines() if line and not line.startswith("debugfs 1.")]
    return next((line for line in lines if "already exists" not in line), None)


def find_offset(disk: Path) -> int:
    """Where the image's file system begins on a disk, from its partition table (GPT); 0 for a bare
    file system. It has a partition of its own, or is the root. Raises HostError without either."""
    with disk.open("rb") as file:
        head = file.read(2 * _SECTOR)[_SECTOR:]
        if not head.startswith(b"EFI PART"):
            return 0
        first, count, size = struct.unpack_from("<QII", head, 72)
        file.seek(first * _SECTOR)
        entries = [file.read(size) for _ in range(count)]
    for wanted in (IMAGE_TYPE, ROOT_TYPE):
        for entry in entries:
            if entry[:16] == wanted.bytes_le:
                return int(struct.unpack_from("<Q", entry, 32)[0]) * _SECTOR
    raise HostError(f"{disk.name} has no root partition")


def write_overlay(disk: Path, base: Path, out: Path) -> None:
    """A compressed qcow2 with what ``disk`` has other than ``base``, which it calls `BELOW`."""
    link = out.with_name(BELOW)
    if not link.is_symlink():
        link.symlink_to(base)
    draft = out.with_name(f"{out.name}.draft")
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk.absolute(), draft)
    run_command(create, timeout=_TIMEOUT, cwd=out.parent)
    # Rebasing compares the two bases and takes in whatever differs.
    rebase = ("qemu-img", "rebase", "-f", "qcow2", "-F", "raw", "-b", BELOW, draft)
    run_command(rebase, timeout=_TIMEOUT, cwd=out.parent)
    convert = ("qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", "-B", BELOW, "-F", "raw",
               draft, out)  # fmt: skip
    run_command(convert, timeout=_TIMEOUT, cwd=out.parent)
    draft.unlink()


def write_chunks(disk: Path, store: Path, index: Path) -> None:
    """Cut ``disk`` into chunks where its content says so, and write those that are new."""
    command: list[str | Path] = [
        CASYNC,
        "make",
        "--compression=zstd",
        f"--store={store}",
        index,
        disk,
    ]
    run_command(command, timeout=_TIMEOUT)


def write_forms(disk: Path, base: Path, release: str, folder: Path, *, chunks: bool) -> None:
    """Every form of a release's disk that a server offers, beside those of the other releases."""
    convert_qcow2(disk, folder / f"{release}.qcow2")
    compress_file(disk, folder / f"{release}.raw.zst", "zstd")
    write_overlay(disk, base, folder / f"{release}.overlay.qcow2")
    if chunks:
        write_chunks(disk, folder / "store", folder / f"{release}.caibx")
