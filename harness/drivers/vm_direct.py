"""`vm-direct` and `vm-microvm`: machines that are started in a kernel, without a boot loader.

The image's raw disk is the shared, read-only base of a qcow2 overlay that each instance has to
itself; variants have their root elsewhere.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.drivers.accelerator import Accelerator, Guest, build_direct_guest
from harness.drivers.base import InstanceSpec, Packed
from harness.drivers.domain_xml import MICROVM, Q35, Boot
from harness.drivers.kernel_line import build_command_line
from harness.drivers.libvirt_vm import Plan, VmDriver, list_programs
from harness.drivers.storage import build_storage, find_source
from harness.images.model import Image
from harness.variants import READ_ONLY_DISKS

VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")


class DirectDriver(VmDriver):
    """What both platforms share: the kernel, and what the root is on."""

    def unavailable(self) -> str | None:
        missing = super().unavailable()
        if missing is None and self.options.disk == "virtiofs" and not find_virtiofsd():
            return "virtiofsd is not installed; the package is called virtiofsd or qemu-system"
        return missing

    def find_guest(self, _image: Image, /) -> Guest:
        below = build_direct_guest(self.require_kernel())
        guest = build_direct_guest(self.require_kernel(), self.machine.type, self.options.tuned)
        return guest if guest == below else replace(guest, below=below)

    def build_plan(self, spec: InstanceSpec, accelerator: Accelerator) -> Plan:
        storage = build_storage(
            self.options, self._find_sources(spec.image), spec.folder, spec.disk
        )
        kernel, initramfs = self._kernel_files()
        words = (*storage.words, *(("harness.discard=1",) if self.options.discard else ()))
        line = build_command_line(accelerator.acceleration, self.measure_tsc(), words)
        boot = Boot(kernel, initramfs, line)
        return self.complete_plan(spec, accelerator, storage, boot=boot)

    def files(self, image: Image) -> Sequence[Path]:
        source = self._find_sources(image)[find_source(self.options)]
        return [source, *self._kernel_files(), *list_programs(self.toolbox.starter)]

    def packed(self, image: Image) -> Sequence[Packed]:
        """A VM brings its kernel along: unpacked where it runs, as the bzImage where it travels."""
        kernel = self.require_kernel()
        brought = (kernel.bzimage, self._kernel_files()[1])
        source = find_source(self.options)
        if source != "raw":
            name = "tree" if source == "virtiofs" else source
            return [Packed(name, (image.packings[name].path, *self._kernel_files()))]
        forms = {"ext4-raw": self._kernel_files(), "qcow2": brought, "raw-zstd": brought}
        return [
            Packed(name, (image.packings[name].path, *files))
            for name, files in forms.items()
            if name in image.packings
        ]

    def _find_sources(self, image: Image) -> dict[str, Path]:
        names = {"raw": "ext4-raw", "virtiofs": "tree", "squashfs": "squashfs", "erofs": "erofs"}
        paths = {source: image.packings.get(packing) for source, packing in names.items()}
        return {source: each.path for source, each in paths.items() if each is not None}

    def _kernel_files(self) -> tuple[Path, Path]:
        """The kernel and the initramfs; a layered root needs more modules."""
        kernel = self.require_kernel()
        image = kernel.bzimage if self.options.kernel == "bzimage" else kernel.elf
        layered = self.options.disk in READ_ONLY_DISKS
        return image, kernel.layered if layered else kernel.initramfs


class VmDirectDriver(DirectDriver):
    """A PC with PCI Express, started in the kernel without a boot loader."""

    name = "vm-direct"
    machine = Q35


class VmMicrovmDriver(DirectDriver):
    """QEMU's smallest machine: no PCI, virtio by memory-mapped registers."""

    name = "vm-microvm"
    machine = MICROVM


def find_virtiofsd() -> str | None:
    """The program that serves a folder to a guest, as libvirt finds it (vhost-user's list)."""
    found = (shutil.which(each) for each in VIRTIOFSD)
    return next((each for each in found if each), None)
