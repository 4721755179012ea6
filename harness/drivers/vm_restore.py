"""`vm-restore`: a machine that goes on from saved memory instead of booting.

The snapshot is of `vm-direct`'s machine with its agent waiting, so it serves every workload of an
image. A restored guest answers a challenge made for that one start before anything else: that
answer is its milestone `init`.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from harness.channel import Channel
from harness.drivers.accelerator import (
    Accelerator,
    Guest,
    build_direct_guest,
    read_cpu_model,
    read_patience,
)
from harness.drivers.base import InstanceSpec, Packed, Toolbox
from harness.drivers.domain_xml import Q35, Boot, Drive, build_domain_xml
from harness.drivers.kernel_line import build_command_line
from harness.drivers.libvirt_host import open_hypervisor, read_libvirt_version
from harness.drivers.libvirt_uri import is_embedded
from harness.drivers.libvirt_vm import (
    Plan,
    VmDriver,
    list_programs,
    prepare_files,
)
from harness.drivers.snapshot import (
    DISK,
    MEMORY,
    Snapshot,
    build_identity,
    build_key,
    copy_memory,
    find_fault,
    folder_of,
    read_marks,
    require_snapshot,
)
from harness.drivers.storage import Storage, build_overlay
from harness.drivers.tsc import measure_tsc_khz
from harness.drivers.vm_instance import Layout
from harness.emulator import read_qemu_version
from harness.errors import TrialError
from harness.images.model import Image
from harness.starter import read_clock, start_starter

_MAC = "52:54:00:0a:ff:ff"
"""Of every saved machine with an interface: its copies get others from the agent."""
_BOOT_S = 60
_NANOSECONDS = 1_000_000_000


class VmRestoreDriver(VmDriver):
    """A PC with PCI Express, restored by libvirt from a file of its memory."""

    name = "vm-restore"
    machine = Q35

    def __init__(self, toolbox: Toolbox) -> None:
        super().__init__(toolbox)
        self._made: dict[str, tuple[Snapshot, object]] = {}
        """By key: what was found whole in this run, and its files' marks then."""

    def unavailable(self) -> str | None:
        if not is_embedded(self.toolbox.connection):
            return "snapshots are kept with the embedded libvirt only: leave out --connection"
        return super().unavailable()

    def find_guest(self, _image: Image, /) -> Guest:
        return build_direct_guest(self.require_kernel(), self.machine.type, self.options.tuned)

    def build_plan(self, spec: InstanceSpec, accelerator: Accelerator) -> Plan:
        """The restored machine: the saved one with its sockets and its disk in other places."""
        key = self._build_key(spec, accelerator)
        name, identity = build_identity(key)
        folder = folder_of(spec.image.name, key)
        base = spec.image.packings["ext4-raw"].path
        storage = build_second_overlay(folder / DISK, base, spec.folder)
        plan = self._complete(spec, accelerator, storage)
        return replace(
            plan,
            domain=replace(plan.domain, name=name, uuid=identity),
            memory=folder / MEMORY,
            extras={"challenge": secrets.token_hex(8)},
        )

    def files(self, image: Image) -> Sequence[Path]:
        saved = [path for each in self._list_made(image) for path in (each.memory, each.disk)]
        base = image.packings["ext4-raw"].path
        return [base, *saved, *list_programs(self.toolbox.starter)]

    def list_dropped(self, image: Image, /) -> Sequence[Path]:
        """Files that a restore itself drops from the page cache: libvirt the saved memory as it
        reads it, QEMU the disks as it takes them over (`drop-cache` of its file driver)."""
        programs = list_programs(self.toolbox.starter)
        return [each for each in self.files(image) if each not in programs]

    def packed(self, image: Image) -> Sequence[Packed]:
        """What is restored: memory, the disk as it was then, the image below it and the kernel."""
        kernel = self.require_kernel()
        found = []
        for made in self._list_made(image)[:1]:
            base, squeezed = image.packings["ext4-raw"].path, image.packings["raw-zstd"].path
            runs = (made.memory, made.disk, base, kernel.elf, kernel.initramfs)
            travels = (made.packed, made.disk, squeezed, kernel.bzimage, kernel.initramfs)
            found += [Packed("snapshot", runs), Packed("snapshot-zstd", travels)]
        return found

    @contextmanager
    def start_run(self, specs: Sequence[InstanceSpec], /) -> Iterator[None]:
        """Also save a machine for each kind that will be restored."""
        with super().start_run(specs):
            for spec in specs:
                self.prepare(self.build_plan(spec, self.accelerator(spec.image)), spec)
            yield

    def prepare(self, plan: Plan, spec: InstanceSpec, /) -> Plan:
        """Make sure of the snapshot; beside a machine from it, a further one has its own copy."""
        snapshot, key = self._require_snapshot(spec)
        running = open_hypervisor(None, self.root).domains
        if plan.domain.name not in running:
            return plan
        number = next(n for n in range(1, 10_000) if build_identity(key, n)[0] not in running)
        name, identity = build_identity(key, number)
        memory = spec.folder / MEMORY
        copy_memory(snapshot, key, number, memory)
        extras = {**plan.extras, "mac": f"52:54:00:0a:{number >> 8:02x}:{number & 255:02x}"}
        domain = replace(plan.domain, name=name, uuid=identity)
        return replace(plan, domain=domain, memory=memory, extras=extras)

    # ---- the snapshot

    def _require_snapshot(self, spec: InstanceSpec) -> tuple[Snapshot, str]:
        """Whole when it was first used in this run, and untouched since; raises TrialError."""
        accelerator = self.accelerator(spec.image)
        key = self._build_key(spec, accelerator)
        if key not in self._made:
            slot = f"{spec.memory} {spec.cpus} {bool(spec.address)} {self.options.tuned}"
            slot += "" if self.options.merge else " no-ksm"
            image = spec.image.name
            snapshot = require_snapshot(
                image, key, slot, lambda out: self._save(spec, accelerator, out), self.toolbox.say
            )
            self._made[key] = snapshot, read_marks(snapshot)
        snapshot, marks = self._made[key]
        if read_marks(snapshot) != marks and (fault := find_fault(snapshot)):
            del self._made[key]
            raise TrialError(
                f"the snapshot was damaged since the run began: {fault}",
                hint="it is made again before the next trial",
            )
        return snapshot, key

    def _save(self, spec: InstanceSpec, accelerator: Accelerator, out: Path) -> None:
        """Boot a machine until its agent waits for a spec, and save it into ``out``."""
        key = self._build_key(spec, accelerator)
        name, identity = build_identity(key)
        storage = build_overlay(spec.image.packings["ext4-raw"].path, out)
        (own,) = storage.own
        plan = self._complete(replace(spec, folder=out), accelerator, storage)
        hypervisor = self.open_hypervisor(accelerator.name)
        layout = Layout.of(out)
        xml = build_domain_xml(replace(plan.domain, name=name, uuid=identity))
        with ExitStack() as stack:
            stack.enter_context(prepare_files(plan, layout, xml, None))
            starter = stack.enter_context(start_starter(self.toolbox.starter))
            domain = stack.enter_context(hypervisor.hold(name))
            starter.listen(layout.channel, b"", layout.console, layout.console_log)
            channel = Channel(starter, wake=domain.wake)
            channel.milestones["request"] = read_clock()
            hypervisor.create(domain, xml)
            hypervisor.find_process(domain)
            channel.wait_for("init", read_clock() + int(_BOOT_S * read_patience() * _NANOSECONDS))
            channel.round_trips(1)
            hypervisor.save(domain, out / MEMORY)
        own.rename(out / DISK)
        for path in (layout.channel, layout.console):
            path.unlink(missing_ok=True)

    def _complete(self, spec: InstanceSpec, accelerator: Accelerator, storage: Storage) -> Plan:
        kernel = self.require_kernel()
        line = build_command_line(accelerator.acceleration, measure_tsc_khz())
        boot = Boot(kernel.elf, kernel.initramfs, line)
        return self.complete_plan(spec, accelerator, storage, boot=boot, saved=True, mac=_MAC)

    def _build_key(self, spec: InstanceSpec, accelerator: Accelerator) -> str:
        """All that has to be the same; the places of files are not."""
        nowhere = replace(spec, folder=Path("/"), name="", cgroups=())
        storage = Storage(())
        domain = self._complete(nowhere, accelerator, storage).domain
        line = build_command_line(accelerator.acceleration, None)  # the measured frequency left out
        assert domain.boot is not None
        domain = replace(domain, boot=replace(domain.boot, command_line=line), placement=None)
        return build_key(
            {
                "domain": build_domain_xml(domain),
                "image": spec.image.digest,
                "kernel": self.require_kernel().digest,
                "qemu": read_qemu_version(),
                "libvirt": read_libvirt_version(),
                "cpu": read_cpu_model(),
            }
        )

    def _list_made(self, image: Image) -> list[Snapshot]:
        made = (snapshot for snapshot, _ in self._made.values())
        return [each for each in made if each.folder.parent.name == image.name]


def build_second_overlay(saved: Path, base: Path, folder: Path) -> Storage:
    """An instance's overlay on the disk as it was when the machine was saved."""
    path = folder / "overlay.qcow2"
    create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(saved), str(path))
    drive = Drive(path, "qcow2", ((saved, "qcow2"), (base, "raw")))
    return Storage((base, saved), (drive,), commands=(create,), own=(path,))
