"""A bootable disk of `tiny`, built for real: what is on it, and one boot by each firmware."""

import contextlib
import filecmp
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.images import bootable, bootable_root, bootable_system
from harness.images.bootable import find_disk, require_disk, require_forms
from harness.images.bootable_disk import SECTOR
from harness.images.bootable_files import OEM_PREFIX
from harness.images.bootable_firmware import require_firmware
from harness.images.model import Disk, Image
from harness.images.rooted import tool_path
from harness.starter import build_records

pytestmark = pytest.mark.timeout(300)

BOOT_S = 150
MEMORY = "256"
WORDS = ["loader", "boot", "initramfs", "system"]
# What a guest is asked to run; only the image itself has this line in its os-release.
COMMAND = "grep -q '^ID=tiny' /etc/os-release && test -d /proc/1 && test ! -e /boot && echo found"


def run(*argv: str | Path) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=360, check=False, env=tool_path()
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def disk(tiny_image: Image) -> Disk:
    return require_forms(tiny_image, print)


@pytest.fixture(scope="module")
def partitions(disk: Disk) -> dict[str, tuple[int, int]]:
    """Start and size of each partition in bytes."""
    table = json.loads(run("sfdisk", "--json", disk.packings["disk-raw"].path))["partitiontable"]
    assert table["label"] == "gpt"
    return {
        part["name"]: (part["start"] * SECTOR, part["size"] * SECTOR)
        for part in table["partitions"]
    }


def copy_partition(disk: Disk, place: tuple[int, int], out: Path) -> Path:
    """A copy of one file system alone; ``place`` is its start and size."""
    start, size = place
    source = disk.packings["disk-raw"].path
    blocks = [f"skip={start >> 20}", f"count={size >> 20}"]
    run("dd", "bs=1M", "conv=sparse", *blocks, f"if={source}", f"of={out}")
    return out


# What is on it


def test_a_built_disk_is_found_again(tiny_image: Image, disk: Disk) -> None:
    assert find_disk(tiny_image) == disk
    assert disk.image_digest == tiny_image.digest
    assert disk.extra_bytes > 100 << 20


def test_a_second_build_gives_the_same_bytes(
    tiny_image: Image, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootable, "disks_dir", lambda: tmp_path / "disks")
    monkeypatch.setattr(bootable_root, "systems_dir", lambda: tmp_path / "systems")
    again = require_forms(tiny_image, print)
    assert again.folder != disk.folder
    assert again.digest == disk.digest
    for name, packing in disk.packings.items():
        assert filecmp.cmp(again.packings[name].path, packing.path, shallow=False), name


def test_four_partitions_in_a_table_that_sfdisk_accepts(
    disk: Disk, partitions: dict[str, tuple[int, int]]
) -> None:
    assert list(partitions) == ["bios", "efi", "root", "image"]
    assert "No errors detected" in run("sfdisk", "--verify", disk.packings["disk-raw"].path)


def test_the_root_file_system_is_clean_and_knows_where_the_image_goes(
    disk: Disk, partitions: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    root = copy_partition(disk, partitions["root"], tmp_path / "root.ext4")
    run("e2fsck", "-fn", root)
    for path in ("/.harness/system", "/boot/grub/grub.cfg", "/etc/systemd/system/srv-image.mount"):
        assert "Type: regular" in run("debugfs", "-R", f"stat {path}", root), path
    assert "Type: directory" in run("debugfs", "-R", "stat /srv/image", root)


def test_the_image_is_there_as_machines_with_a_kernel_of_their_own_get_it(
    tiny_image: Image, disk: Disk, partitions: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    image = copy_partition(disk, partitions["image"], tmp_path / "image.ext4")
    assert filecmp.cmp(image, tiny_image.packings["ext4-raw"].path, shallow=False)


def test_the_system_beside_an_image_is_made_once(
    tiny_image: Image, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootable, "disks_dir", lambda: tmp_path)
    monkeypatch.setattr(bootable_system, "run_mmdebstrap", fail)
    assert require_disk(tiny_image, print).digest == disk.digest


def fail(*_: object) -> None:
    raise AssertionError("packages were installed again")


def test_the_efi_partition_has_the_boot_loader_where_firmware_looks(
    disk: Disk, partitions: dict[str, tuple[int, int]]
) -> None:
    start, _ = partitions["efi"]
    raw = disk.packings["disk-raw"].path
    assert "BOOTX64" in run("mdir", "-i", f"{raw}@@{start}", "::EFI/BOOT")


def test_the_compressed_forms_hold_the_same_disk(disk: Disk) -> None:
    raw, qcow2 = disk.packings["disk-raw"], disk.packings["disk-qcow2"]
    run("qemu-img", "compare", raw.path, qcow2.path)
    run("zstd", "-q", "-t", disk.packings["disk-raw-zstd"].path)
    assert qcow2.virtual == raw.apparent
    assert qcow2.apparent < raw.allocated


def test_what_the_disk_has_beyond_the_image_is_told(disk: Disk) -> None:
    names = {name for name, _, _ in disk.packages}
    assert {"systemd", "udev", "initramfs-tools", f"linux-image-{disk.kernel}"} <= names
    assert all(version and size >= 0 for _, version, size in disk.packages)


# Booting


@pytest.mark.parametrize(("machine", "uefi"), [("pc", False), ("q35", True)], ids=["bios", "uefi"])
def test_the_disk_boots_runs_a_command_in_the_image_and_powers_off(
    disk: Disk, tmp_path: Path, machine: str, uefi: bool
) -> None:
    base = disk.packings["disk-qcow2"].path
    overlay, serial = tmp_path / "overlay.qcow2", tmp_path / "serial.log"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
    firmware = build_firmware(tmp_path) if uefi else []
    with start_channel(tmp_path / "channel") as answers:
        command = [*build_qemu(machine, overlay, serial, tmp_path / "channel"), *firmware]
        done = subprocess.run(command, timeout=BOOT_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log = serial.read_text(errors="replace")
    said = [line.strip() for line in log.splitlines() if line.strip().startswith("@harness ")]
    assert [line.removeprefix("@harness ") for line in said] == WORDS, log
    assert b"found\n" in answers, bytes(answers)
    for word in (b"init\n", b"exec\n", b"ready\n", b"bye\n"):
        assert word in answers, bytes(answers)


def build_firmware(folder: Path) -> list[str]:
    firmware = require_firmware()
    variables = shutil.copy(firmware.variables, folder / "variables.fd")
    flash = "if=pflash,format=raw"
    return [
        *("-drive", f"{flash},unit=0,readonly=on,file={firmware.code}"),
        *("-drive", f"{flash},unit=1,file={variables}"),
    ]


def build_qemu(machine: str, disk: Path, serial: Path, channel: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-machine", machine, "-accel", "tcg", "-cpu", "max"),
        *("-m", MEMORY, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-smbios", f"type=11,value={OEM_PREFIX}no_timer_check"),
        *("-drive", f"file={disk},if=virtio,format=qcow2", "-serial", f"file:{serial}"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=channel,path={channel}"),
        *("-device", "virtserialport,chardev=channel,name=harness.channel"),
    ]


@contextlib.contextmanager
def start_channel(path: Path) -> Iterator[bytearray]:
    """The host's end of the channel: asks for COMMAND, then for the end; yields what is said."""
    words = ("sh", "-c", COMMAND)
    records = build_records([*(("arg", word) for word in words), ("ready", "exit")])
    answers = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(BOOT_S)
        worker = threading.Thread(target=serve, args=(listener, records, answers))
        worker.start()
        yield answers
        worker.join()


def serve(listener: socket.socket, records: bytes, answers: bytearray) -> None:
    connection, _ = listener.accept()
    with connection:
        told = asked = False
        while piece := connection.recv(4096):
            answers += piece
            if not told and b"init\n" in answers:
                connection.sendall(b"spec %d\n" % len(records) + records)
                told = True
            if not asked and (b"ready\n" in answers or b"fail " in answers):
                connection.sendall(b"stop\n")
                asked = True
