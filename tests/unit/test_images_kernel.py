"""The pieces of a guest kernel: bzImage, PVH note, modules, initramfs."""

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.images.initramfs import Node, build_cpio, build_initramfs
from harness.images.kernel import parse_real_package
from harness.images.modules import read_modules
from harness.images.vmlinux import extract_elf, find_payload, has_pvh_entry


def build_elf(note_type: int = 18, owner: bytes = b"Xen\0") -> bytes:
    """A 64-bit ELF with one program header that holds one note."""
    note = struct.pack("<III", len(owner), 8, note_type) + owner + bytes(8)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    return header + program + note


def build_bzimage(payload: bytes) -> bytes:
    """A setup sector with one more, then the payload 16 bytes into the protected-mode code."""
    image = bytearray(2 * 512)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload + b"what follows"


def build_module(depends: str) -> bytes:
    """An ELF object with the sections .modinfo and .shstrtab."""
    names, info = b"\0.modinfo\0.shstrtab\0", f"license=GPL\0depends={depends}\0".encode()
    sections = (
        bytes(64)
        + struct.pack("<IIQQQQ", 1, 1, 0, 0, 64, len(info)).ljust(64, b"\0")
        + struct.pack("<IIQQQQ", 10, 3, 0, 0, 64 + len(info), len(names)).ljust(64, b"\0")
    )
    header = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0"))
    struct.pack_into("<Q", header, 40, 64 + len(info) + len(names))
    struct.pack_into("<HHH", header, 58, 64, 3, 2)
    return bytes(header) + info + names + sections


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_the_elf_kernel_comes_out_of_a_bzimage(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    elf = build_elf()
    (tmp_path / "bzImage").write_bytes(build_bzimage(pack(elf) + struct.pack("<I", len(elf))))
    extract_elf(tmp_path / "bzImage", tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == elf


def test_a_file_that_is_no_kernel_is_refused() -> None:
    with pytest.raises(HostError, match="not a Linux kernel"):
        find_payload(bytes(4096), Path("x"))


def test_only_the_right_note_is_a_pvh_entry() -> None:
    assert has_pvh_entry(build_elf())
    assert not has_pvh_entry(build_elf(note_type=2))
    assert not has_pvh_entry(build_elf(owner=b"GNU\0"))
    assert not has_pvh_entry(b"MZ")


def test_modules_come_after_what_they_need_and_built_in_ones_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "kernel"
    folder.mkdir()
    (folder / "net.ko").write_bytes(build_module("failover,virtio-core"))
    (folder / "virtio-core.ko.xz").write_bytes(lzma.compress(build_module("")))
    (folder / "failover.ko").write_bytes(build_module("virtio_core"))
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    modules = read_modules(tmp_path, ("ext4", "net"))
    assert list(modules) == ["virtio_core.ko", "failover.ko", "net.ko"]
    assert modules["virtio_core.ko"] == build_module("")


def test_a_module_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="virtio_blk"):
        read_modules(tmp_path, ("virtio_blk",))


def test_a_cpio_record_is_laid_out_as_the_kernel_document_says() -> None:
    archive = build_cpio([Node("init", 0o100755, b"abcde")])
    assert archive.startswith(b"070701" + b"00000001" + b"000081ED")
    assert archive[110:120] == b"init\0\0abcd"
    assert len(archive) % 512 == 0
    assert b"TRAILER!!!\0" in archive


def test_the_initramfs_lists_its_modules_in_order_and_never_changes() -> None:
    modules = {"virtio.ko": b"1", "virtio_blk.ko": b"2"}
    archive = build_initramfs(b"agent", modules)
    assert b"virtio.ko\nvirtio_blk.ko\n" in archive
    assert archive == build_initramfs(b"agent", modules)


def test_the_meta_package_names_the_real_one() -> None:
    newest = "Package: meta\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n"
    older = "Package: meta\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.176-1)\n"
    assert parse_real_package(f"{newest}\n{older}") == "linux-image-6.1.0-56-cloud-amd64"
    with pytest.raises(HostError, match="names no kernel"):
        parse_real_package("Package: meta\n")
