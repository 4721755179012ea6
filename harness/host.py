"""The host and its state, for the manifest, and what of it makes measurements noisy.

Plain files of /proc and /sys. What a host does not tell is None, never a guess.
Sources: Documentation/ABI/testing/sysfs-devices-system-cpu, admin-guide/mm, accounting/psi.rst.
"""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from harness.emulator import NAME, find_emulator
from harness.errors import HostError
from harness.process import run_command

_CPU = Path("/sys/devices/system/cpu")
_TOOLS = {
    "qemu": (find_emulator() or NAME, "--version"),
    "libvirt": ("pkg-config", "--modversion", "libvirt"),
    "mmdebstrap": ("mmdebstrap", "--version"),
    "compiler": ("gcc", "--version"),
}
_BUSY_LOAD = 0.3
_STEAL_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Host:
    """Facts and state of the host. Sizes in bytes; ``load`` is the mean of the last minute.

    ``hypervisor`` names what the host itself runs on, None on bare metal. ``extensions`` are the
    CPU's virtualisation extensions (vmx, svm). ``steal`` is the share of CPU time that was taken
    since boot.
    """

    name: str
    os: str
    kernel: str
    architecture: str
    cpu: str
    cpus: int
    memory: int
    swap: int
    hypervisor: str | None
    extensions: tuple[str, ...]
    cgroup: str
    clocksource: str | None
    governor: str | None
    turbo: bool | None
    smt: bool | None
    huge_pages: str | None
    same_page_merging: bool | None
    pressure: bool
    load: float
    steal: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Something that disturbs measurements on this host, and what to do about it."""

    problem: str
    advice: str


def read_host() -> Host:
    """The host as it is now."""
    info = _read_cpuinfo()
    flags = info.get("flags", "").split()
    memory = _read_meminfo()
    return Host(
        name=platform.node(),
        os=_read_os_name(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=info.get("model name", platform.machine()),
        cpus=len(os.sched_getaffinity(0)),
        memory=memory.get("MemTotal", 0),
        swap=memory.get("SwapTotal", 0),
        hypervisor=_read_hypervisor() if "hypervisor" in flags else None,
        extensions=tuple(flag for flag in ("vmx", "svm") if flag in flags),
        cgroup=_read_cgroup_version(),
        clocksource=_read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        governor=_read(_CPU / "cpu0/cpufreq/scaling_governor"),
        turbo=_read_turbo(),
        smt=_parse_switch(_read(_CPU / "smt/active")),
        huge_pages=_parse_choice(_read(Path("/sys/kernel/mm/transparent_hugepage/enabled"))),
        same_page_merging=_parse_switch(_read(Path("/sys/kernel/mm/ksm/run"))),
        pressure=Path("/proc/pressure/cpu").exists(),
        load=os.getloadavg()[0],
        steal=_read_steal(),
    )


def find_noise(host: Host) -> list[Noise]:
    """What makes ``host`` noisy; pure."""
    found = []
    if host.governor not in (None, "performance"):
        found.append(
            Noise(
                f"the CPU frequency governor is {host.governor}",
                "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            )
        )
    if host.turbo:
        found.append(Noise("turbo is on: speed depends on heat", "switch it off in the firmware"))
    if host.smt:
        found.append(
            Noise(
                "SMT is on: two threads share a core",
                "echo off | sudo tee /sys/devices/system/cpu/smt/control",
            )
        )
    if host.hypervisor:
        found.append(
            Noise(
                f"this host is itself a virtual machine ({host.hypervisor})",
                "its neighbours may disturb it: read the intervals, or use bare metal",
            )
        )
    if host.steal > _STEAL_SHARE:
        found.append(Noise(f"{host.steal:.1%} of CPU time was stolen", "use a host of your own"))
    if host.load > _BUSY_LOAD * host.cpus:
        found.append(Noise(f"the load is {host.load:.2f}", "stop other work on this host"))
    return found + _find_memory_noise(host)


def _find_memory_noise(host: Host) -> list[Noise]:
    found = []
    if host.swap:
        found.append(Noise("swap is on", "sudo swapoff --all"))
    if host.same_page_merging:
        found.append(
            Noise(
                "KSM is on: memory of machines, but `/no-ksm` ones, shrinks while it is read",
                "echo 0 | sudo tee /sys/kernel/mm/ksm/run",
            )
        )
    if host.huge_pages == "always":
        found.append(
            Noise(
                "transparent huge pages are always on: memory is counted in steps of 2 MiB",
                "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
            )
        )
    if host.cpus < 2:
        found.append(Noise("there is one CPU only", "harness and instances share it"))
    if host.clocksource not in (None, "tsc", "arch_sys_counter", "kvm-clock"):
        found.append(Noise(f"the clock source is {host.clocksource}", "reading the time is slow"))
    return found


def read_noise() -> list[Noise]:
    """What makes this host noisy now."""
    return find_noise(read_host())


def read_tools() -> dict[str, str]:
    """The versions of what has a share in the figures; a tool that is not there is left out."""
    found = {"python": platform.python_version()}
    for name, argv in _TOOLS.items():
        with contextlib.suppress(HostError):
            lines = run_command(argv, timeout=10).stdout.splitlines()
            found[name] = lines[0] if lines else "unknown"
    return found


# ---- reading ---------------------------------------------------------------------------------


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return None


def _read_cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    first = (_read(Path("/proc/cpuinfo")) or "").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read_meminfo() -> dict[str, int]:
    lines = (_read(Path("/proc/meminfo")) or "").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def _read_os_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()


def _read_hypervisor() -> str:
    """What firmware or CPU call the hypervisor below."""
    if product := _read(Path("/sys/class/dmi/id/product_name")):
        return product
    with contextlib.suppress(HostError):
        for line in run_command(["lscpu"], timeout=10, env={"LC_ALL": "C"}).stdout.splitlines():
            key, _, value = line.partition(":")
            if key == "Hypervisor vendor":
                return value.strip()
    return "unnamed"


def _read_cgroup_version() -> str:
    """``v2``, ``v1``, ``hybrid`` (both are mounted) or ``none``."""
    mount = Path("/sys/fs/cgroup")
    if (mount / "cgroup.controllers").exists():
        return "v2"
    if (mount / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (mount / "memory").is_dir() else "none"


def _read_turbo() -> bool | None:
    disabled = _parse_switch(_read(_CPU / "intel_pstate/no_turbo"))
    return _parse_switch(_read(_CPU / "cpufreq/boost")) if disabled is None else not disabled


def _read_steal() -> float:
    """The share of all CPU time since boot that the hypervisor gave to others (proc_stat(5))."""
    times = [int(word) for word in (_read(Path("/proc/stat")) or "").split("\n", 1)[0].split()[1:9]]
    total = sum(times)
    return times[7] / total if len(times) == 8 and total else 0.0


def _parse_switch(text: str | None) -> bool | None:
    return None if text is None else text not in ("0", "N")


def _parse_choice(text: str | None) -> str | None:
    """The chosen word of ``always [madvise] never``."""
    words = [] if text is None else text.split()
    return next((word.strip("[]") for word in words if word.startswith("[")), None)
