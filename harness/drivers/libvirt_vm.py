"""`vm-direct` and `vm-microvm`: QEMU virtual machines under libvirt that boot a kernel directly.

The image's raw disk is the shared, read-only base of a qcow2 overlay that each instance has to
itself. QEMU connects the guest's first serial port and the agent's virtio port to the starter's
sockets, which listen before the clock starts. The starter stamps; libvirt's events tell an end.
"""

import contextlib
import functools
import importlib.util
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness import cgroup
from harness.channel import Channel
from harness.drivers.accelerator import (
    EMULATOR,
    Accelerator,
    find_accelerator,
    prove_accelerator,
)
from harness.drivers.base import InstanceSpec, Packed, Processes, Toolbox, find_address
from harness.drivers.domain_xml import (
    DIRECT,
    MICROVM,
    Boot,
    Domain,
    Machine,
    build_command_line,
    build_domain_xml,
)
from harness.drivers.libvirt_host import Domain as RunningDomain
from harness.drivers.libvirt_host import Hypervisor, open_hypervisor
from harness.drivers.tsc import measure_tsc_khz
from harness.errors import HostError, TrialError
from harness.images.model import GuestKernel, Image
from harness.model import Kind
from harness.paths import scratch_root
from harness.process import run_command
from harness.starter import Starter, build_agent_spec, read_clock, start_starter

_NANOSECONDS = 1_000_000_000
_STOP_S = 10.0
_ROOT_NAME = "libvirt"
_FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu")
_FIRMWARE = ("bios-256k.bin", "bios-microvm.bin", "pvh.bin", "linuxboot_dma.bin")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one instance."""

    overlay: Path
    channel: Path
    console: Path
    console_log: Path
    xml: Path
    qemu_log: Path

    @classmethod
    def of(cls, folder: Path) -> "Layout":
        names = ("overlay.qcow2", "channel", "console", "console.log", "domain.xml", "qemu.log")
        return cls(*(folder / name for name in names))


@dataclass(slots=True)
class VmInstance:
    """A started virtual machine. Ends when its guest powers off, else when QEMU is killed."""

    spec: InstanceSpec
    layout: Layout
    accelerator: str
    starter: Starter
    channel: Channel
    domain: RunningDomain
    stopped: bool = field(default=False, init=False)

    @property
    def address(self) -> str | None:
        return find_address(self.spec)

    @property
    def cgroups(self) -> Sequence[Path]:
        """The instance's groups if it lives in them: a daemon's guest does not, and an empty
        group's zero would be a wrong number."""
        return self.spec.cgroups if cgroup.read_processes(self.spec.cgroups) else ()

    @property
    def milestones(self) -> dict[str, int]:
        return self.channel.milestones

    def wait_ready(self) -> None:
        deadline = self.milestones["request"] + int(self.spec.timeout * _NANOSECONDS)
        try:
            self.channel.wait_for("ready", deadline)
        except TrialError as error:
            hint = error.hint or find_remedy(error.message) or self._find_last_words()
            raise TrialError(error.message, hint=hint) from error

    def ask(self, question: str) -> str:
        return self.channel.ask(question, question)

    def round_trips(self, count: int) -> Sequence[float]:
        return self.channel.round_trips(count)

    def processes(self) -> Processes:
        inside = set(cgroup.read_processes(self.spec.cgroups)) if self.spec.cgroups else set()
        if self.domain.pid is not None:
            inside.add(self.domain.pid)
        return Processes(tuple(sorted(inside)), (self.starter.pid,))

    def files(self) -> Sequence[Path]:
        return (self.layout.overlay,)

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        if "exec" in self.milestones:
            with contextlib.suppress(TrialError):
                self.starter.send("stop")
                self.domain.wait_end(_STOP_S)
        self.domain.kill()

    def describe_end(self) -> str:
        """Why the domain is gone, for a trial that still needed it."""
        last = next(reversed(self.milestones), "request")
        return f"the virtual machine ended after {last}: {self.domain.end or 'it is gone'}"

    def _find_last_words(self) -> str | None:
        with contextlib.suppress(OSError):
            text = self.layout.console_log.read_text(errors="replace")
            if lines := [line.strip() for line in text.splitlines() if line.strip()]:
                return f"its console's last line: {lines[-1][:200]}"
        return None


class VmDriver:
    """What both platforms share. ``kernel_form``: the ELF kernel starts sooner than the bzImage."""

    name = ""
    daemon = None
    no_network = None
    kind: Kind = "vm"
    machine: Machine
    kernel_form: Literal["elf", "bzimage"] = "elf"

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox

    @functools.cached_property
    def accelerator(self) -> Accelerator:
        """What guests run on; the first time it may boot one to find out. Raises HostError."""
        return prove_accelerator(self._require_kernel(), self.toolbox.accelerator)

    def unavailable(self) -> str | None:
        if platform.machine() != "x86_64":
            return f"guests are x86-64 so far, and this host is {platform.machine()}"
        for program in (EMULATOR, "qemu-img"):
            if shutil.which(program) is None:
                return f"{program} is not installed; `make run` installs it"
        if importlib.util.find_spec("libvirt") is None:
            return "the Python package libvirt-python is not installed; `make run` installs it"
        return None

    def files(self, image: Image) -> Sequence[Path]:
        found = [image.packings["ext4-raw"].path, *self._kernel_files(), self.toolbox.starter]
        emulator = shutil.which(EMULATOR)
        firmware = [Path(folder, name) for folder in _FIRMWARE_FOLDERS for name in _FIRMWARE]
        found += [Path(emulator)] if emulator else []
        return [*found, *(path for path in firmware if path.is_file())]

    def packed(self, image: Image) -> Sequence[Packed]:
        """A VM brings its kernel along: unpacked where it runs, as the bzImage where it travels."""
        kernel = self._require_kernel()
        forms = {
            "ext4-raw": tuple(self._kernel_files()),
            "qcow2": (kernel.bzimage, kernel.initramfs),
            "raw-zstd": (kernel.bzimage, kernel.initramfs),
        }
        return [
            Packed(name, (image.packings[name].path, *files))
            for name, files in forms.items()
            if name in image.packings
        ]

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        accelerator = self.__dict__.get("accelerator") or find_accelerator(
            self._require_kernel(), self.toolbox.accelerator
        )
        domain = self._build_domain(spec, accelerator)
        assert domain.boot is not None
        return {
            "command": list(spec.command),
            "accelerator": accelerator.name,
            "accelerator_reason": accelerator.reason,
            "connection": self.toolbox.connection or "qemu:///embed",
            "overlay": build_overlay(spec.image, Layout.of(spec.folder).overlay),
            "kernel_command_line": domain.boot.command_line,
            "domain": build_domain_xml(domain),
        }

    def start_run(self, _images: Sequence[Image], /) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[VmInstance]:
        accelerator = self.accelerator
        layout = Layout.of(spec.folder)
        xml = build_domain_xml(self._build_domain(spec, accelerator))
        hypervisor = self._open_hypervisor(accelerator)
        prepare_files(spec, layout, xml, hypervisor)
        agent_spec = build_agent_spec(
            spec.command,
            spec.ready,
            spec.environment,
            address=spec.address,
            gateway=spec.gateway,
            hostname=spec.name[-63:],
        )
        with start_starter(self.toolbox.starter) as starter, hypervisor.hold(spec.name) as domain:
            starter.listen(layout.channel, agent_spec, layout.console, layout.console_log)
            channel = Channel(starter, wake=domain.wake)
            instance = VmInstance(spec, layout, accelerator.name, starter, channel, domain)
            channel.ended = instance.describe_end
            try:
                with cgroup.entered(spec.cgroups):
                    channel.milestones["request"] = read_clock()
                    hypervisor.create(domain, xml)
                    channel.milestones["created"] = read_clock()
                hypervisor.find_process(domain)
                yield instance
            except TrialError:
                channel.keep_output(spec.folder / "output.log")
                raise
            finally:
                instance.stop()

    def _build_domain(self, spec: InstanceSpec, accelerator: Accelerator) -> Domain:
        kernel = self._require_kernel()
        layout = Layout.of(spec.folder)
        acceleration = accelerator.acceleration
        return Domain(
            name=spec.name,
            machine=self.machine,
            acceleration=acceleration,
            memory=spec.memory,
            cpus=spec.cpus,
            console=layout.console,
            boot=Boot(
                kernel=kernel.elf if self.kernel_form == "elf" else kernel.bzimage,
                initramfs=kernel.initramfs,
                command_line=build_command_line(acceleration, measure_tsc_khz()),
            ),
            disk=layout.overlay,
            base=spec.image.packings["ext4-raw"].path,
            channel=layout.channel,
            bridge=spec.bridge if spec.address else None,
            emulator=shutil.which(EMULATOR),
        )

    def _open_hypervisor(self, accelerator: Accelerator) -> Hypervisor:
        hypervisor = open_hypervisor(self.toolbox.connection, self._root)
        hypervisor.learn(shutil.which(EMULATOR) or EMULATOR, self.machine.type, accelerator.name)
        return hypervisor

    @property
    def _root(self) -> Path:
        return (self.toolbox.scratch or scratch_root()) / _ROOT_NAME

    def _kernel_files(self) -> list[Path]:
        kernel = self._require_kernel()
        return [kernel.elf if self.kernel_form == "elf" else kernel.bzimage, kernel.initramfs]

    def _require_kernel(self) -> GuestKernel:
        if self.toolbox.kernel is None:
            raise HostError(
                f"{self.name} has no guest kernel",
                hint="`python -m harness images build` fetches it",
            )
        return self.toolbox.kernel


class VmDirectDriver(VmDriver):
    """A PC with PCI Express, started in the kernel without a boot loader."""

    name = "vm-direct"
    machine = DIRECT


class VmMicrovmDriver(VmDriver):
    """QEMU's smallest machine: no PCI, virtio by memory-mapped registers."""

    name = "vm-microvm"
    machine = MICROVM


def find_remedy(message: str) -> str | None:
    """What mends a guest that did not come up, where that is known."""
    if "panicked" in message and "memory" in message:
        return 'give the guest more memory, such as `memory = "128MiB"`'
    return None


def build_overlay(image: Image, overlay: Path) -> list[str]:
    """The command line that makes an instance's own disk on the shared base."""
    base = str(image.packings["ext4-raw"].path)
    formats = ("-f", "qcow2", "-F", "raw")
    return ["qemu-img", "create", "-q", *formats, "-b", base, str(overlay)]


def prepare_files(spec: InstanceSpec, layout: Layout, xml: str, hypervisor: Hypervisor) -> None:
    """All files of an instance, before the clock; the logs are where a failed trial's are kept."""
    run_command(build_overlay(spec.image, layout.overlay), timeout=30)
    layout.xml.write_text(xml)
    log = hypervisor.find_log(spec.name)
    if log is not None:
        layout.qemu_log.symlink_to(log)
