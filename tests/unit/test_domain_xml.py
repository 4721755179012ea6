"""What a virtual machine is described as: values, held against what they have to say."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.drivers.accelerator import build_proof, find_complaint
from harness.drivers.domain_xml import (
    DIRECT,
    KVM,
    MICROVM,
    TCG,
    Acceleration,
    Boot,
    Domain,
    build_command_line,
    build_domain_xml,
)
from harness.images.model import GuestKernel

DOMAIN = Domain(
    name="one",
    machine=DIRECT,
    acceleration=TCG,
    memory=256 << 20,
    cpus=2,
    console=Path("/run/console"),
    boot=Boot(Path("/k/vmlinux"), Path("/k/initramfs"), "quiet a=<b>"),
    disk=Path("/run/overlay.qcow2"),
    base=Path("/images/disk.raw"),
    channel=Path("/run/channel"),
    bridge="hbr0",
)
KERNEL = GuestKernel(
    "6.1", "sha256:0", Path("/k/bzImage"), Path("/k/vmlinux"), Path("/k/initramfs"), Path("/k/layered"), ()
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
        (TCG, "qemu", "maximum", []),
        (KVM, "kvm", "host-passthrough", []),
        (
            Acceleration("kvm", "host,arch-capabilities=off"),
            "kvm",
            "host-passthrough",
            ["arch-capabilities"],
        ),
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
    [(DIRECT, "q35", {"pci"}), (MICROVM, "microvm", {"virtio-mmio"})],
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


def test_the_proof_starts_the_guests_own_kernel() -> None:
    argv = build_proof(KERNEL, KVM, Path("/run/console"), None)
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-cpu") + 1] == "host"
    assert argv[argv.index("-kernel") + 1] == "/k/vmlinux"
    assert argv[argv.index("-initrd") + 1] == "/k/initramfs"


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
