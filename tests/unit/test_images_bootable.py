"""The pieces of a bootable disk as values: partitions, boot code, GRUB's words, the unit."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.images import bootable, bootable_disk
from harness.images.bootable import PATHS, build_key, format_disk, read_disk
from harness.images.bootable_disk import (
    MIB,
    SECTOR,
    build_layout,
    build_table,
    copy_sparse,
    find_loader,
    find_modules,
    patch_boot_code,
    patch_core,
    require_boot_tools,
    require_grub,
)
from harness.images.bootable_files import (
    build_command_line,
    build_early_config,
    build_early_files,
    build_grub_config,
    build_late_files,
    build_unit,
)
from harness.images.bootable_firmware import (
    Firmware,
    find_firmware,
    parse_description,
    require_firmware,
)
from harness.images.bootable_system import (
    find_added,
    find_release,
    is_system,
    list_changed,
    parse_status,
)
from harness.images.model import Disk, Image, Packing
from harness.images.rootfs import build_file, build_folder, build_symlink

DIGEST = "sha256:" + "5" * 64
STATUS = """\
Package: base
Status: install ok installed
Installed-Size: 10
Version: 1.0

Package: gone
Status: deinstall ok config-files
Version: 2.0
"""


def build_image(name: str = "tiny", digest: str = DIGEST) -> Image:
    return Image(name, digest, Path("/nowhere"), {})


def build_disk(folder: Path) -> Disk:
    folder.mkdir(parents=True)
    for path in PATHS.values():
        (folder / path).write_bytes(b"disk")
    packings = {name: Packing(name, folder / path, 4, 4096, 4) for name, path in PATHS.items()}
    packages = (("base", "1.0", 10240),)
    return Disk("tiny", DIGEST, DIGEST, folder, packings, "6.1", packages, 7, ("etc/passwd",))


# The disk


def test_partitions_follow_each_other_on_whole_mebibytes() -> None:
    layout = build_layout(DIGEST, 300 * MIB)
    assert layout.bios.start == MIB
    assert layout.efi.start == layout.bios.start + layout.bios.size
    assert layout.root.start == layout.efi.start + layout.efi.size
    assert layout.size == layout.root.start + 300 * MIB + MIB


def test_an_image_beside_a_system_has_a_partition_after_the_root() -> None:
    layout = build_layout(DIGEST, 300 * MIB, "sha256:7", 40 * MIB)
    assert layout.image is not None and layout.image.start == layout.root.start + 300 * MIB
    assert layout.size == layout.image.start + 40 * MIB + MIB
    assert [part.name for part in layout.partitions] == ["bios", "efi", "root", "image"]
    again = build_layout("sha256:6", 300 * MIB, "sha256:7", 40 * MIB)
    assert again.root.uuid == layout.root.uuid  # GRUB's configuration in the root names it
    assert again.image is not None and again.image.uuid != layout.image.uuid


def test_ids_come_from_the_image_alone() -> None:
    one, again = build_layout(DIGEST, MIB), build_layout(DIGEST, 2 * MIB)
    other = build_layout("sha256:6", MIB)
    assert (one.uuid, one.root.uuid) == (again.uuid, again.root.uuid)
    assert one.root.uuid != other.root.uuid
    assert len({one.uuid, one.bios.uuid, one.efi.uuid, one.root.uuid}) == 4


def test_sfdisk_is_told_everything() -> None:
    layout = build_layout(DIGEST, 300 * MIB)
    lines = build_table(layout).splitlines()
    assert lines[:3] == ["label: gpt", f"label-id: {layout.uuid}", "unit: sectors"]
    assert lines[5].startswith(f"start={18 * MIB // SECTOR}, size={300 * MIB // SECTOR}, type=4F68")
    assert lines[5].endswith(f"uuid={layout.root.uuid}, name=root")


def test_boot_code_loads_the_core_and_leaves_the_partition_table() -> None:
    code = patch_boot_code(bytes(range(256)) * 2, 2048)
    assert len(code) == 440
    assert struct.unpack_from("<Q", code, 0x5C) == (2048,)
    assert code[0x66:0x68] == b"\x90\x90"
    assert code[:0x5C] == bytes(range(0x5C))


def test_the_core_knows_where_its_second_sector_is() -> None:
    core = patch_core(bytes(2 * SECTOR), 2048)
    assert struct.unpack_from("<Q", core, SECTOR - 12) == (2049,)
    assert len(core) == 2 * SECTOR


def test_a_copy_into_a_disk_keeps_holes(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    with source.open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"data")
        file.truncate(16 * MIB)
    out.touch()
    with out.open("r+b") as file:
        file.truncate(32 * MIB)
    copy_sparse(source, out, MIB)
    assert out.read_bytes().find(b"data") == 9 * MIB
    assert out.stat().st_blocks * 512 < MIB


# What it says and does


def test_grub_says_its_words_on_lines_of_their_own() -> None:
    early = build_early_config("").splitlines()
    assert early[:4] == [
        "serial --unit=0 --speed=115200",
        "terminal_output serial",
        "echo",
        'echo "@harness loader"',
    ]
    config = build_grub_config("6.1", build_command_line("id")).splitlines()
    last = [line.strip() for line in config if line.strip() != "fi"][-3:]
    assert last == ["echo", 'echo "@harness boot"', "boot"]


def test_the_machine_may_add_to_the_command_line() -> None:
    config = build_grub_config("6.1", build_command_line("id"))
    assert "regexp --set 1:extra '^harness.kernel=(.*)$' \"$oem\"" in config
    kernel = next(line for line in config.splitlines() if "linux$kind " in line)
    assert kernel.startswith("if linux$kind /boot/vmlinuz-6.1 root=PARTUUID=id rw ")
    assert kernel.endswith(" $extra; then")
    assert "earlyprintk=ttyS0,115200 quiet" in kernel


def test_the_unit_of_a_system_runs_the_agent_in_its_own_root() -> None:
    unit = build_unit(None)
    assert "ExecStart=/.harness/agent /dev/virtio-ports/harness.channel\n" in unit
    assert "BindsTo=dev-virtio\\x2dports-harness.channel.device\n" in unit
    assert "SuccessAction=poweroff\nFailureAction=poweroff\n" in unit
    assert "BindPaths" not in unit and "Mounts" not in unit


def test_the_unit_of_another_image_gives_the_workload_that_tree() -> None:
    unit = build_unit("srv/image")
    assert "harness.channel --root=/srv/image\n" in unit
    assert "BindPaths=/dev:/srv/image/dev /proc:/srv/image/proc /sys:/srv/image/sys\n" in unit
    assert "RequiresMountsFor=/srv/image\n" in unit


def test_the_image_is_mounted_by_a_unit_and_discards_where_the_root_does() -> None:
    files = {entry.path: entry.content for entry in build_late_files("6.1", "id", "srv/image")}
    mount = files["etc/systemd/system/srv-image.mount"]
    assert isinstance(mount, bytes)
    assert b"What=/dev/disk/by-partlabel/image\nWhere=/srv/image\n" in mount
    discard = files["etc/systemd/system/harness-discard.service"]
    assert isinstance(discard, bytes) and b"KernelCommandLine=rootflags=discard\n" in discard
    assert "srv/image" in files


def test_the_unit_is_wanted_by_the_multi_user_target() -> None:
    files = {entry.path: entry for entry in build_late_files("6.1", "id", None)}
    link = files["etc/systemd/system/multi-user.target.wants/harness.service"]
    assert link.target == "/etc/systemd/system/harness.service"


def test_the_initramfs_speaks_first_and_after_udev() -> None:
    files = {entry.path: entry for entry in build_early_files()}
    scripts = "etc/initramfs-tools/scripts"
    first = files[f"{scripts}/init-top/harness"].content
    last = files[f"{scripts}/init-bottom/harness"].content
    assert isinstance(first, bytes) and isinstance(last, bytes)
    assert b"\\n@harness initramfs\\n" in first
    assert b"\\n@harness system\\n" in last and b'echo "udev"' in last


# The system


@pytest.mark.parametrize(
    ("name", "expected"), [("slim", True), ("python", True), ("tiny", False), ("mine", False)]
)
def test_debian_images_are_systems(name: str, expected: bool) -> None:
    assert is_system(name) is expected


def test_packages_are_those_that_are_installed() -> None:
    assert parse_status(STATUS) == {"base": ("1.0", 10240)}


def test_added_packages_are_new_ones_and_new_versions() -> None:
    before = {"base": ("1.0", 1), "same": ("1", 1)}
    after = {"base": ("1.1", 2), "same": ("1", 1), "systemd": ("252", 3)}
    assert find_added(before, after) == (("base", "1.1", 2), ("systemd", "252", 3))


def test_what_differs_is_listed_without_regard_to_times() -> None:
    before = [
        build_file("same", b"1"),
        build_file("text", b"1"),
        build_file("mode", b"1"),
        build_file("gone", b"1"),
        build_symlink("link", "a"),
    ]
    after = [
        replace(build_file("same", b"1"), mtime=5),
        build_file("text", b"2"),
        build_file("mode", b"1", 0o755),
        build_symlink("link", "b"),
        build_folder("new"),
    ]
    changed = list_changed(
        {entry.path: entry for entry in before}, {entry.path: entry for entry in after}
    )
    assert changed == ("gone", "link", "mode", "text")


def test_a_kernel_counts_with_its_initramfs_only() -> None:
    kernel, initramfs = build_file("boot/vmlinuz-6.1", b""), build_file("boot/initrd.img-6.1", b"")
    assert find_release({kernel.path: kernel, initramfs.path: initramfs}) == "6.1"
    with pytest.raises(HostError, match="linux-image-cloud-amd64 has left no kernel"):
        find_release({kernel.path: kernel})


# Missing parts


def test_missing_grub_names_the_file_and_the_package(tmp_path: Path) -> None:
    folder = tmp_path / "i386-pc"
    folder.mkdir()
    for name in ("normal.mod", "smbios.mod"):
        (folder / name).touch()
    with pytest.raises(HostError, match=r"i386-pc/boot\.img is missing") as caught:
        require_grub(folder, "grub-pc-bin")
    assert caught.value.hint == "install the package grub-pc-bin"


@pytest.mark.parametrize(
    ("tool", "package"),
    [("mkfs.fat", "dosfstools"), ("mcopy", "mtools"), ("sfdisk", "fdisk")],
)
def test_a_missing_tool_names_its_package(
    monkeypatch: pytest.MonkeyPatch, tool: str, package: str
) -> None:
    monkeypatch.setattr(bootable_disk, "require_grub", lambda *_: None)
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name == tool else f"/bin/{name}")
    with pytest.raises(HostError, match=f"{tool} is not installed") as caught:
        require_boot_tools()
    assert caught.value.hint == f"install the package {package}"


def test_firmware_needs_both_of_its_files(tmp_path: Path) -> None:
    firmware = Firmware(tmp_path / "CODE.fd", tmp_path / "VARS.fd")
    firmware.code.touch()
    with pytest.raises(HostError, match="no UEFI firmware") as caught:
        require_firmware((firmware,), ())
    assert caught.value.hint == "install the package ovmf"
    firmware.variables.touch()
    assert find_firmware((firmware,), ()) == firmware


@pytest.mark.parametrize(("there", "loader"), [(True, ("linuxefi",)), (False, ())])
def test_grub_is_asked_how_it_enters_a_kernel_by_its_efi_stub(
    tmp_path: Path, there: bool, loader: tuple[str, ...]
) -> None:
    """GRUB 2.12 has no `linuxefi`: its `linux` does so by itself."""
    if there:
        (tmp_path / "linuxefi.mod").touch()
    assert find_loader(tmp_path) == loader


@pytest.mark.parametrize("kind", ["", "efi"])
def test_the_core_tells_the_disk_what_its_commands_are_called(kind: str) -> None:
    early = build_early_config(kind).splitlines()
    told = early.index(f"set kind={kind}")
    assert early[told : told + 3] == [
        f"set kind={kind}",
        "export kind",
        "configfile /boot/grub/grub.cfg",
    ]
    assert "kind=" not in build_grub_config("6.1", "")


def test_grubs_modules_are_found_wherever_a_distribution_has_them(tmp_path: Path) -> None:
    first, second = tmp_path / "lib", tmp_path / "share"
    assert find_modules("i386-pc", (first, second)) == first / "i386-pc"
    (second / "i386-pc").mkdir(parents=True)
    assert find_modules("i386-pc", (first, second)) == second / "i386-pc"


def describe_firmware(folder: Path, **changes: object) -> str:
    def part(name: str) -> dict[str, str]:
        return {"filename": str(folder / name), "format": "raw"}

    document: dict[str, object] = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": part("CODE.fd"),
            "nvram-template": part("VARS.fd"),
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}],
        "features": ["acpi-s3", "amd-sev", "verbose-dynamic"],
    }
    return json.dumps({**document, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"interface-types": ["bios"]},
        {"features": ["secure-boot", "enrolled-keys"]},
        {"features": ["requires-smm", "secure-boot"]},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"targets": [{"architecture": "x86_64", "machines": ["microvm"]}]},
        {"mapping": {"device": "memory", "filename": "/f"}},
        {"mapping": None},
    ],
)
def test_a_description_of_other_firmware_is_passed_over(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    assert parse_description(describe_firmware(tmp_path, **changes)) is None


def test_firmware_in_an_unusual_place_is_found_by_its_description(tmp_path: Path) -> None:
    own, system = tmp_path / "etc", tmp_path / "usr"
    for folder in (own, system):
        folder.mkdir()
        for name in ("CODE.fd", "VARS.fd"):
            (folder / name).touch()
    (system / "10-broken.json").write_text("{")
    (system / "60-plain.json").write_text(describe_firmware(system))
    found = find_firmware((), (own, system))
    assert found == Firmware(system / "CODE.fd", system / "VARS.fd")
    (own / "60-plain.json").write_text(describe_firmware(own))
    found = find_firmware((), (own, system))
    assert found == Firmware(own / "CODE.fd", own / "VARS.fd")


# The cache


def test_a_record_reads_back_wherever_the_cache_is(tmp_path: Path) -> None:
    disk = build_disk(tmp_path / "one")
    (disk.folder / "disk.json").write_text(format_disk(disk))
    moved = disk.folder.rename(tmp_path / "two")
    found = read_disk(moved)
    assert found is not None and found.packings["disk-raw"].path == moved / "disk.raw"
    assert (found.packages, found.changed) == (disk.packages, disk.changed)
    (moved / "disk.qcow2").unlink()
    assert read_disk(moved) is None


def test_a_disk_is_whole_without_its_compressed_forms_until_they_are_made(tmp_path: Path) -> None:
    disk = build_disk(tmp_path / "one")
    raw = replace(disk, packings={"disk-raw": disk.packings["disk-raw"]})
    (disk.folder / "disk.json").write_text(format_disk(raw))
    found = read_disk(disk.folder)
    assert found is not None and list(found.packings) == ["disk-raw"]
    (disk.folder / "disk.json").write_text(format_disk(replace(disk, packings={})))
    assert read_disk(disk.folder) is None


def test_a_record_of_another_version_is_none(tmp_path: Path) -> None:
    disk = build_disk(tmp_path / "one")
    text = format_disk(disk).replace('"version": 1', '"version": 0')
    (disk.folder / "disk.json").write_text(text)
    assert read_disk(disk.folder) is None


def test_another_image_or_suite_is_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    key = build_key(build_image(), "bookworm")
    assert key == build_key(build_image(), "bookworm")
    assert key != build_key(build_image(digest="sha256:6"), "bookworm")
    assert key != build_key(build_image(), "trixie")
    monkeypatch.setattr(bootable, "PACKAGES", ("other",))
    assert key != build_key(build_image(), "bookworm")
