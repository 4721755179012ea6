"""What makes this host noisy beyond its fixed facts: what runs beside, power, kernel settings.

Read once before a run, from outside of its namespaces, and by `doctor`. What a host does not tell
is None, never a guess. Sources: proc_stat(5), proc_pid_stat(5), Documentation/accounting/psi.rst,
admin-guide/sysctl/{kernel,vm}.rst, Documentation/ABI/testing/{sysfs-class-power,
sysfs-devices-system-cpu}.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.host import Noise
from harness.marks import TUNE
from harness.probes.outside import parse_idle

WINDOW_S = 0.5
"""How long other load is watched."""

BUSY_SHARE = 0.10
"""From this share of all CPUs' time on, other load is worth a line."""

PRESSURE_PERCENT = 5.0
"""From this share of the last ten seconds on, in percent, pressure is worth a line (PSI)."""

_NAMED_SHARE = 0.02
_NAMED = 3
_RANDOMISED = 2


@dataclass(frozen=True, slots=True)
class Busy:
    """A process that used CPU time while the host was watched; ``share`` is of one CPU."""

    name: str
    pid: int
    share: float


@dataclass(frozen=True, slots=True)
class State:
    """What may disturb a run, before it. Shares are of the time watched.

    ``busy`` is the share of all CPUs' time that was used, ``foreign`` its largest users.
    ``pressure`` is the share of the last ten seconds in which tasks waited, by resource, in
    percent. ``on_battery`` is None on hosts without a battery or mains that say so. ``governors``
    and ``isolated`` are facts of all CPUs, ``vulnerabilities`` those of the processor with what the
    kernel does against each.
    """

    busy: float | None
    foreign: tuple[Busy, ...]
    pressure: Mapping[str, float]
    on_battery: bool | None
    governors: tuple[str, ...]
    isolated: str | None
    swappiness: int | None
    swapping: bool
    numa_balancing: bool | None
    numa_nodes: int
    randomised: int | None
    vulnerabilities: Mapping[str, str]


def read_state(
    root: Path = Path("/"), window: float = WINDOW_S, sleep: Callable[[float], None] = time.sleep
) -> State:
    """The host as it is now; takes ``window`` seconds, in which other load is watched.

    ``root`` has the ``proc`` and ``sys`` to read.
    """
    proc, system = root / "proc", root / "sys"
    busy, foreign = _watch(proc, window, sleep)
    cpu = system / "devices/system/cpu"
    governors = {_read(each) or "" for each in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return State(
        busy=busy,
        foreign=foreign,
        pressure=_read_pressure(proc),
        on_battery=_read_battery(system / "class/power_supply"),
        governors=tuple(sorted(governors - {""})),
        isolated=_read(cpu / "isolated") or None,
        swappiness=_parse_int(_read(proc / "sys/vm/swappiness")),
        swapping=len((_read(proc / "swaps") or "").splitlines()) > 1,
        numa_balancing=_parse_switch(_read(proc / "sys/kernel/numa_balancing")),
        numa_nodes=len(list((system / "devices/system/node").glob("node[0-9]*"))),
        randomised=_parse_int(_read(proc / "sys/kernel/randomize_va_space")),
        vulnerabilities={
            each.name: _read(each) or "" for each in sorted((cpu / "vulnerabilities").glob("*"))
        },
    )


def find_noise(state: State) -> list[Noise]:
    """What of ``state`` disturbs measurements, each with what to do about it; pure."""
    found = [*_find_load_noise(state), *_find_pressure_noise(state)]
    if state.on_battery:
        found.append(Noise("the host runs on battery: the processor saves power", "plug it in"))
    if len(state.governors) > 1:
        names = ", ".join(state.governors)
        found.append(Noise(f"CPUs have different frequency governors: {names}", TUNE))
    if state.swapping and (state.swappiness or 0) > 0:
        found.append(
            Noise(
                f"swap is in use with a swappiness of {state.swappiness}",
                "sudo sysctl vm.swappiness=0, or sudo swapoff --all",
            )
        )
    if state.numa_balancing and state.numa_nodes > 1:
        found.append(
            Noise(
                f"memory is moved between {state.numa_nodes} NUMA nodes while it is used",
                "sudo sysctl kernel.numa_balancing=0",
            )
        )
    if state.randomised is not None and state.randomised < _RANDOMISED:
        found.append(
            Noise(
                "address spaces are not randomised: one layout stands for all starts",
                "sudo sysctl kernel.randomize_va_space=2",
            )
        )
    return found


def list_facts(state: State) -> list[str]:
    """What is worth knowing of ``state`` though it disturbs nothing; pure."""
    open_ones = [
        name for name, text in state.vulnerabilities.items() if text.startswith("Vulnerable")
    ]
    mitigated = sum(text.startswith("Mitigation") for text in state.vulnerabilities.values())
    facts = [
        f"governors {', '.join(state.governors)}" if state.governors else "",
        f"CPUs {state.isolated} are isolated" if state.isolated else "no CPUs are isolated",
        f"{mitigated} mitigations against vulnerabilities are on" if state.vulnerabilities else "",
        f"open to {', '.join(open_ones)}" if open_ones else "",
        "on battery" if state.on_battery else "",
    ]
    return [each for each in facts if each]


def _find_load_noise(state: State) -> list[Noise]:
    if state.busy is None or state.busy < BUSY_SHARE:
        return []
    names = ", ".join(
        f"{each.name} ({each.pid}) {each.share:.0%} of a CPU" for each in state.foreign
    )
    what = f": {names}" if names else ", by processes that cannot be seen from here"
    return [Noise(f"{state.busy:.0%} of the CPUs' time goes to other work now{what}", "stop it")]


def _find_pressure_noise(state: State) -> list[Noise]:
    advice = {
        "cpu": "stop other work",
        "io": "stop what writes and reads, or use a faster disk",
        "memory": "free memory",
    }
    return [
        Noise(f"tasks wait for {name} {share:.0f} % of the time", advice.get(name, "stop it"))
        for name, share in state.pressure.items()
        if share >= PRESSURE_PERCENT
    ]


# ---- reading ---------------------------------------------------------------------------------


def _watch(
    proc: Path, window: float, sleep: Callable[[float], None]
) -> tuple[float | None, tuple[Busy, ...]]:
    """The share of all CPUs' time that is used now, and the largest foreign users."""
    begun, before, used = time.monotonic(), _read_idle(proc), _read_processes(proc)
    sleep(window)
    passed, after, later = time.monotonic() - begun, _read_idle(proc), _read_processes(proc)
    if before is None or after is None or passed <= 0:
        return None, ()
    cpus = max(1, after[0])
    own = _find_own(proc)
    shares = [
        Busy(name, pid, round((ticks - used.get(pid, (name, ticks))[1]) / _tick() / passed, 3))
        for pid, (name, ticks) in later.items()
        if pid not in own
    ]
    foreign = sorted((each for each in shares if each.share >= _NAMED_SHARE),
                     key=lambda each: -each.share)[:_NAMED]  # fmt: skip
    idle = (after[1] + after[2] - before[1] - before[2]) / passed / cpus
    return round(min(1.0, max(0.0, 1 - idle)), 4), tuple(foreign)


def _tick() -> int:
    return os.sysconf("SC_CLK_TCK")


def _read_idle(proc: Path) -> tuple[int, float, float] | None:
    text = _read(proc / "stat")
    return None if not text else parse_idle(text)


def _read_processes(proc: Path) -> dict[int, tuple[str, int]]:
    """Name and clock ticks of every process."""
    found: dict[int, tuple[str, int]] = {}
    for path in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = path.read_text(errors="replace")
            head, _, rest = text.rpartition(")")
            fields = rest.split()
            name = head.partition("(")[2]
            found[int(path.parent.name)] = (name, int(fields[11]) + int(fields[12]))
    return found


def _find_own(proc: Path) -> set[int]:
    """This process and those that it came from: they wait for it."""
    own, pid = set(), os.getpid()
    while pid > 0 and pid not in own:
        own.add(pid)
        text = _read(proc / str(pid) / "stat") or ""
        pid = _parse_int(text.rpartition(")")[2].split()[1] if text else "0") or 0
    return own


def _read_pressure(proc: Path) -> dict[str, float]:
    """Percent of the last ten seconds in which some task waited, by resource."""
    found = {}
    for name in ("cpu", "io", "memory"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = (proc / "pressure" / name).read_text()
            found[name] = float(text.partition("avg10=")[2].split()[0])
    return found


def _read_battery(supplies: Path) -> bool | None:
    """Whether the host runs on battery: no mains is on line, or a battery discharges."""
    kinds = {each: _read(each / "type") for each in supplies.glob("*")}
    mains = [_read(each / "online") for each, kind in kinds.items() if kind in ("Mains", "USB")]
    states = [
        _read(each / "status")
        for each, kind in kinds.items()
        if kind == "Battery" and _read(each / "scope") != "Device"  # no mouse's or keyboard's
    ]
    if not states:
        return False if "1" in mains else None
    return "Discharging" in states and "1" not in mains


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return None


def _parse_int(text: str | None) -> int | None:
    with contextlib.suppress(ValueError):
        return None if text is None else int(text)
    return None


def _parse_switch(text: str | None) -> bool | None:
    return None if not text else text not in ("0", "N")
