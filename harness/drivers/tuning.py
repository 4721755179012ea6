"""What makes a virtual machine fast, as a named list with a reason for each item.

A platform ``…/tuned`` has every item that this host allows; the others are named with what stands
in their way. Sources: libvirt's «KVM real-time guest config» and formatdomain.html, QEMU's
«Devices» and «block drivers» documents.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from harness import linux
from harness.drivers.domain_xml import Domain, Placement


@dataclass(frozen=True, slots=True)
class Means:
    """What a host has to tune with. ``cpus`` are those that this process may use."""

    cpus: tuple[int, ...]
    huge_pages: int
    """Bytes in huge pages that are free."""
    direct_io: bool
    """Whether the file system of the instances' disks can be read past the page cache."""
    mounts: bool = True
    """Whether the run can mount a file system for huge pages of its own."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """One item of the list; ``why_not`` says what stands in its way, None if it is applied."""

    item: str
    setting: str
    reason: str
    why_not: str | None = None

    @property
    def applied(self) -> bool:
        return self.why_not is None


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    setting: str
    reason: str
    find_fault: Callable[[Domain, Means], str | None]
    apply: Callable[[Domain, Means], Domain]


def tune(domain: Domain, means: Means) -> tuple[Domain, tuple[Tuning, ...]]:
    """The domain with every item that can be had, and the list."""
    listed = []
    for item in _ITEMS:
        fault = item.find_fault(domain, means)
        listed.append(Tuning(item.name, item.setting, item.reason, fault))
        domain = item.apply(domain, means) if fault is None else domain
    return domain, tuple(listed)


def read_means(folder: Path) -> Means:
    """What this host has, with instances' disks in ``folder``."""
    return Means(
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        huge_pages=parse_huge_pages(Path("/proc/meminfo").read_text()),
        direct_io=_try_direct(folder),
        mounts=linux.is_root_of_host(),
    )


def parse_huge_pages(meminfo: str) -> int:
    """Free bytes in huge pages, from /proc/meminfo."""
    lines = (line.partition(":") for line in meminfo.splitlines())
    values = {key: text.split() for key, _, text in lines}
    free, size = values.get("HugePages_Free"), values.get("Hugepagesize")
    return int(free[0]) * int(size[0]) * 1024 if free and size else 0


def _try_direct(folder: Path) -> bool:
    """Whether O_DIRECT works there (open(2)): not on every file system does it."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".direct-{os.getpid()}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


# ---- the items -------------------------------------------------------------------------------


def _never(_domain: Domain, _means: Means) -> None:
    """Nothing stands in its way."""


def _unchanged(domain: Domain, _means: Means) -> Domain:
    return domain


def _lacks_cpus(domain: Domain, means: Means) -> str | None:
    if len(means.cpus) > domain.cpus:
        return None
    return f"{len(means.cpus)} CPUs of the host for {domain.cpus} of the guest leave none for QEMU"


def _pin(domain: Domain, means: Means) -> Domain:
    """The last CPUs for the guest: the first takes most of a host's interrupts."""
    split = len(means.cpus) - domain.cpus
    return replace(domain, placement=Placement(means.cpus[split:], means.cpus[:split]))


def _lacks_direct(domain: Domain, means: Means) -> str | None:
    if not domain.drives:
        return "the guest's root is no disk"
    if domain.mode.cache is not None:
        return f"the platform asks for the cache mode {domain.mode.cache}"
    return None if means.direct_io else "the file system does not take O_DIRECT"


def _bypass_cache(domain: Domain, _means: Means) -> Domain:
    return replace(domain, mode=replace(domain.mode, cache="none"))


def _is_cached(domain: Domain, _means: Means) -> str | None:
    if not domain.drives:
        return "the guest's root is no disk"
    return None if domain.mode.cache == "none" else "it needs the cache mode none"


def _use_native(domain: Domain, _means: Means) -> Domain:
    return replace(domain, mode=replace(domain.mode, io="native"))


def _lacks_notifiers(domain: Domain, _means: Means) -> str | None:
    if not domain.drives:
        return "the guest's root is no disk"
    if domain.machine.bus == "mmio" and domain.acceleration.name != "kvm":
        return "emulated memory-mapped devices cannot notify a thread"
    return None


def _add_iothread(domain: Domain, _means: Means) -> Domain:
    return replace(domain, mode=replace(domain.mode, iothread=True))


def _lacks_huge_pages(domain: Domain, means: Means) -> str | None:
    if domain.share:
        return "memory that is shared with virtiofs is of ordinary pages here"
    if not means.mounts:
        return "only root may give a guest huge pages here"
    if means.huge_pages >= domain.memory:
        return None
    return "the host has too few free huge pages (sysctl vm.nr_hugepages)"


def _use_huge_pages(domain: Domain, _means: Means) -> Domain:
    return replace(domain, huge_pages=True)


def _is_bare(domain: Domain, _means: Means) -> str | None:
    bare = domain.machine.bus == "mmio"
    return "a microvm never has them" if bare else None


def _leave_out(domain: Domain, _means: Means) -> Domain:
    return replace(domain, lean=True)


_ITEMS = (
    _Item(
        "cpu-model",
        "host-passthrough under KVM, maximum where emulated",
        "the guest may use every instruction there is; QEMU's default model has no vector or "
        "cryptographic ones",
        _never,
        _unchanged,  # the accelerator was proved with that model, and has it
    ),
    _Item(
        "vcpu-pinning",
        "each virtual CPU on a CPU of its own",
        "the scheduler never moves it, so its caches stay warm",
        _lacks_cpus,
        _pin,
    ),
    _Item(
        "emulator-pinning",
        "QEMU's own threads on the other CPUs",
        "device emulation does not take time from the guest",
        _lacks_cpus,
        _unchanged,  # both are one setting of the domain
    ),
    _Item(
        "disk-cache",
        "cache=none",
        "the guest has a page cache of its own: the host's would be a second copy",
        _lacks_direct,
        _bypass_cache,
    ),
    _Item(
        "disk-io",
        "io=native",
        "the kernel's asynchronous reads and writes need no pool of threads",
        _is_cached,
        _use_native,
    ),
    _Item(
        "iothread",
        "one thread for the disks",
        "disk requests are served beside QEMU's main loop, not in it",
        _lacks_notifiers,
        _add_iothread,
    ),
    _Item(
        "huge-pages",
        "guest memory in huge pages",
        "fewer misses of the address translation, which has two levels for a guest",
        _lacks_huge_pages,
        _use_huge_pages,
    ),
    _Item(
        "devices",
        "no USB controller, no balloon, virtio devices on the root bus",
        "the guest's kernel looks for fewer devices, and behind no bridge",
        _is_bare,
        _leave_out,
    ),
)
