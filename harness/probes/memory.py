"""The memory ledger of one instance at its settled point, and the host's own figure.

Sources: proc_pid_smaps(5) for smaps_rollup, Documentation/filesystems/proc.rst for MemAvailable.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Daemon, Processes
from harness.model import Kind, Measurement

_KIB = 1024


def read_available() -> int:
    """The host's MemAvailable in bytes."""
    return _read_size("MemAvailable")


def read_total() -> int:
    """The host's MemTotal in bytes."""
    return _read_size("MemTotal")


def _read_size(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _KIB
    raise OSError(f"/proc/meminfo has no {name}")


def read_pss(pids: Sequence[int], proc: Path = Path("/proc")) -> int | None:
    """Sum of PSS over processes, in bytes; None if none of them could be read."""
    found = [size for pid in pids if (size := _read_pss_of(proc / str(pid))) is not None]
    return sum(found) if found else None


def _read_pss_of(folder: Path) -> int | None:
    try:
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * _KIB
    except OSError:  # ended meanwhile, or not ours to read
        pass
    return None


def build_ledger(
    kind: Kind,
    pss: int | None,
    helpers: int | None,
    guest_used: int | None,
    charge: cgroup.MemoryCharge | None,
    host_delta: int | None,
) -> list[Measurement]:
    """The rows of the ledger; a figure that could not be read has no row.

    ``pss`` is that of every process that serves the instance, ``helpers`` that of those outside.
    """
    rows = [] if host_delta is None else [Measurement("memory.host_delta", host_delta)]
    if pss is not None:
        rows.append(Measurement("memory.pss", pss))
    if kind == "vm" and guest_used is not None:
        rows.append(Measurement("memory.guest_used", guest_used))
        if pss is not None:
            rows.append(Measurement("memory.overhead", pss - guest_used))
    if kind != "vm" and helpers is not None:
        rows.append(Measurement("memory.overhead", helpers))
    if charge is not None:
        rows.append(Measurement("memory.cgroup", charge.total))
        parts = {"anon": charge.anon, "file": charge.file, "kernel": charge.kernel}
        rows += [Measurement("memory.cgroup", value, phase) for phase, value in parts.items()]
        if charge.peak is not None:
            rows.append(Measurement("memory.cgroup", charge.peak, "peak"))
    return rows


def read_ledger(
    kind: Kind,
    processes: Processes,
    cgroups: Sequence[Path],
    guest_used: int | None,
    available_before: int,
) -> list[Measurement]:
    """Read every figure of the ledger now."""
    helpers = read_pss(processes.helpers, processes.proc)
    inside = read_pss(processes.inside, processes.proc)
    pss = None if inside is None else inside + (helpers or 0)
    delta = None if processes.elsewhere else available_before - read_available()
    return build_ledger(kind, pss, helpers, guest_used, cgroup.read_memory(cgroups), delta)


def read_daemon(daemon: Daemon | None) -> list[Measurement]:
    """What an engine's daemons take, whatever the number of instances; no row without any."""
    if daemon is None:
        return []
    processes = daemon.processes()
    pss = read_pss(processes.inside, processes.proc)
    return [] if pss is None else [Measurement("memory.daemon", pss)]


def parse_guest_used(answer: str) -> int:
    """MemTotal − MemAvailable from the agent's ``TOTAL AVAILABLE``."""
    total, available = map(int, answer.split())
    return total - available


def read_settings() -> Mapping[str, str]:
    """KSM and transparent huge pages: they change what memory figures mean."""
    files = {
        "ksm": "/sys/kernel/mm/ksm/run",
        "thp": "/sys/kernel/mm/transparent_hugepage/enabled",
    }
    found = {}
    for name, path in files.items():
        try:
            found[name] = Path(path).read_text().strip()
        except OSError:
            found[name] = "absent"
    return found
