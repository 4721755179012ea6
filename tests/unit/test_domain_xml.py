"""What a virtual machine is described as: values, held against what they have to say."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.drivers.accelerator import (
    KVM,
    KVM_WITHOUT_CAPABILITIES_MSR,
    TCG,
    TUNED_KVM,
    TUNED_TCG,
    Guest,
    build_direct_guest,
    build_proof,
    find_complaint,
)
from harness.drivers.domain_xml import (
    MICROVM,
    Q35,
    Acceleration,
    Boot,
    DiskMode,
    Domain,
    Drive,
    Placement,
    Share,
    Uefi,
    build_domain_xml,
    list_throttles,
)
from harness.drivers.kernel_line import build_command_line
from harness.drivers.storage import build_storage
from harness.drivers.tuning import Means, parse_huge_pages, tune
from harness.images.bootable_firmware import Firmware
from harness.images.model import GuestKernel
from harness.variants import Options

OVERLAY = Drive(Path("/run/overlay.qcow2"), "qcow2", ((Path("/images/disk.raw"), "raw"),))
DOMAIN = Domain(
    name="one",
    machine=Q35,
    acceleration=TUNED_TCG,
    memory=256 << 20,
    cpus=2,
    console=Path("/run/console"),
    boot=Boot(Path("/k/vmlinux"), Path("/k/initramfs"), "quiet a=<b>"),
    drives=(OVERLAY,),
    channel=Path("/run/channel"),
    bridge="hbr0",
    lean=True,
)
KERNEL = GuestKernel(
    release="6.1",
    digest="sha256:0",
    bzimage=Path("/k/bzImage"),
    elf=Path("/k/vmlinux"),
    initramfs=Path("/k/initramfs"),
    layered=Path("/k/layered"),
    modules=(),
)


def parse(domain: Domain) -> ElementTree.Element:
    return ElementTree.fromstring(build_domain_xml(domain))


def test_kernel_and_command_line_survive_the_markup() -> None:
    system = parse(DOMAIN).find("os")
    assert system is not None
    assert system.findtext("kernel") == "/k/vmlinux"
    assert system.findtext("initrd") == "/k/initramfs"
    assert system.findtext("cmdline") == "quiet a=<b>"


@pytest.mark.parametrize(
    ("acceleration", "kind", "cpu", "disabled"),
    [
        (TUNED_TCG, "qemu", "maximum", []),
        (TUNED_KVM, "kvm", "host-passthrough", []),
        (KVM_WITHOUT_CAPABILITIES_MSR, "kvm", "host-passthrough", ["arch-capabilities"]),
    ],
)
def test_kvm_passes_the_hosts_cpu_through(
    acceleration: Acceleration, kind: str, cpu: str, disabled: list[str]
) -> None:
    root = parse(replace(DOMAIN, acceleration=acceleration))
    assert root.get("type") == kind
    element = root.find("cpu")
    assert element is not None and element.get("mode") == cpu
    assert [each.get("name") for each in element.findall("feature[@policy='disable']")] == disabled


@pytest.mark.parametrize(
    ("machine", "type_", "addresses"),
    [(Q35, "q35", {"pci"}), (MICROVM, "microvm", {"virtio-mmio"})],
)
def test_virtio_devices_sit_on_the_machines_own_bus(
    machine: object, type_: str, addresses: set[str]
) -> None:
    root = parse(replace(DOMAIN, machine=machine))  # type: ignore[arg-type]
    element = root.find("os/type")
    assert element is not None and element.get("machine") == type_
    found = root.findall("devices/*/address")
    assert {each.get("type") for each in found} == addresses
    assert len({(each.get("slot"), position) for position, each in enumerate(found)}) == 3


def test_pci_slots_are_used_once() -> None:
    slots = [each.get("slot") for each in parse(DOMAIN).findall("devices/*/address")]
    assert slots == ["0x02", "0x03", "0x04"]


def test_the_image_is_only_the_base_of_the_instances_own_disk() -> None:
    disk = parse(DOMAIN).find("devices/disk")
    assert disk is not None
    driver, source = disk.find("driver"), disk.find("source")
    base = disk.find("backingStore/source")
    assert driver is not None and driver.get("type") == "qcow2"
    assert source is not None and source.get("file") == "/run/overlay.qcow2"
    assert base is not None and base.get("file") == "/images/disk.raw"


def test_both_lines_to_the_guest_connect_to_sockets_that_listen() -> None:
    root = parse(DOMAIN)
    for tag, path in (("serial", "/run/console"), ("channel", "/run/channel")):
        source = root.find(f"devices/{tag}/source")
        assert source is not None
        assert (source.get("mode"), source.get("path")) == ("connect", path)
    target = root.find("devices/channel/target")
    assert target is not None and target.get("name") == "harness.channel"


def test_a_guest_without_a_network_has_no_interface() -> None:
    assert parse(DOMAIN).find("devices/interface") is not None
    assert parse(replace(DOMAIN, bridge=None)).find("devices/interface") is None


def test_every_end_of_the_guest_is_the_end_of_the_domain() -> None:
    root = parse(DOMAIN)
    assert [root.findtext(f"on_{each}") for each in ("poweroff", "reboot", "crash")] == [
        "destroy"
    ] * 3


def test_one_early_line_and_then_silence() -> None:
    words = build_command_line(KVM, None).split()
    assert words.index("earlyprintk=ttyS0,115200") < words.index("quiet")
    assert "console=ttyS0" in words and "panic=-1" in words


def test_only_an_emulated_guest_is_told_the_frequency() -> None:
    assert "tsc_early_khz=2000000" in build_command_line(TCG, 2_000_000).split()
    assert "tsc_early_khz" not in build_command_line(TCG, None)
    for word in ("tsc_early_khz", "no_timer_check"):
        assert word not in build_command_line(KVM, 2_000_000)


@pytest.mark.parametrize("acceleration", [KVM, TCG])
def test_a_default_machine_says_little_and_leaves_the_rest_to_libvirt(
    acceleration: Acceleration,
) -> None:
    root = parse(replace(DOMAIN, acceleration=acceleration, lean=False))
    for path in ("cpu", "cputune", "iothreads", "memoryBacking", "devices/memballoon"):
        assert root.find(path) is None
    assert root.findall("devices/*/address") == []
    driver = root.find("devices/disk/driver")
    assert driver is not None and dict(driver.attrib) == {"name": "qemu", "type": "qcow2"}


def test_a_microvm_has_nothing_but_virtio_however_it_is_made() -> None:
    root = parse(replace(DOMAIN, machine=MICROVM, lean=False))
    balloon, usb = root.find("devices/memballoon"), root.find("devices/controller[@type='usb']")
    assert balloon is not None and balloon.get("model") == "none"
    assert usb is not None and usb.get("model") == "none"


def test_libvirt_throttles_a_disk_but_one_on_the_mmio_bus_which_qemu_is_told_of() -> None:
    drives = (replace(OVERLAY, read_only=True), OVERLAY)
    slow = replace(DOMAIN, drives=drives, mode=DiskMode(write=4096))
    assert list_throttles(slow) == {}
    assert parse(slow).findtext("devices/disk/iotune/write_bytes_sec") == "4096"
    micro = replace(slow, machine=MICROVM)
    assert list_throttles(micro) == {"virtio-disk1": 4096}
    assert parse(micro).find("devices/disk/iotune") is None
    assert list_throttles(replace(micro, mode=DiskMode())) == {}


def test_firmware_and_a_disk_take_the_place_of_a_kernel() -> None:
    uefi = Uefi(Path("/f/code.fd"), Path("/run/variables.fd"))
    root = parse(replace(DOMAIN, boot=None, uefi=uefi, oem_strings=("harness.kernel=a b",)))
    assert root.findtext("os/loader") == "/f/code.fd"
    assert root.findtext("os/nvram") == "/run/variables.fd"
    assert root.find("os/kernel") is None and root.find("os/boot") is not None
    assert root.findtext("sysinfo/oemStrings/entry") == "harness.kernel=a b"
    smbios = root.find("os/smbios")
    assert smbios is not None and smbios.get("mode") == "sysinfo"


def test_a_shared_folder_needs_memory_that_is_shared() -> None:
    root = parse(replace(DOMAIN, drives=(), share=Share(Path("/tree"))))
    access, source = root.find("memoryBacking/access"), root.find("memoryBacking/source")
    assert access is not None and access.get("mode") == "shared"
    assert source is not None and source.get("type") == "memfd"
    folder = root.find("devices/filesystem/source")
    assert folder is not None and folder.get("dir") == "/tree"


# ---- tuning ------------------------------------------------------------------------------------

RICH = Means(cpus=(0, 1, 2, 3), huge_pages=1 << 30, direct_io=True)
POOR = Means(cpus=(0, 1), huge_pages=0, direct_io=False)


def test_a_host_that_has_everything_gives_every_item() -> None:
    tuned, listed = tune(replace(DOMAIN, acceleration=TUNED_KVM, lean=False), RICH)
    assert [each.item for each in listed if not each.applied] == []
    assert tuned.placement == Placement(vcpus=(2, 3), emulator=(0, 1))
    assert tuned.mode == DiskMode("none", "native", iothread=True)
    assert tuned.huge_pages and tuned.lean
    root = parse(tuned)
    pins = root.findall("cputune/vcpupin")
    assert [(each.get("vcpu"), each.get("cpuset")) for each in pins] == [("0", "2"), ("1", "3")]
    for name in ("emulatorpin", "iothreadpin"):
        pin = root.find(f"cputune/{name}")
        assert pin is not None and pin.get("cpuset") == "0,1"
    assert root.find("memoryBacking/hugepages") is not None
    driver = root.find("devices/disk/driver")
    assert driver is not None
    assert (driver.get("cache"), driver.get("io"), driver.get("iothread")) == (
        "none", "native", "1",
    )  # fmt: skip


def test_what_a_host_lacks_is_said_and_left_out() -> None:
    tuned, listed = tune(replace(DOMAIN, machine=MICROVM), POOR)
    faults = {each.item: each.why_not for each in listed if not each.applied}
    assert set(faults) == {
        "vcpu-pinning", "emulator-pinning", "disk-cache", "disk-io", "iothread", "huge-pages",
        "devices",
    }  # fmt: skip
    assert all(faults.values())
    assert tuned.placement is None and tuned.mode == DiskMode() and not tuned.huge_pages
    assert all(each.reason and each.setting for each in listed)


def test_discard_is_for_the_disks_that_are_written() -> None:
    drives = (Drive(Path("/lower"), read_only=True), Drive(Path("/upper")))
    found = {
        asked: [
            driver.get("discard")
            for driver in parse(
                replace(DOMAIN, drives=drives, mode=DiskMode(discard=asked))
            ).findall("devices/disk/driver")
        ]
        for asked in (False, True)
    }
    assert found == {False: [None, None], True: [None, "unmap"]}
    tuned, _ = tune(replace(DOMAIN, mode=DiskMode(discard=True)), RICH)
    assert tuned.mode.discard


def test_a_cache_mode_that_was_asked_for_stays() -> None:
    tuned, listed = tune(replace(DOMAIN, mode=DiskMode("unsafe")), RICH)
    assert tuned.mode.cache == "unsafe" and tuned.mode.io is None
    assert next(each.why_not for each in listed if each.item == "disk-cache")


def test_an_ordinary_user_has_no_file_system_for_huge_pages() -> None:
    _, listed = tune(DOMAIN, replace(RICH, mounts=False))
    (found,) = [each for each in listed if each.item == "huge-pages"]
    assert found.why_not == "only root may give a guest huge pages here"


def test_free_huge_pages_are_counted_in_bytes() -> None:
    text = "HugePages_Total:      8\nHugePages_Free:       3\nHugepagesize:       2048 kB\n"
    assert parse_huge_pages(text) == 6 << 20
    assert parse_huge_pages("MemTotal: 1 kB\n") == 0


# ---- disks -------------------------------------------------------------------------------------

SOURCES = {
    "raw": Path("/i/disk.raw"),
    "erofs": Path("/i/root.erofs"),
    "squashfs": Path("/i/root.squashfs"),
    "virtiofs": Path("/i/tree"),
}


@pytest.mark.parametrize(
    ("options", "formats", "own", "words"),
    [
        (Options(), ["qcow2"], ["overlay.qcow2"], ()),
        (Options(disk="raw"), ["raw"], ["disk.raw"], ()),
        (Options(disk="qcow2"), ["qcow2"], ["disk.qcow2"], ()),
        (Options(disk="erofs"), ["raw"], [], ("harness.fs=erofs", "harness.upper=tmpfs")),
        (
            Options(disk="squashfs", upper="disk"),
            ["raw", "raw"],
            ["upper.raw"],
            ("harness.fs=squashfs", "harness.upper=/dev/vdb"),
        ),
        (
            Options(disk="virtiofs"),
            [],
            [],
            ("harness.fs=virtiofs", "harness.root=root", "harness.upper=tmpfs"),
        ),
        (
            Options(disk="virtiofs", upper="disk"),
            ["raw"],
            ["upper.raw"],
            ("harness.fs=virtiofs", "harness.root=root", "harness.upper=/dev/vda"),
        ),
    ],
)
def test_an_instance_writes_only_to_its_own_files(
    options: Options, formats: list[str], own: list[str], words: tuple[str, ...]
) -> None:
    storage = build_storage(options, SOURCES, Path("/run"))
    assert [each.format for each in storage.drives] == formats
    assert [path.name for path in storage.own] == own
    assert storage.words == words
    written = [each.path for each in storage.drives if not each.read_only]
    assert set(written) == set(storage.own)
    assert not set(storage.shared) & set(storage.own)
    assert bool(storage.share) == (options.disk == "virtiofs")


def test_a_root_that_is_no_disk_is_named_once() -> None:
    storage = build_storage(Options(disk="virtiofs"), SOURCES, Path("/run"))
    line = build_command_line(KVM, None, storage.words).split()
    assert [word for word in line if word.startswith("harness.root=")] == ["harness.root=root"]
    assert "harness.root=/dev/vda" in build_command_line(KVM, None).split()


# ---- proofs ------------------------------------------------------------------------------------


def test_the_proof_starts_the_guests_own_kernel() -> None:
    argv = build_proof(build_direct_guest(KERNEL), TUNED_KVM, Path("/run"), None, 5)
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-cpu") + 1] == "host"
    assert argv[argv.index("-kernel") + 1] == "/k/vmlinux"
    assert argv[argv.index("-initrd") + 1] == "/k/initramfs"
    assert "-cpu" not in build_proof(build_direct_guest(KERNEL), KVM, Path("/run"), None, 5)


def test_the_proof_of_a_disk_starts_its_firmware_and_cannot_write_it() -> None:
    uefi = Firmware(Path("/f/code.fd"), Path("/f/vars.fd"))
    guest = Guest("sha256:1", "q35", disk=Path("/d/disk.raw"), uefi=uefi)
    argv = build_proof(guest, TCG, Path("/run"), 2_000_000, 5)
    drives = [argv[place + 1] for place, word in enumerate(argv) if word == "-drive"]
    assert "if=pflash,format=raw,file=/run/variables" in drives
    assert any("readonly=on,file=/d/disk.raw" in each for each in drives)
    assert "-kernel" not in argv
    assert argv[argv.index("-smbios") + 1].startswith("type=11,value=harness.kernel=no_timer_check")


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ("", None),
        ("qemu-system-x86_64: warning: slow\n", None),
        (
            "qemu-system-x86_64: warning: x\nqemu-system-x86_64: error: failed to set MSR 0x10a\n"
            "qemu-system-x86_64: kvm.c:1: Assertion failed\n",
            "failed to set MSR 0x10a",
        ),
    ],
)
def test_what_qemu_complains_of_first(messages: str, complaint: str | None) -> None:
    assert find_complaint(messages) == complaint
