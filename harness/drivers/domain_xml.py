"""What a virtual machine is made of, as plain values, and libvirt's domain XML of it.

Format: https://libvirt.org/formatdomain.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lxml import etree

from harness.certificate import NONE, Condition, Conditions
from harness.variants import DiskCache

CHANNEL_NAME = "harness.channel"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine model of QEMU. ``bus`` is where its virtio devices sit: ``pci`` or ``mmio``."""

    type: str
    bus: Literal["pci", "mmio"]


PC = Machine("pc", "pci")
Q35 = Machine("q35", "pci")
MICROVM = Machine("microvm", "mmio")


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What executes the guest's instructions: ``kvm`` or ``tcg``, and QEMU's name of its CPU.

    ``cpu`` is a model and the features to leave off: ``host,arch-capabilities=off``; None is what
    QEMU gives by itself.
    """

    name: str
    cpu: str | None = None


@dataclass(frozen=True, slots=True)
class Boot:
    """A kernel that is started directly, without firmware's or a loader's part."""

    kernel: Path
    initramfs: Path
    command_line: str


@dataclass(frozen=True, slots=True)
class Uefi:
    """UEFI firmware: its read-only code, and the instance's own copy of its variables."""

    code: Path
    variables: Path


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk. ``backing`` are the files below a qcow2 one with their formats, nearest first."""

    path: Path
    format: Literal["raw", "qcow2"] = "raw"
    backing: tuple[tuple[Path, Literal["raw", "qcow2"]], ...] = ()
    read_only: bool = False
    bus: Literal["virtio", "ide"] = "virtio"


@dataclass(frozen=True, slots=True)
class DiskMode:
    """How QEMU does its input and output; None is what it does by itself.

    With ``discard`` what the guest gives up becomes a hole in the file. Zeros that it writes stay
    written (``detect_zeroes``): looking for them would cost every write. ``write`` is the most that
    a disk is written to, in bytes per second.
    """

    cache: DiskCache | None = None
    io: Literal["native", "threads"] | None = None
    iothread: bool = False
    discard: bool = False
    write: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A folder of the host that the guest mounts by its tag (virtiofs)."""

    folder: Path
    tag: str = "root"


@dataclass(frozen=True, slots=True)
class Placement:
    """The host's CPUs for each virtual one, and for QEMU's own threads."""

    vcpus: tuple[int, ...]
    emulator: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """One virtual machine to describe. Paths of sockets are where somebody listens already; with
    ``streams`` libvirt has the sockets instead, and the paths only say that there are such ports.

    ``memory`` is in bytes. ``bridge`` gives it a network interface. A ``lean`` one has only the
    devices it needs, on the root bus. One that is to be ``saved`` has a CPU that can be.
    ``oem_strings`` are handed to the guest in its SMBIOS table 11. Without ``merge`` QEMU does not
    offer the guest's memory to KSM (`mem-merge=off`), as it does by itself.
    """

    name: str
    machine: Machine
    acceleration: Acceleration
    memory: int
    cpus: int
    console: Path
    uuid: str | None = None
    boot: Boot | None = None
    uefi: Uefi | None = None
    drives: tuple[Drive, ...] = ()
    mode: DiskMode = DiskMode()
    share: Share | None = None
    channel: Path | None = None
    bridge: str | None = None
    mac: str | None = None
    emulator: str | None = None
    lean: bool = False
    placement: Placement | None = None
    huge_pages: bool = False
    saved: bool = False
    streams: bool = False
    oem_strings: tuple[str, ...] = ()
    merge: bool = True


def build_domain_xml(domain: Domain) -> str:
    """The whole domain, as text with line breaks."""
    kind = "kvm" if domain.acceleration.name == "kvm" else "qemu"
    root = etree.Element("domain", {"type": kind})
    _add(root, "name", text=domain.name)
    if domain.uuid:
        _add(root, "uuid", text=domain.uuid)
    _add(root, "memory", {"unit": "b"}, str(domain.memory))
    _add_backing(root, domain)
    _add(root, "vcpu", text=str(domain.cpus))
    _add_threads(root, domain)
    _add_sysinfo(root, domain.oem_strings)
    _add_boot(root, domain)
    features = _add(root, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _add_cpu(root, domain)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _add(root, event, text="destroy")  # a trial never sees a second boot
    _add_devices(root, domain)
    return etree.tostring(root, pretty_print=True, encoding="unicode")


def list_throttles(domain: Domain) -> dict[str, int]:
    """Rates of writing that libvirt's ``iotune`` cannot set, by the name that it gives a disk.

    It looks for a virtio disk behind the device on the bus (``NAME/virtio-backend``). With
    memory-mapped registers the disk is itself that device, so that QEMU has to be told directly.
    """
    if domain.machine.bus != "mmio" or domain.mode.write is None:
        return {}
    return {
        f"virtio-disk{number}": domain.mode.write
        for number, drive in enumerate(domain.drives)
        if drive.bus == "virtio" and not drive.read_only
    }


def read_conditions(xml: str) -> Conditions:
    """What a domain's XML says of the paths and limits of its guest: see `certificate`."""
    root = etree.fromstring(xml)
    line = root.findtext("os/cmdline") or ""
    disks = [each for each in root.findall("devices/disk") if each.find("readonly") is None]
    found_rates = (each.findtext("iotune/write_bytes_sec") for each in disks)
    rates = [float(rate) for rate in found_rates if rate]
    bridge = root.find("devices/interface/source")
    network = Condition(NONE, "loopback only")
    if bridge is not None:
        network = Condition("bridge", f"a tap on {bridge.get('bridge')}")
    found = {
        "network": network,
        "io": Condition(min(rates), "throttled by QEMU") if rates else Condition(NONE),
    }
    if any(each.xpath("driver[@cache='unsafe']") for each in disks):
        found["storage"] = Condition("volatile", "a disk that is never synced (cache=unsafe)")
    if "harness.upper=tmpfs" in line or not disks:
        found["storage"] = Condition("memory", "the guest's own memory")
    return found


def _add_backing(root: etree._Element, domain: Domain) -> None:
    """What the guest's memory is made of: a folder can only be shared with one that is shared."""
    if not domain.huge_pages and not domain.share and domain.merge:
        return
    backing = _add(root, "memoryBacking")
    if domain.huge_pages:
        _add(backing, "hugepages")
    if not domain.merge:
        _add(backing, "nosharepages")
    if domain.share:
        _add(backing, "source", {"type": "memfd"})
        _add(backing, "access", {"mode": "shared"})


def _add_threads(root: etree._Element, domain: Domain) -> None:
    if domain.mode.iothread:
        _add(root, "iothreads", text="1")
    if domain.placement is None:
        return
    tune = _add(root, "cputune")
    for number, cpu in enumerate(domain.placement.vcpus):
        _add(tune, "vcpupin", {"vcpu": str(number), "cpuset": str(cpu)})
    own = ",".join(map(str, domain.placement.emulator))
    _add(tune, "emulatorpin", {"cpuset": own})
    if domain.mode.iothread:
        _add(tune, "iothreadpin", {"iothread": "1", "cpuset": own})


def _add_sysinfo(root: etree._Element, strings: tuple[str, ...]) -> None:
    if strings:
        entries = _add(_add(root, "sysinfo", {"type": "smbios"}), "oemStrings")
        for each in strings:
            _add(entries, "entry", text=each)


def _add_boot(root: etree._Element, domain: Domain) -> None:
    system = _add(root, "os")
    _add(system, "type", {"arch": "x86_64", "machine": domain.machine.type}, "hvm")
    if domain.uefi:
        _add(system, "loader", {"readonly": "yes", "type": "pflash"}, str(domain.uefi.code))
        _add(system, "nvram", text=str(domain.uefi.variables))
    if domain.boot:
        _add(system, "kernel", text=str(domain.boot.kernel))
        _add(system, "initrd", text=str(domain.boot.initramfs))
        _add(system, "cmdline", text=domain.boot.command_line)
    else:
        _add(system, "boot", {"dev": "hd"})
    if domain.oem_strings:
        _add(system, "smbios", {"mode": "sysinfo"})


def _add_cpu(root: etree._Element, domain: Domain) -> None:
    if domain.acceleration.cpu is None:
        return
    model, *features = domain.acceleration.cpu.split(",")
    modes = {"host": "host-passthrough", "max": "maximum"}
    migratable = "on" if domain.saved else "off"
    mode = {"mode": modes[model], "check": "none", "migratable": migratable}
    cpu = _add(root, "cpu", mode)
    for feature in features:
        name, _, state = feature.partition("=")
        policy = "disable" if state == "off" else "require"
        _add(cpu, "feature", {"policy": policy, "name": name})


def _add_devices(root: etree._Element, domain: Domain) -> None:
    devices = _add(root, "devices")
    if domain.emulator:
        _add(devices, "emulator", text=domain.emulator)
    where = _list_addresses(domain)
    bare = domain.lean or domain.machine.bus == "mmio"  # which can have nothing else
    if bare:
        _add(devices, "controller", {"type": "usb", "model": "none"})
    if domain.channel:
        controller = _add(devices, "controller", {"type": "virtio-serial", "index": "0"})
        controller.extend(next(where))
    told = list_throttles(domain)
    mode = replace(domain.mode, write=None) if told else domain.mode
    for number, drive in enumerate(domain.drives):
        devices.append(_build_drive(drive, number, mode, where))
    if domain.share:
        devices.append(_build_share(domain.share, where))
    if domain.bridge:
        devices.append(_build_interface(domain, where))
    _add_ports(devices, domain)
    if bare:
        _add(devices, "memballoon", {"model": "none"})


def _add_ports(devices: etree._Element, domain: Domain) -> None:
    serial = _add(devices, "serial", {"type": "pty" if domain.streams else "unix"})
    if not domain.streams:
        _add(serial, "source", {"mode": "connect", "path": str(domain.console)})
    _add(serial, "target", {"type": "isa-serial", "port": "0"})
    if domain.channel:
        channel = _add(devices, "channel", {"type": "unix"})
        if not domain.streams:
            _add(channel, "source", {"mode": "connect", "path": str(domain.channel)})
        _add(channel, "target", {"type": "virtio", "name": CHANNEL_NAME})


def _build_drive(
    drive: Drive, number: int, mode: DiskMode, where: Iterator[list[etree._Element]]
) -> etree._Element:
    disk = etree.Element("disk", {"type": "file", "device": "disk"})
    asked = {"cache": mode.cache, "io": mode.io, "iothread": "1" if mode.iothread else None,
             "discard": "unmap" if mode.discard and not drive.read_only else None}  # fmt: skip
    given = {key: value for key, value in asked.items() if value is not None}
    _add(disk, "driver", {"name": "qemu", "type": drive.format, **given})
    _add(disk, "source", {"file": str(drive.path)})
    below = disk
    for path, kind in drive.backing:
        below = _add(below, "backingStore", {"type": "file"})
        _add(below, "format", {"type": kind})
        _add(below, "source", {"file": str(path)})
    _add(below, "backingStore")
    letter = "abcd"[number]
    name = f"hd{letter}" if drive.bus == "ide" else f"vd{letter}"
    _add(disk, "target", {"dev": name, "bus": drive.bus})
    if drive.read_only:
        _add(disk, "readonly")
    elif mode.write is not None:
        _add(_add(disk, "iotune"), "write_bytes_sec", text=str(mode.write))
    if drive.bus == "virtio":
        disk.extend(next(where))
    return disk


def _build_share(share: Share, where: Iterator[list[etree._Element]]) -> etree._Element:
    folder = etree.Element("filesystem", {"type": "mount", "accessmode": "passthrough"})
    _add(folder, "driver", {"type": "virtiofs"})
    _add(folder, "source", {"dir": str(share.folder)})
    _add(folder, "target", {"dir": share.tag})
    folder.extend(next(where))
    return folder


def _build_interface(domain: Domain, where: Iterator[list[etree._Element]]) -> etree._Element:
    interface = etree.Element("interface", {"type": "bridge"})
    if domain.mac:
        _add(interface, "mac", {"address": domain.mac})
    _add(interface, "source", {"bridge": str(domain.bridge)})
    _add(interface, "model", {"type": "virtio"})
    interface.extend(next(where))
    return interface


def _list_addresses(domain: Domain) -> Iterator[list[etree._Element]]:
    """Where each next virtio device sits; by itself libvirt puts it behind a bridge of its own."""
    for slot in range(2, 32):
        if domain.machine.bus == "mmio":
            yield [etree.Element("address", {"type": "virtio-mmio"})]
        elif domain.lean:
            place = {"type": "pci", "bus": "0x00", "slot": f"{slot:#04x}"}
            yield [etree.Element("address", place)]
        else:
            yield []


def _add(
    parent: etree._Element,
    tag: str,
    attributes: Mapping[str, str] | None = None,
    text: str | None = None,
) -> etree._Element:
    child = etree.SubElement(parent, tag, dict(attributes or {}))
    child.text = text
    return child
