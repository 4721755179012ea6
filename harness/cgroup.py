"""Control groups of a run: made, read and removed on cgroup v1, v2 and where there are none.

Every instance has a group of its own from its first instruction, so that its memory and CPU time
are the kernel's own account. On v1 that is one folder per controller, on v2 a single one. The
groups carry the run's id and lie below one root that the run's record names (see ``lab``).
Source: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import contextlib
import errno
import os
import select
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from harness import delegation
from harness.errors import HostError
from harness.paths import cache_dir

MOUNT = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
PREFIX = "harness-"
CPU_PERIOD_US = 100_000
_NO_LIMIT = 1 << 62
"""On v1 a group without a limit has the largest whole number of pages that fits."""


@dataclass(frozen=True, slots=True)
class MemoryCharge:
    """Bytes charged to a group: ``total`` and its parts; ``peak`` is the high-water mark."""

    total: int
    anon: int
    file: int
    kernel: int
    peak: int | None


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """The roots under which a run makes its groups: one per controller (v1) or one (v2)."""

    version: int
    roots: tuple[Path, ...]

    def start(self, name: str) -> tuple[Path, ...]:
        """Make the group ``name`` below every root; returns its folders."""
        folders = tuple(root / name for root in self.roots)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders


def start_child(folders: Sequence[Path], name: str) -> tuple[Path, ...]:
    """Make the group ``name`` below each of a group's folders; on v2 its controllers too.

    On v2 a group with children that are limited may hold no processes itself: those of the
    instance then live in its children only.
    """
    children = tuple(folder / name for folder in folders)
    for folder, child in zip(folders, children, strict=True):
        if (folder / "cgroup.subtree_control").exists():
            delegation.open_group(folder)
        child.mkdir(exist_ok=True)
    return children


def build_path(folders: Sequence[Path], name: str = "") -> str | None:
    """A group's path below its hierarchy, as engines are told it: ``/harness-RUN/TRIAL/name``."""
    if not folders:
        return None
    relative = folders[0].relative_to(find_hierarchy(folders[0]))
    return f"/{relative / name}"


def find_everywhere(folders: Sequence[Path]) -> tuple[Path, ...]:
    """A group's folders in every hierarchy: engines also make it in those that we do not use."""
    path = build_path(folders)
    if path is None or (MOUNT / "cgroup.controllers").exists():
        return tuple(folders)
    others = [hierarchy / path[1:] for hierarchy in find_hierarchies()]
    return tuple(dict.fromkeys([*folders, *(folder for folder in others if folder.is_dir())]))


def find_hierarchies() -> list[Path]:
    """Where every hierarchy is mounted, the one that the lab hides from engines included."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    inside = [each for each in MOUNT.iterdir() if not each.is_symlink()] if MOUNT.is_dir() else []
    return [each for each in (hidden_mount(), *inside) if (each / "cgroup.procs").exists()]


def has_controllers(unified: Path) -> bool:
    """Whether this v2 side of a hybrid host has a controller: such a host is refused by crun, to
    its newest release («cgroups in hybrid mode not supported»), and one without is not."""
    with contextlib.suppress(OSError):
        return bool((unified / "cgroup.controllers").read_text().strip())
    return False


def hidden_mount() -> Path:
    """Where the lab keeps the v2 side of a hybrid host, which it hides from engines."""
    return cache_dir() / "host-unified"


def find_beside(name: str) -> list[Path]:
    """Groups called ``name`` beside this process's own, and at the top: in every hierarchy."""
    found = []
    for hierarchy in find_hierarchies():
        found.append(hierarchy / name)
        if own := _find_own(hierarchy):
            found.append(own / name)
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _find_own(hierarchy: Path) -> Path | None:
    """This process's group in a hierarchy; None where it cannot be seen."""
    unified = (hierarchy / "cgroup.controllers").exists()
    return delegation.find_own(hierarchy, "" if unified else hierarchy.name.split(",")[0])


def find_groups_of(process: Path) -> tuple[Path, ...]:
    """The groups that a process is in, by its folder in a /proc that this process sees, in the
    hierarchies with an account of something; empty where that cannot be read."""
    with contextlib.suppress(OSError):
        return parse_memberships((process / "cgroup").read_text())
    return ()


def parse_memberships(text: str) -> tuple[Path, ...]:
    """The folders of the groups in a /proc/PID/cgroup (cgroups(7)), of those that are there."""
    found: list[Path] = []
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers and (MOUNT / "cgroup.controllers").exists():
            found.append(MOUNT / path.lstrip("/"))
        for each in set(controllers.split(",")) & set(V1_CONTROLLERS):
            found.append((MOUNT / each).resolve() / path.lstrip("/"))
    ordered = sorted(dict.fromkeys(found), key=lambda each: "memory" not in str(each))
    return tuple(each for each in ordered if each.is_dir())


def find_tree(run_id: str) -> CgroupTree | None:
    """Make the run's own root groups; None where this user or host gives no usable groups."""
    name = PREFIX + run_id
    try:
        if (MOUNT / "cgroup.controllers").exists():
            return _make_v2_tree(name)
        return _make_v1_tree(name)
    except OSError:
        return None


def _make_v1_tree(name: str) -> CgroupTree | None:
    controllers = [MOUNT / each for each in V1_CONTROLLERS if (MOUNT / each).is_dir()]
    if not any(folder.name == "memory" for folder in controllers):
        return None
    roots = tuple(dict.fromkeys((folder / name).resolve() for folder in controllers))
    for root in roots:
        root.mkdir(exist_ok=True)
    hierarchy = MOUNT / "memory" / name / "memory.use_hierarchy"
    with contextlib.suppress(OSError):  # always on in newer kernels
        hierarchy.write_text("1")
    return CgroupTree(1, roots)


def _make_v2_tree(name: str) -> CgroupTree | None:
    base = delegation.find_base(MOUNT)
    if base is None or not delegation.open_top(base):
        return None
    root = base / name
    root.mkdir(exist_ok=True)
    delegation.open_group(root)
    if delegation.is_open(root):
        return CgroupTree(2, (root,))
    root.rmdir()
    return None


def settled() -> AbstractContextManager[delegation.Stay]:
    """Make room for a run's groups where processes are in the way. To be entered outside the lab:
    they are counted as the host counts them."""
    return delegation.settled(MOUNT)


def explain_missing() -> str:
    """Why `find_tree` finds none, and what would give the run some."""
    outer = Path("/proc/self/uid_map").read_text().split()[1:2]  # in the lab a user is root too
    return delegation.explain_missing(MOUNT, root=os.geteuid() == 0 and outer == ["0"])


def set_limits(
    folders: Sequence[Path], memory: int | None, cpus: float | None, pids: int | None = None
) -> None:
    """Limit a group's memory (bytes, swap included where counted), CPU time (cores), and its
    processes and threads."""
    for folder in folders:
        if memory is not None:
            _write_first(folder, ("memory.max", "memory.limit_in_bytes"), str(memory))
            _write_first(folder, ("memory.swap.max",), "0")
            _write_first(folder, ("memory.memsw.limit_in_bytes",), str(memory))
        if cpus is not None:
            quota = round(cpus * CPU_PERIOD_US)
            _write_first(folder, ("cpu.max",), f"{quota} {CPU_PERIOD_US}")
            _write_first(folder, ("cpu.cfs_quota_us",), str(quota))
        if pids is not None:
            _write_first(folder, ("pids.max",), str(pids))


def _write_first(folder: Path, names: Sequence[str], text: str) -> None:
    for name in names:
        if (folder / name).exists():
            (folder / name).write_text(text)
            return


@contextlib.contextmanager
def entered(folders: Sequence[Path]) -> Iterator[None]:
    """Put this whole process into the groups, and back again: what it forks meanwhile stays there.

    Entering waits for an RCU grace period (some 10 ms when the kernel was quiet), so it belongs
    before the clock starts, never inside the timed window. Raises HostError, and enters nothing,
    where there is no way back.
    """
    homes = [_find_home(find_hierarchy(folder)) for folder in folders]
    try:
        for folder in folders:
            (folder / "cgroup.procs").write_text("0")
        yield
    finally:
        for home in homes:
            (home / "cgroup.procs").write_text("0")


def _find_home(hierarchy: Path) -> Path:
    """Where this process goes back to in a hierarchy: its group, or the top if that cannot be seen;
    raises HostError where it could not get there either."""
    own = _find_own(hierarchy)
    if own is not None:
        return own
    if delegation.takes_processes(hierarchy):
        return hierarchy
    raise HostError(
        f"this process's control group cannot be seen in {hierarchy}, so that it could not go back",
        hint="in a container: start it with `--cgroupns=private`",
    )


def find_hierarchy(folder: Path) -> Path:
    """The mount point of the hierarchy a group lies in."""
    if (MOUNT / "cgroup.controllers").exists():
        return MOUNT
    return MOUNT / folder.relative_to(MOUNT).parts[0]


def list_levels(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Groups, and those above them up to the run's own: where a run's limits are.

    What lies above (`list_outer`) limits the run itself, and with it every platform alike: a
    container that the harness runs in, a Kubernetes pod.
    """
    return tuple(level for folder in folders for level in _split_levels(folder)[0])


def list_outer(folders: Sequence[Path]) -> tuple[Path, ...]:
    """The groups that the run's own lies in, as far up as they can be seen from here."""
    found = (level for folder in folders for level in _split_levels(folder)[1])
    return tuple(dict.fromkeys(found))


def _split_levels(folder: Path) -> tuple[list[Path], list[Path]]:
    """A group with those above it: the run's, whose names begin with `PREFIX`, and the others.

    What the run lies in may be called so too: a unit of that name. Each of its own begins with the
    name of the one above it.
    """
    levels = [folder, *folder.parents]
    count = next((at for at, each in enumerate(levels) if each.name.startswith(PREFIX)), None)
    if count is None:
        return levels[:1], []
    while levels[count].name.startswith(f"{levels[count + 1].name}-"):
        count += 1
    return levels[: count + 1], levels[count + 1 :]


def read_processes(folders: Sequence[Path]) -> tuple[int, ...]:
    """Process ids in the group and below it, as numbered in this process's pid namespace."""
    pids: set[int] = set()
    for folder in folders[:1]:
        for where, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                pids.update(map(int, (Path(where) / "cgroup.procs").read_text().split()))
    return tuple(sorted(pids - {0}))


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds of a group. ``total`` is exact; the kernel samples the split at its ticks."""

    total: float
    user: float
    system: float

    def since(self, before: "CpuTime") -> dict[str, float]:
        """Seconds used since ``before``, by phase: all (``""``), and where known user and system.

        The sampled split is scaled to the exact total, as the kernel does it for a process.
        """
        total = self.total - before.total
        user, system = self.user - before.user, self.system - before.system
        if user + system <= 0:
            return {"": total}
        share = user / (user + system)
        return {"": total, "user": total * share, "system": total * (1 - share)}


def read_cpu_time(folders: Sequence[Path]) -> CpuTime | None:
    """What the group has used so far; None where it is not accounted."""
    for folder in folders:
        if (folder / "cpuacct.usage").exists():
            total, user, system = (
                int((folder / f"cpuacct.{name}").read_text()) / 1e9
                for name in ("usage", "usage_user", "usage_sys")
            )
            return CpuTime(total, user, system)
        if (folder / "cpu.stat").exists():
            stat = _read_table(folder / "cpu.stat")
            if "usage_usec" in stat:
                names = ("usage_usec", "user_usec", "system_usec")
                return CpuTime(*(stat[name] / 1e6 for name in names))
    return None


def read_memory(folders: Sequence[Path]) -> MemoryCharge | None:
    """What the group is charged now; None where memory is not accounted."""
    for folder in folders:
        if (folder / "memory.current").exists():
            return _read_memory_v2(folder)
        if (folder / "memory.usage_in_bytes").exists():
            return _read_memory_v1(folder)
    return None


def _read_memory_v2(folder: Path) -> MemoryCharge:
    stat = _read_table(folder / "memory.stat")
    total = int((folder / "memory.current").read_text())
    peak_file = folder / "memory.peak"
    peak = int(peak_file.read_text()) if peak_file.exists() else None
    kernel = stat.get("kernel", max(0, total - stat["anon"] - stat["file"]))
    return MemoryCharge(total, stat["anon"], stat["file"], kernel, peak)


def _read_memory_v1(folder: Path) -> MemoryCharge:
    stat = _read_table(folder / "memory.stat")
    kernel_file = folder / "memory.kmem.usage_in_bytes"
    return MemoryCharge(
        total=int((folder / "memory.usage_in_bytes").read_text()),
        anon=stat["total_rss"],
        file=stat["total_cache"],
        kernel=int(kernel_file.read_text()) if kernel_file.exists() else 0,
        peak=int((folder / "memory.max_usage_in_bytes").read_text()),
    )


def read_memory_limit(folders: Sequence[Path]) -> int | None:
    """The least memory limit on the `list_levels`, in bytes; None where there is none."""
    limits = []
    for folder in list_levels(folders):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (folder / name).exists():
                limits.append((folder / name).read_text().strip())
    sizes = [int(text) for text in limits if text != "max"]
    return min((size for size in sizes if size < _NO_LIMIT), default=None)


def read_oom_kills(folders: Sequence[Path]) -> int:
    """How many processes of the group, and below it, the kernel killed for want of memory.

    On v2 a group counts those of groups below it that are gone, too; on v1 their count is lost.
    """
    return sum(max(_count_kills(folder), _read_kills(folder / "memory.events"))
               for folder in folders)  # fmt: skip


def _count_kills(folder: Path) -> int:
    """One by one; v2's own count where a group has it."""
    count = 0
    for where, _, _ in os.walk(folder):
        counted = Path(where) / "memory.events.local"
        count += _read_kills(counted if counted.exists() else Path(where) / "memory.oom_control")
    return count


def _read_kills(table: Path) -> int:
    with contextlib.suppress(OSError):
        return _read_table(table).get("oom_kill", 0)
    return 0


def read_throttled(folders: Sequence[Path]) -> int:
    """How often the group was throttled by its CPU quota."""
    for folder in folders:
        if (folder / "cpu.stat").exists():
            return _read_table(folder / "cpu.stat").get("nr_throttled", 0)
    return 0


def _read_table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def kill_processes(folders: Sequence[Path]) -> None:
    """Kill every process of the group, newcomers included."""
    for folder in folders:
        with contextlib.suppress(OSError):
            (folder / "cgroup.kill").write_text("1")
            return
    for _ in range(100):
        pids = read_processes(folders)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if not pids:
            return
        _wait_for_end(pids, 1.0)


def _wait_for_end(pids: Sequence[int], seconds: float) -> None:
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([handle], [], [], seconds)
        finally:
            os.close(handle)


def remove(folders: Sequence[Path]) -> list[str]:
    """Remove groups, deepest first; returns what could not be removed, with the reason.

    On v1 that goes for the same groups in all hierarchies.
    """
    return remove_trees(find_everywhere(folders))


def remove_trees(folders: Sequence[Path]) -> list[str]:
    """Remove just these groups, deepest first; returns what could not be removed."""
    left = []
    for folder in folders:
        for where, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(where)
            except FileNotFoundError:
                continue
            except OSError as error:
                left.append(f"{where}: {errno.errorcode.get(error.errno or 0, '?')}")
    return left
