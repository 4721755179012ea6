"""What a virtual machine is made of, as plain values: kernel command line and libvirt domain XML.

Formats: https://libvirt.org/formatdomain.html and the kernel's admin-guide/kernel-parameters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

CHANNEL_NAME = "harness.channel"
ROOT_DEVICE = "/dev/vda"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine model of QEMU. ``bus`` is where its virtio devices sit: ``pci`` or ``mmio``."""

    type: str
    bus: str


PC = Machine("pc", "pci")
DIRECT = Machine("q35", "pci")
MICROVM = Machine("microvm", "mmio")


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What executes the guest's instructions: ``kvm`` or ``tcg``, and QEMU's name of its CPU.

    ``cpu`` is a model and the features to leave off: ``host,arch-capabilities=off``.
    """

    name: str
    cpu: str


KVM = Acceleration("kvm", "host")
TCG = Acceleration("tcg", "max")


@dataclass(frozen=True, slots=True)
class Boot:
    """How the guest begins: its kernel, or with ``disk`` alone the firmware and a boot sector."""

    kernel: Path
    initramfs: Path
    command_line: str


@dataclass(frozen=True, slots=True)
class Domain:
    """One virtual machine to describe. Paths of sockets are where somebody listens already.

    ``disk`` is a qcow2 overlay on the raw ``base``; without a base it is raw itself, and with
    ``ide`` not a virtio disk. ``memory`` is in bytes. ``bridge`` gives it a network interface.
    """

    name: str
    machine: Machine
    acceleration: Acceleration
    memory: int
    cpus: int
    console: Path
    boot: Boot | None = None
    disk: Path | None = None
    base: Path | None = None
    ide: bool = False
    channel: Path | None = None
    bridge: str | None = None
    emulator: str | None = None


def build_command_line(acceleration: Acceleration, tsc_khz: int | None) -> str:
    """The kernel's command line.

    ``earlyprintk`` before ``quiet`` lets out one line as soon as there is a serial port, and that
    first byte is the milestone ``kernel``; later a panic would still be printed. The agent ends a
    guest by ACPI; ``panic=-1 reboot=t`` does it at once where the kernel cannot.
    An emulated guest reads the host's time stamp counter but has to find its frequency in loops
    that the host may interrupt, and does not come up when that fails: it is told instead
    (``tsc_khz``), and spared the test of timer interrupts, which fails in the same way.
    """
    words = [
        "loglevel=6",
        "earlyprintk=ttyS0,115200",
        "quiet",
        "console=ttyS0",
        "panic=-1",
        "reboot=t",
        "cryptomgr.notests",
        f"harness.root={ROOT_DEVICE}",
        "harness.stop=poweroff",
    ]
    if acceleration.name == "tcg":
        words.append("no_timer_check")
        if tsc_khz is not None:
            words.append(f"tsc_early_khz={tsc_khz}")
    return " ".join(words)


def build_domain_xml(domain: Domain) -> str:
    """The whole domain, with only the devices that it needs."""
    kind = "kvm" if domain.acceleration.name == "kvm" else "qemu"
    root = _element("domain", {"type": kind})
    _add(root, "name", text=domain.name)
    _add(root, "memory", {"unit": "b"}, str(domain.memory))
    _add(root, "vcpu", text=str(domain.cpus))
    _add_boot(root, domain)
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _add_cpu(root, domain.acceleration)
    _add_ends(root)
    devices = _add(root, "devices")
    if domain.emulator:
        _add(devices, "emulator", text=domain.emulator)
    _add_devices(devices, domain)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


def _add_boot(root: ElementTree.Element, domain: Domain) -> None:
    system = _add(root, "os")
    _add(system, "type", {"arch": "x86_64", "machine": domain.machine.type}, "hvm")
    if domain.boot is None:
        _add(system, "boot", {"dev": "hd"})
        return
    _add(system, "kernel", text=str(domain.boot.kernel))
    _add(system, "initrd", text=str(domain.boot.initramfs))
    _add(system, "cmdline", text=domain.boot.command_line)


def _add_cpu(root: ElementTree.Element, acceleration: Acceleration) -> None:
    model, *features = acceleration.cpu.split(",")
    modes = {"host": "host-passthrough", "max": "maximum"}
    cpu = _add(root, "cpu", {"mode": modes[model], "check": "none", "migratable": "off"})
    for feature in features:
        name, _, state = feature.partition("=")
        policy = "disable" if state == "off" else "require"
        _add(cpu, "feature", {"policy": policy, "name": name})


def _add_ends(root: ElementTree.Element) -> None:
    """However a guest ends, its domain ends: a trial never sees a second boot."""
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(root, event, text="destroy")


def _add_devices(devices: ElementTree.Element, domain: Domain) -> None:
    where = _addresses(domain.machine)
    _add(devices, "controller", {"type": "usb", "model": "none"})
    if domain.channel:
        controller = _add(devices, "controller", {"type": "virtio-serial", "index": "0"})
        controller.append(next(where))
    if domain.disk:
        devices.append(_build_disk(domain, None if domain.ide else next(where)))
    if domain.bridge:
        interface = _add(devices, "interface", {"type": "bridge"})
        _add(interface, "source", {"bridge": domain.bridge})
        _add(interface, "model", {"type": "virtio"})
        interface.append(next(where))
    serial = _add(devices, "serial", {"type": "unix"})
    _add(serial, "source", {"mode": "connect", "path": str(domain.console)})
    _add(serial, "target", {"type": "isa-serial", "port": "0"})
    if domain.channel:
        channel = _add(devices, "channel", {"type": "unix"})
        _add(channel, "source", {"mode": "connect", "path": str(domain.channel)})
        _add(channel, "target", {"type": "virtio", "name": CHANNEL_NAME})
    _add(devices, "memballoon", {"model": "none"})


def _build_disk(domain: Domain, address: ElementTree.Element | None) -> ElementTree.Element:
    disk = _element("disk", {"type": "file", "device": "disk"})
    _add(disk, "driver", {"name": "qemu", "type": "qcow2" if domain.base else "raw"})
    _add(disk, "source", {"file": str(domain.disk)})
    if domain.base:
        backing = _add(disk, "backingStore", {"type": "file"})
        _add(backing, "format", {"type": "raw"})
        _add(backing, "source", {"file": str(domain.base)})
        _add(backing, "backingStore")
    if address is None:
        _add(disk, "target", {"dev": "hda", "bus": "ide"})
    else:
        _add(disk, "target", {"dev": "vda", "bus": "virtio"})
        disk.append(address)
    return disk


def _addresses(machine: Machine) -> Iterator[ElementTree.Element]:
    """Addresses for virtio devices: on the root bus, so that no bridge has to be found first."""
    for slot in range(2, 32):
        if machine.bus == "mmio":
            yield _element("address", {"type": "virtio-mmio"})
        else:
            yield _element("address", {"type": "pci", "bus": "0x00", "slot": f"{slot:#04x}"})


def _element(tag: str, attributes: Mapping[str, str] | None = None) -> ElementTree.Element:
    return ElementTree.Element(tag, dict(attributes or {}))


def _add(
    parent: ElementTree.Element,
    tag: str,
    attributes: Mapping[str, str] | None = None,
    text: str | None = None,
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, dict(attributes or {}))
    child.text = text
    return child
