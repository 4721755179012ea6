"""A disk that BIOS and UEFI boot: partition table, GRUB and file systems, without loop devices.

Layout (GPT, UEFI specification 5.3): a BIOS boot partition with GRUB's core image, whose first
sector the boot code in sector 0 loads; an EFI system partition (FAT) with GRUB as
EFI/BOOT/BOOTX64.EFI; the root file system (ext4); and, where the image is not the system itself,
the image's own ext4 disk, just as machines that bring their kernel get it.
"""

import os
import shutil
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.images.bootable_files import IMAGE_PARTITION, build_early_config
from harness.images.recipes import EPOCH
from harness.images.rooted import require_tools, tool_path
from harness.process import run_command

SECTOR = 512
MIB = 1 << 20

_FOLDERS = (Path("/usr/lib/grub"), Path("/usr/share/grub2"))
"""Where distributions have GRUB's modules: Debian, Fedora, Arch; SUSE."""
_EFI_LOADER = "linuxefi"
_PREFIX = "(,gpt3)/boot/grub"
_MODULES = (
    "part_gpt",
    "ext2",
    "serial",
    "terminal",
    "normal",
    "configfile",
    "echo",
    "linux",
    "boot",
    "smbios",
    "regexp",
    "test",
)
_NAMESPACE = uuid.UUID("5b0a3a0e-6d0f-4b4e-9c83-2a4c1f7be1d6")
_TIMEOUT = 300.0

_BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
_EFI_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # root file system of x86-64
IMAGE_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"  # any file system; systemd leaves it alone

_BOOT_CODE = 440  # what follows in sector 0 belongs to the partition table
_CORE_SECTOR_AT = 0x5C  # boot.S: where the boot code reads the core's first sector from
_DRIVE_CHECK_AT = 0x66  # boot.S: a jump over the test of the drive number, for floppies
_NOPS = b"\x90\x90"
_BLOCK_LIST_AT = SECTOR - 12  # diskboot.S: where the core's second sector is


@dataclass(frozen=True, slots=True)
class Partition:
    """A piece of the disk; ``start`` and ``size`` in bytes."""

    name: str
    type: str
    uuid: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is on a disk of ``size`` bytes; ``image`` where it has its own partition."""

    uuid: str
    size: int
    bios: Partition
    efi: Partition
    root: Partition
    image: Partition | None = None

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """In the order of the table."""
        return (self.bios, self.efi, self.root, *([self.image] if self.image else []))


def build_layout(
    digest: str, root_size: int, system: str | None = None, image_size: int = 0
) -> Layout:
    """The partitions of a disk; all ids come from ``digest``.

    With ``system``, the digest of the system beside the image, the root's id comes from that, and
    the image has a partition of ``image_size`` bytes.
    """
    bios = Partition("bios", _BIOS_TYPE, build_id(digest, "bios"), MIB, MIB)
    efi = Partition("efi", _EFI_TYPE, build_id(digest, "efi"), 2 * MIB, 16 * MIB)
    start = efi.start + efi.size
    root = Partition("root", _ROOT_TYPE, build_id(system or digest, "root"), start, root_size)
    end = start + root_size
    image = None
    if system is not None:
        identity = build_id(digest, IMAGE_PARTITION)
        image = Partition(IMAGE_PARTITION, IMAGE_TYPE, identity, end, image_size)
    # The last mebibyte holds the second copy of the table.
    size = end + (image_size if image else 0) + MIB
    return Layout(build_id(digest, "disk"), size, bios, efi, root, image)


def build_id(digest: str, part: str) -> str:
    """The fixed id of a part of the disk with ``digest``."""
    return str(uuid.uuid5(_NAMESPACE, f"{digest} {part}"))


def build_table(layout: Layout) -> str:
    """The input of sfdisk(8)."""
    lines = ["label: gpt", f"label-id: {layout.uuid}", "unit: sectors"]
    for part in layout.partitions:
        start, size = part.start // SECTOR, part.size // SECTOR
        ids = f"type={part.type}, uuid={part.uuid}, name={part.name}"
        lines.append(f"start={start}, size={size}, {ids}")
    return "\n".join(lines) + "\n"


def patch_boot_code(boot: bytes, core_sector: int) -> bytes:
    """GRUB's ``boot.img`` for sector 0: it loads ``core_sector`` from the disk it came from."""
    code = bytearray(boot[:_BOOT_CODE])
    struct.pack_into("<Q", code, _CORE_SECTOR_AT, core_sector)
    code[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + len(_NOPS)] = _NOPS
    return bytes(code)


def patch_core(core: bytes, core_sector: int) -> bytes:
    """GRUB's core image, told in its first sector where on the disk the others are."""
    patched = bytearray(core)
    struct.pack_into("<Q", patched, _BLOCK_LIST_AT, core_sector + 1)
    return bytes(patched)


def require_boot_tools() -> None:
    """Raise HostError for what a bootable disk needs and is not on this host."""
    for target, package in (("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")):
        require_grub(find_modules(target), package)
    _find_mkimage()
    packages = {"mkfs.fat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "sfdisk": "fdisk"}
    for tool, package in packages.items():
        if shutil.which(tool, path=tool_path()["PATH"]) is None:
            raise HostError(f"{tool} is not installed", hint=f"install the package {package}")
    require_tools("mmdebstrap", "mke2fs", "qemu-img", "zstd")


def find_modules(target: str, folders: Sequence[Path] = _FOLDERS) -> Path:
    """The folder of GRUB's modules for one kind of firmware; the first place if it is nowhere."""
    found = [each / target for each in folders]
    return next((each for each in found if each.is_dir()), found[0])


def find_loader(folder: Path) -> tuple[str, ...]:
    """The module that enters a kernel by its EFI stub, where `linux` does not (GRUB before 2.12,
    as distributions have patched it)."""
    return (_EFI_LOADER,) if (folder / f"{_EFI_LOADER}.mod").is_file() else ()


def require_grub(folder: Path, package: str) -> None:
    """Raise HostError if GRUB's files for one kind of firmware are not in ``folder``."""
    # Each has modules; the boot code is there for BIOS only.
    names = ["normal.mod", "smbios.mod", *(["boot.img"] if folder.name == "i386-pc" else [])]
    for name in names:
        if not (folder / name).is_file():
            raise HostError(
                f"a bootable disk needs GRUB: {folder / name} is missing",
                hint=f"install the package {package}",
            )


def write_disk(
    root: Path, layout: Layout, scratch: Path, out: Path, image: Path | None = None
) -> None:
    """Put the file systems ``root`` and ``image`` and the boot loader on a sparse disk ``out``."""
    core = _make_grub("i386-pc", ("biosdisk",), scratch)
    efi = _make_grub("x86_64-efi", find_loader(find_modules("x86_64-efi")), scratch)
    system = scratch / "efi.fat"
    write_fat(efi, layout.efi, system)
    out.touch()
    os.truncate(out, layout.size)
    run_command(["sfdisk", "--quiet", out], timeout=60, stdin=build_table(layout), env=tool_path())
    first = layout.bios.start // SECTOR
    with out.open("r+b") as disk:
        disk.write(patch_boot_code((find_modules("i386-pc") / "boot.img").read_bytes(), first))
        disk.seek(layout.bios.start)
        disk.write(_fit(patch_core(core.read_bytes(), first), layout.bios))
    copy_sparse(system, out, layout.efi.start)
    copy_sparse(root, out, layout.root.start)
    if layout.image is not None:
        assert image is not None
        copy_sparse(image, out, layout.image.start)


def write_fat(program: Path, partition: Partition, out: Path) -> None:
    """An EFI system partition that holds ``program`` where firmware looks for it."""
    out.touch()
    os.truncate(out, partition.size)
    os.utime(program, (EPOCH, EPOCH))
    environment = {
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "TZ": "UTC",
        "MTOOLSRC": os.devnull,
        "LC_ALL": "C.UTF-8",
        **tool_path(),
    }
    volume = partition.uuid.replace("-", "")[:8]
    commands: list[list[str | Path]] = [
        ["mkfs.fat", "--invariant", "-F", "16", "-n", "EFI", "-i", volume, out],
        ["mmd", "-i", out, "::EFI", "::EFI/BOOT"],
        ["mcopy", "-m", "-i", out, program, "::EFI/BOOT/BOOTX64.EFI"],
    ]
    for command in commands:
        run_command(command, timeout=60, env=environment)


def copy_sparse(source: Path, out: Path, offset: int) -> None:
    """Copy the data of ``source`` into ``out`` from ``offset`` on; holes stay holes."""
    with source.open("rb") as reader, out.open("r+b") as writer:
        size, at = os.fstat(reader.fileno()).st_size, 0
        while (at := _find_data(reader.fileno(), at)) < size:
            end = os.lseek(reader.fileno(), at, os.SEEK_HOLE)
            reader.seek(at)
            writer.seek(offset + at)
            while at < end:
                piece = reader.read(min(end - at, MIB))
                writer.write(piece)
                at += len(piece)


def _find_data(descriptor: int, at: int) -> int:
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole is left
        return os.fstat(descriptor).st_size


def _make_grub(target: str, modules: tuple[str, ...], scratch: Path) -> Path:
    config, out = scratch / "early.cfg", scratch / f"{target}.img"
    config.write_text(build_early_config("efi" if _EFI_LOADER in modules else ""))
    files: list[str | Path] = [
        "--directory",
        find_modules(target),
        "--config",
        config,
        "--output",
        out,
    ]
    kind = ["--format", target, "--prefix", _PREFIX]
    run_command([_find_mkimage(), *kind, *files, *modules, *_MODULES], timeout=60)
    return out


def _find_mkimage() -> str:
    for name in ("grub-mkimage", "grub2-mkimage"):
        if shutil.which(name, path=tool_path()["PATH"]) is not None:
            return name
    raise HostError("grub-mkimage is not installed", hint="install the package grub-common")


def _fit(data: bytes, partition: Partition) -> bytes:
    if len(data) > partition.size:
        raise HostError(f"GRUB's core image has {len(data)} bytes, {partition.size} are allowed")
    return data
