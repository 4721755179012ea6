"""`vm-disk`: a machine that starts from its own disk, as a cloud image does.

Firmware, a boot loader, the distribution's kernel and initramfs and systemd come first; the agent
is a service. BIOS by default, UEFI as a variant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.drivers.accelerator import Accelerator, Guest, build_direct_guest
from harness.drivers.base import InstanceSpec, Packed
from harness.drivers.domain_xml import Q35, Uefi
from harness.drivers.kernel_line import build_emulation_words
from harness.drivers.libvirt_vm import Plan, VmDriver, list_programs
from harness.drivers.storage import build_storage
from harness.drivers.vm_instance import VmInstance
from harness.errors import HostError, TrialError
from harness.images.bootable import find_disk
from harness.images.bootable_files import DISCARD_WORD, OEM_PREFIX
from harness.images.bootable_firmware import find_firmware, require_firmware
from harness.images.model import Disk, Image

_REPORT_S = 40.0
_STAMP = "TimestampMonotonic"
_STAMPS = {
    "Firmware": "firmware",
    "Loader": "loader",
    "InitRD": "initrd",
    "Userspace": "userspace",
    "UnitsLoadFinish": "units loaded",
    "InactiveExit": "unit",
    "Finish": "finish",
}
"""systemd's stamps that say how a boot went on, and what the report calls them."""


class DiskInstance(VmInstance):
    """Its guest can also say what its own system knows of the boot."""

    def read_evidence(self) -> Mapping[str, object]:
        """Nothing of a guest too busy to say it: the trial is as good without."""
        found = VmInstance.read_evidence(self)
        try:
            code = self.channel.ask("report", "report", _REPORT_S)
        except TrialError:
            return found
        text = self.channel.report.decode(errors="replace")
        seen = {"seen_by_guest": {"systemd": parse_report(text)}} if code == "0" else {}
        return {**found, **seen}


class VmDiskDriver(VmDriver):
    """A PC that boots its disk; shutting down in order takes its guest some seconds."""

    name = "vm-disk"
    machine = Q35
    grace = 60.0
    build_instance = DiskInstance

    def unavailable(self) -> str | None:
        missing = super().unavailable()
        if missing is None and self._is_uefi and find_firmware() is None:
            return "the UEFI firmware OVMF is not installed; the package is called ovmf or edk2"
        return missing

    def find_guest(self, image: Image, /) -> Guest:
        disk = self.require_disk(image)
        return Guest(
            digest=disk.digest,
            machine=self.machine.type,
            word=b"@harness system",
            tuned=self.options.tuned,
            disk=disk.packings["disk-raw"].path,
            uefi=require_firmware() if self._is_uefi else None,
            below=build_direct_guest(self.require_kernel(), tuned=self.options.tuned),
        )

    def build_plan(self, spec: InstanceSpec, accelerator: Accelerator) -> Plan:
        raw = self.require_disk(spec.image).packings["disk-raw"].path
        storage = build_storage(self.options, {"raw": raw}, spec.folder)
        uefi = None
        if self._is_uefi:
            firmware = require_firmware()
            uefi = Uefi(firmware.code, spec.folder / "variables.fd")
            copy = ("cp", str(firmware.variables), str(uefi.variables))
            storage = replace(storage, commands=(*storage.commands, copy))
        words = build_emulation_words(accelerator.acceleration, self.measure_tsc())
        words += [DISCARD_WORD] if self.options.discard else []
        strings = (OEM_PREFIX + " ".join(words),)
        return self.complete_plan(spec, accelerator, storage, uefi=uefi, oem_strings=strings)

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        disk = self.require_disk(spec.image)
        packages = [
            {"name": name, "version": version, "bytes": size}
            for name, version, size in disk.packages
        ]
        system = {"packages": packages, "bytes": disk.extra_bytes, "changed": list(disk.changed)}
        return {**super().describe(spec), "system": system}

    def files(self, image: Image) -> Sequence[Path]:
        firmware = (require_firmware().code,) if self._is_uefi else ()
        raw = self.require_disk(image).packings["disk-raw"].path
        return [raw, *firmware, *list_programs(self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        """The disk is whole in itself: nothing travels beside it."""
        packings = self.require_disk(image).packings
        return [Packed(name, (packing.path,)) for name, packing in packings.items()]

    def require_disk(self, image: Image) -> Disk:
        found = find_disk(image)
        if found is None:
            raise HostError(
                f"image {image.name} has no bootable disk yet",
                hint="`run` makes it, from the Debian archive",
            )
        # A disk that came from elsewhere stands for the image's own.
        moved = {name: each for name, each in image.packings.items() if name in found.packings}
        return replace(found, packings={**found.packings, **moved}) if moved else found

    @property
    def _is_uefi(self) -> bool:
        return self.options.firmware == "uefi"


def parse_report(text: str) -> dict[str, object]:
    """systemd's own stamps in seconds of the guest's clock, and its list of what took longest.

    ``text`` is what ``systemctl show`` (``NAMETimestampMonotonic=MICROSECONDS``) and
    ``systemd-analyze blame`` print.
    """
    stamps: dict[str, float] = {}
    blame: list[list[str]] = []
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        name = _STAMPS.get(key.removesuffix(_STAMP))
        if equals and name and value.isdecimal() and int(value):
            stamps[name] = int(value) / 1e6
        elif not equals and (words := line.split()):
            blame.append([" ".join(words[:-1]), words[-1]])
    return {"timestamps": stamps, "blame": blame}
