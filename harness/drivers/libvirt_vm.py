"""What all virtual machine platforms share: QEMU under libvirt, started, watched and ended.

QEMU connects the guest's first serial port and the agent's virtio port to the starter's sockets,
which listen before the clock starts. The starter stamps; libvirt's events tell an end.
"""

import contextlib
import functools
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import cgroup, linux
from harness.channel import Channel
from harness.drivers.accelerator import (
    Accelerator,
    Guest,
    add_refusal,
    find_accelerator,
    find_device_fault,
    prove_accelerator,
)
from harness.drivers.base import InstanceSpec, PlainDriver, Toolbox
from harness.drivers.domain_xml import (
    DiskMode,
    Domain,
    Machine,
    build_domain_xml,
    list_throttles,
)
from harness.drivers.libvirt_host import Hypervisor, Ports, open_hypervisor
from harness.drivers.libvirt_site import Site, find_site, move_domain
from harness.drivers.storage import Storage
from harness.drivers.tsc import measure_tsc_khz
from harness.drivers.tuning import Tuning, read_means, tune
from harness.drivers.vm_instance import Layout, VmInstance
from harness.emulator import NAME, find_emulator, require_emulator
from harness.errors import HostError, TrialError
from harness.images.model import GuestKernel, Image
from harness.model import Kind
from harness.paths import scratch_root
from harness.process import run_command
from harness.starter import build_instance_spec, read_clock, sleep_until, start_starter

_ROOT_NAME = "libvirt"
TUN_DEVICE = Path("/dev/net/tun")
_FIRMWARE_FOLDERS = ("/usr/share/seabios", "/usr/share/qemu")
_FIRMWARE = ("bios-256k.bin", "bios-microvm.bin", "pvh.bin", "linuxboot_dma.bin")


@dataclass(frozen=True, slots=True)
class Plan:
    """A machine to start, decided: what libvirt is told, its disks, and how it was tuned.

    ``extras`` are further records of the agent's spec. ``memory`` is what a saved machine goes on
    from.
    """

    domain: Domain
    storage: Storage
    tunings: tuple[Tuning, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)
    memory: Path | None = None


class VmDriver(PlainDriver):
    """A machine under libvirt. A platform says what boots (`find_guest`) and how (`build_plan`)."""

    name = ""
    daemon = None
    kind: Kind = "vm"
    machine: Machine
    grace = 10.0

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.options = toolbox.options
        self._decided: dict[Guest, Accelerator] = {}
        """What each kind of guest runs on, once a run has begun: it never changes after that."""

    def find_guest(self, image: Image, /) -> Guest:
        """What is booted to prove an accelerator."""
        raise NotImplementedError

    def build_plan(self, spec: InstanceSpec, accelerator: Accelerator) -> Plan:
        """The machine of an instance; starts and writes nothing."""
        raise NotImplementedError

    # ---- the driver's interface

    @property
    def site(self) -> Site | None:
        """The libvirt daemon that has the machines; None where libvirt is in this process."""
        return find_site(self.toolbox, self.root)

    @property
    def no_network(self) -> str | None:
        return self.site.no_network if self.site else find_tap_fault()

    def unavailable(self) -> str | None:
        if platform.machine() != "x86_64":
            return f"guests are x86-64 so far, and this host is {platform.machine()}"
        for program, found in ((NAME, find_emulator()), ("qemu-img", shutil.which("qemu-img"))):
            if found is None:
                return f"{program} is not installed; `make run` installs it"
        if importlib.util.find_spec("libvirt") is None:
            return "the Python package libvirt-python is not installed; `make run` installs it"
        return self.site.find_fault(self.options) if self.site else None

    def accelerator(self, image: Image) -> Accelerator:
        """What its guests run on; the first time it may boot one to find out. Raises HostError."""
        guest = self.find_guest(image)
        if guest not in self._decided:
            self._decided[guest] = self._note_host(self._decide(guest))
        return self._decided[guest]

    def _decide(self, guest: Guest) -> Accelerator:
        """KVM has to be taken by libvirt too, which looks for itself."""
        wanted = self.toolbox.accelerator
        found = prove_accelerator(guest, wanted)
        if found.name != "kvm":
            return found
        try:
            self.open_hypervisor(found.name)
        except HostError as error:
            if wanted == "kvm":
                raise
            return add_refusal(prove_accelerator(guest, "tcg"), error.message)
        return found

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        guest = self.find_guest(spec.image)
        accelerator = self._decided.get(guest) or self._note_host(
            find_accelerator(guest, self.toolbox.accelerator)
        )
        plan = self.build_plan(spec, accelerator)
        described: dict[str, object] = {
            "command": list(spec.command),
            "accelerator": accelerator.name,
            "accelerator_proved": accelerator.proved,
            "accelerator_reason": accelerator.reason,
            "connection": self.toolbox.connection or "qemu:///embed",
            "disks": [list(command) for command in plan.storage.commands],
            "domain": self.build_xml(plan),
        }
        if told := list_throttles(plan.domain):
            described["throttles"] = told
        if plan.domain.boot:
            described["kernel_command_line"] = plan.domain.boot.command_line
        if self.options.tuned:
            described["tuning"] = [
                {**asdict(each), "applied": each.applied} for each in plan.tunings
            ]
        return described

    @contextlib.contextmanager
    def start_run(self, specs: Sequence[InstanceSpec], /) -> Iterator[None]:
        """Prove the accelerator and hold each workload's machine against libvirt's schema."""
        with self.site.start_run() if self.site else contextlib.nullcontext():
            for spec in specs:
                plan = self.build_plan(spec, self.accelerator(spec.image))
                hypervisor = self.open_hypervisor(plan.domain.acceleration.name)
                hypervisor.validate(self.build_xml(plan), plan.domain.name)
                if self.site:
                    self.site.upload_shared(plan.domain)
            yield

    @contextlib.contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[VmInstance]:
        accelerator = self.accelerator(spec.image)
        if lost := self._find_lost(accelerator):
            raise TrialError(lost)
        hypervisor = self.open_hypervisor(accelerator.name)
        plan = self.prepare(self.build_plan(spec, accelerator), spec)
        layout, name, xml = Layout.of(spec.folder), plan.domain.name, self.build_xml(plan)
        ports = None
        with contextlib.ExitStack() as stack:
            if self.site:
                plan, ports = move_storage(self.site, plan), Ports(layout.channel, layout.console)
            stack.enter_context(prepare_files(plan, layout, xml, hypervisor.find_log(name)))
            if self.site:
                stack.enter_context(self.site.placed(plan.domain))
            starter = stack.enter_context(start_starter(self.toolbox.starter))
            domain = stack.enter_context(hypervisor.hold(name))
            agent_spec = build_guest_spec(spec, plan.extras)
            # A restored guest has been up and says nothing; another one's firmware may take what is
            # sent before its system is there.
            starter.listen(
                layout.channel,
                agent_spec,
                layout.console,
                layout.console_log,
                at_init=plan.memory is None,
            )
            channel = Channel(starter, wake=domain.wake, challenge=plan.extras.get("challenge"))
            instance = self.build_instance(
                spec, layout, plan.storage, accelerator.name, starter, channel, domain, self.grace
            )
            channel.ended = instance.describe_end
            try:
                with cgroup.entered(spec.cgroups):
                    sleep_until(spec.gate())
                    channel.milestones["request"] = read_clock()
                    if plan.memory is None:
                        hypervisor.create(domain, xml, ports)
                    else:
                        hypervisor.restore(domain, xml, plan.memory)
                    returned = read_clock()
                # By the event, if it came first: a restored guest may speak before libvirt returns.
                channel.milestones["created"] = min(returned, domain.running or returned)
                hypervisor.throttle(domain, list_throttles(plan.domain))
                hypervisor.find_process(domain)
                yield instance
            except TrialError as error:
                channel.keep_output(spec.folder / "output.log")
                if lost := self._find_lost(accelerator):
                    raise TrialError(f"{error.message}; {lost}") from error
                raise
            finally:
                instance.stop()

    def _find_lost(self, accelerator: Accelerator) -> str | None:
        """Why the guests of a run can no longer have the KVM that it began with."""
        if accelerator.name != "kvm" or self.site is not None:
            return None
        fault = find_device_fault()
        return fault and f"KVM ran guests when the run began, and now {fault}"

    # ---- for platforms

    build_instance: Any = VmInstance

    def build_xml(self, plan: Plan) -> str:
        """What libvirt is told: a daemon has the files in a pool of its own."""
        site = self.site
        return build_domain_xml(move_domain(plan.domain, site.place) if site else plan.domain)

    def measure_tsc(self) -> int | None:
        """The frequency of the clock that a guest reads: libvirt says that of another host."""
        site = self.site
        return site.tsc_khz if site and site.remote else measure_tsc_khz()

    def _note_host(self, accelerator: Accelerator) -> Accelerator:
        """What was proved was proved here."""
        if self.site is None or not self.site.remote:
            return accelerator
        reason = f"{accelerator.reason}; found on this host, not on the daemon's"
        return replace(accelerator, proved=False, reason=reason)

    def prepare(self, plan: Plan, _spec: InstanceSpec, /) -> Plan:
        """The last touch before the clock, for a platform that has more to make than disks."""
        return plan

    def complete_plan(
        self, spec: InstanceSpec, accelerator: Accelerator, storage: Storage, **parts: Any
    ) -> Plan:
        """A plan of what every machine has, the ``parts`` of this one, and its tuning."""
        layout = Layout.of(spec.folder)
        domain = Domain(
            name=spec.name,
            machine=self.machine,
            acceleration=accelerator.acceleration,
            memory=spec.memory,
            cpus=spec.cpus,
            console=layout.console,
            channel=layout.channel,
            drives=storage.drives,
            share=storage.share,
            mode=DiskMode(
                cache=self.options.disk_cache, discard=self.options.discard, write=spec.io
            ),
            bridge=spec.bridge if spec.address else None,
            emulator=find_emulator(),
            merge=self.options.merge,
        )
        domain = replace(domain, **parts)
        if not self.options.tuned:
            return Plan(domain, storage)
        return Plan(*_tuned(domain, storage, self._scratch))

    def open_hypervisor(self, accelerator: str) -> Hypervisor:
        """The connection, which knows by then what QEMU can do."""
        hypervisor = open_hypervisor(self.toolbox.connection, self.root)
        emulator = None if self.site else require_emulator()
        hypervisor.learn(emulator, self.machine.type, accelerator)
        return hypervisor

    def require_kernel(self) -> GuestKernel:
        if self.toolbox.kernel is None:
            raise HostError(
                f"{self.name} has no guest kernel",
                hint="`python -m harness images build` fetches it",
            )
        return self.toolbox.kernel

    @property
    def root(self) -> Path:
        """Where the embedded libvirt has its files."""
        return self._scratch / _ROOT_NAME

    @property
    def _scratch(self) -> Path:
        return self.toolbox.scratch or scratch_root()


def move_storage(site: Site, plan: Plan) -> Plan:
    """The plan of a machine whose files a daemon has: fewer are made here, and none stay here."""
    commands = site.select_commands(plan.domain, plan.storage.commands)
    return replace(plan, storage=replace(plan.storage, commands=commands, own=()))


def find_tap_fault(device: Path = TUN_DEVICE) -> str | None:
    """Why a guest cannot join the lab's bridge; None if it can."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        mend = f"as root: modprobe tun; chmod 0666 {device}"
        return f"{device} cannot be opened ({error.strerror}); {mend}"
    return None


def _tuned(
    domain: Domain, storage: Storage, scratch: Path
) -> tuple[Domain, Storage, tuple[Tuning, ...]]:
    tuned, tunings = tune(domain, _read_means(scratch))
    return tuned, storage, tunings


_read_means = functools.cache(read_means)


def build_guest_spec(spec: InstanceSpec, extras: Mapping[str, str]) -> bytes:
    """The agent's spec in a guest."""
    return build_instance_spec(
        spec,
        address=spec.address,
        gateway=spec.gateway,
        hostname=spec.name[-63:],
        pids=None if spec.pids is None else str(spec.pids),
        **extras,
    )


def list_programs(starter: Path) -> list[Path]:
    """The host's files that a machine starts with: the emulator, firmware and the starter."""
    emulator = find_emulator()
    firmware = [Path(folder, name) for folder in _FIRMWARE_FOLDERS for name in _FIRMWARE]
    found = [starter, *([Path(emulator)] if emulator else [])]
    return [*found, *(path for path in firmware if path.is_file())]


@contextlib.contextmanager
def prepare_files(plan: Plan, layout: Layout, xml: str, log: Path | None) -> Iterator[None]:
    """All files of an instance, before the clock; the logs are where a failed trial's are kept."""
    for command in plan.storage.commands:
        run_command(command, timeout=300)
    layout.xml.write_text(xml)
    if log is not None:
        layout.qemu_log.symlink_to(log)
    with contextlib.ExitStack() as stack:
        if plan.storage.share:
            (source,) = plan.storage.shared
            stack.enter_context(linux.read_only_view(source, plan.storage.share.folder))
        yield
