"""The conditions that a started instance runs under, as found: what its parity certificate says.

Read from outside, of the instance itself: its control groups, its processes' CPUs, network and
root, its QEMU's command line; from inside, what its agent says. What only its driver can tell
comes from there (`Instance.read_evidence`). What cannot be read is not known, and never guessed.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import cgroup
from harness.certificate import NONE, Condition, Conditions, format_condition, format_words
from harness.drivers.base import Instance, InstanceSpec, Processes
from harness.errors import TrialError
from harness.images.model import Image
from harness.images.recipes import AGENT
from harness.isolation.machine import read_machine
from harness.limits import find_device, find_writing, read_least, read_quota
from harness.model import Kind

MEMORY, DISK, READ_ONLY = "memory", "disk", "read-only"
VOLATILE = "volatile"
"""A layer on the disk that is never synced to it: to wait for that costs nothing."""
HOST, BRIDGE = "host", "bridge"
_VOLATILE = ("volatile", "fsync=volatile")
_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")
_UNKNOWN = Condition(None)
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")


def read_conditions(
    kind: Kind,
    instance: Instance,
    spec: InstanceSpec,
    own: Conditions,
    refused: Mapping[str, str] | None = None,
) -> Conditions:
    """All of a started instance's conditions; ``own`` is what its driver knows better, and
    ``refused`` why a limit that is not there could not be set."""
    processes = instance.processes()
    found = {
        **build_told(spec),
        "cpu-set": read_cpu_set(processes),
        "storage": read_storage(kind, instance, processes),
        "network": read_network(kind, processes, spec),
    }
    found |= read_guest(instance, spec) if kind == "vm" else read_groups(instance, spec)
    if kind in ("container", "sandbox"):
        found["user"] = add_word(found["user"], read_profile(processes))
    here = bool(find_groups(instance, spec)) and not processes.elsewhere
    found = {**name_outer(found, spec.cgroups if here else ()), **own}
    for name, reason in (refused or {}).items():
        if name in found and found[name].value == NONE:
            found[name] = add_word(found[name], reason)
    return found


def add_word(condition: Condition, word: str) -> Condition:
    """The same condition with more of how it is so."""
    return replace(condition, how="; ".join(filter(None, [condition.how, word])))


def read_profile(processes: Processes) -> str:
    """Which profile of AppArmor confines an instance, on a kernel that has it on; else nothing.

    It is only shown: in the lab an engine finds no securityfs, so that it leaves out a profile that
    its containers have elsewhere.
    """
    with contextlib.suppress(OSError):
        if _APPARMOR.read_text().strip() != "Y":
            return ""
        for pid in processes.inside[:1]:
            word = _read_label(processes.proc / str(pid) / "attr")
            return "no AppArmor profile" if word == "unconfined" else f"AppArmor profile {word}"
    return ""


def _read_label(folder: Path) -> str:
    """As apparmor(7) has it, and where it is on kernels before 5.8."""
    own = folder / "apparmor/current"
    return (own if own.exists() else folder / "current").read_text().strip(" \n\0")


def build_told(spec: InstanceSpec) -> dict[str, Condition]:
    """What the agent was told to run, and from which tree."""
    variables = (f"{name}={value}" for name, value in sorted(spec.environment.items()))
    return {
        "image": Condition(spec.image.digest),
        "agent": Condition(_find_digest(find_agent(spec.image))),
        "command": Condition(format_words(spec.command)),
        "environment": Condition(" ".join(variables) or "empty"),
        "user": Condition(spec.user or "the agent's own"),
        "directory": Condition(spec.directory),
    }


def find_agent(image: Image) -> Path | None:
    """The first process's program in an image; every form of the image is made of its tree."""
    tree = image.packings.get("tree")
    return tree.path / AGENT if tree else None


@functools.cache
def _find_digest(path: Path | None) -> str | None:
    try:
        if path is not None:
            return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        pass  # it is not built yet
    return None


# ---- limits ----------------------------------------------------------------------------------


def read_groups(instance: Instance, spec: InstanceSpec) -> dict[str, Condition]:
    """The limits of an instance's control groups, as the kernel has them.

    Without any group nothing can have been limited, unless an engine has groups of its own that
    are not to be seen from here.
    """
    groups = find_groups(instance, spec)
    if not groups:
        why = "" if spec.cgroups else "no control groups here"
        bare = Condition(None) if spec.cgroups else Condition(NONE, why)
        return dict.fromkeys(("cpus", "memory", "pids", "io"), bare) | {
            "disk": read_quota_size(instance, spec)
        }
    read = {
        "cpus": (read_quota(groups), "quota"),
        "memory": (cgroup.read_memory_limit(groups), "limit of its group"),
        "pids": (read_least(groups, ("pids.max",)), "limit of its group"),
        "io": read_writing(instance, groups),
    }
    found = {
        name: Condition(NONE) if value is None else Condition(value, how)
        for name, (value, how) in read.items()
    }
    return {**found, "disk": read_quota_size(instance, spec)}


def name_outer(found: Mapping[str, Condition], groups: Sequence[Path]) -> dict[str, Condition]:
    """The same with a word on each limit that the run itself has, if that is less.

    Such a limit holds every platform of the run alike, so that it is no difference of theirs.
    """
    outer = cgroup.list_outer(groups)
    limits = {
        "cpus": read_quota(outer),
        "memory": cgroup.read_memory_limit(outer),
        "pids": read_least(outer, ("pids.max",)),
    }
    named = dict(found)
    for name, limit in limits.items():
        value = found[name].value
        if limit is not None and (not isinstance(value, int | float) or limit < value):
            named[name] = add_word(
                found[name], f"the run itself has {format_condition(name, limit)}"
            )
    return named


def find_groups(instance: Instance, spec: InstanceSpec) -> list[Path]:
    """The groups that limit an instance: its own, and on v1 those of controllers that its engine
    made none in."""
    own = [each for each in (*instance.cgroups, *spec.cgroups) if each.is_dir()]
    return list(dict.fromkeys(own)) if instance.cgroups else []


def read_writing(instance: Instance, groups: Sequence[Path]) -> tuple[float | None, str]:
    """The limit of writing to the disk that holds what the instance writes, and its reach.

    On v1 a group's limit is not one of the groups below it, so only the innermost counts there.
    """
    device = next((find_device(path) for path in instance.files() or ()), None) or ""
    if any((each / "blkio.throttle.write_bps_device").exists() for each in groups):
        return find_writing(instance.cgroups, device), "past the page cache only"
    return find_writing(groups, device), "limit of its group"


def read_quota_size(instance: Instance, spec: InstanceSpec) -> Condition:
    """The size of the file system that holds what an instance writes, if that is its own."""
    files = instance.files()
    if files is None:
        return _UNKNOWN
    backing = find_backing(spec.folder)
    own = bool(files) and all(each.is_relative_to(spec.folder) for each in files)
    if backing.exists() and own:
        return Condition(backing.stat().st_size, "a file system of its own")
    return Condition(NONE, "its engine has a store of its own" if spec.disk and not own else "")


def find_backing(folder: Path) -> Path:
    """The file of the file system that is mounted on an instance's folder as its quota."""
    return folder.with_name(f"{folder.name}.ext4")


def read_guest(instance: Instance, spec: InstanceSpec) -> dict[str, Condition]:
    """A guest's CPUs and memory by its QEMU's command line, and its processes by its agent."""
    machine = {}
    if not instance.processes().elsewhere:
        machine = read_machine(instance)
    inside = ""
    with contextlib.suppress(TrialError):
        inside = f", of which its kernel leaves {int(instance.ask('memory').split()[0]) >> 20} MiB"
    return {
        "cpus": Condition(machine.get("cpu"), "virtual CPUs"),
        "memory": Condition(machine.get("memory"), f"the guest's memory{inside}"),
        "pids": read_guest_processes(instance, spec),
    }


def read_guest_processes(instance: Instance, spec: InstanceSpec) -> Condition:
    """The limit inside the guest, as its agent reads it back."""
    if spec.pids is None:
        return Condition(NONE)
    try:
        answer = instance.ask("pids")
    except TrialError:
        return _UNKNOWN
    return Condition(int(answer), "a group inside the guest") if answer.isdigit() else _UNKNOWN


# ---- where it runs ---------------------------------------------------------------------------


def read_cpu_set(processes: Processes) -> Condition:
    """The host's CPUs that any thread of the instance may run on."""
    if processes.elsewhere:
        return _UNKNOWN
    allowed: set[int] = set()
    for pid in processes.inside:
        for status in (processes.proc / str(pid)).glob("task/*/status"):
            with contextlib.suppress(OSError):
                allowed |= parse_cpus(status.read_text())
    return Condition(format_cpus(allowed)) if allowed else _UNKNOWN


def parse_cpus(status: str) -> set[int]:
    """The CPUs in ``Cpus_allowed_list`` of a status file (proc(5))."""
    for line in status.splitlines():
        if line.startswith("Cpus_allowed_list:"):
            spans = [part.split("-") for part in line.split()[1].split(",")]
            return {cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1)}
    return set()


def format_cpus(cpus: set[int]) -> str:
    """CPUs in the kernel's words: ``0-3,6``."""
    spans: list[list[int]] = []
    for cpu in sorted(cpus):
        if spans and spans[-1][1] == cpu - 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def read_network(kind: Kind, processes: Processes, spec: InstanceSpec) -> Condition:
    """Which network an instance is in, by that of its first process.

    A sandbox takes the addresses of its link over, so there the link itself counts.
    """
    if processes.elsewhere or not processes.inside or kind == "vm":
        return _UNKNOWN
    process = processes.proc / str(processes.inside[0])
    try:
        own = os.readlink(process / "ns" / "net")
        if own == os.readlink("/proc/self/ns/net"):
            return Condition(HOST, "that of the lab")
        if own == os.readlink(processes.proc / "1" / "ns" / "net"):
            return Condition(HOST, "that of the host")
        links = (process / "net" / "dev").read_text()
        routes = (process / "net" / "route").read_text().splitlines()[1:]
    except OSError:
        return _UNKNOWN
    linked = bool(routes) or any(
        line.strip().startswith(("eth", "veth")) for line in links.splitlines()
    )
    if linked and spec.address:
        return Condition(BRIDGE, f"a link to {spec.bridge or 'the bridge'}")
    return Condition("linked" if linked else NONE, "" if linked else "loopback only")


def read_storage(kind: Kind, instance: Instance, processes: Processes) -> Condition:
    """What an instance's writable layer lies on."""
    files = instance.files()
    if files is None:
        return _UNKNOWN
    if kind != "sandbox" and not processes.elsewhere and _is_read_only(processes):
        return Condition(READ_ONLY)
    places = sorted({find_file_system(path) for path in files})
    if not places:
        return _UNKNOWN
    means = "disk image" if kind == "vm" else "layer"
    how = f"{means} on the host's {' and '.join(places)}"
    if all(name in _IN_MEMORY for name in places):
        return Condition(MEMORY, how)
    if kind != "vm" and any(is_volatile(text, files) for text in _read_mounts(processes)):
        return Condition(VOLATILE, f"{how}, mounted so that it is never synced")
    return Condition(DISK, how)


def _read_mounts(processes: Processes) -> Iterator[str]:
    """The mounts that this process, the instance and its helpers see: a sandbox's root is mounted
    outside it."""
    pids = () if processes.elsewhere else (*processes.inside[:1], *processes.helpers)
    for folder in (Path("/proc/self"), *(processes.proc / str(pid) for pid in pids)):
        with contextlib.suppress(OSError):
            yield (folder / "mountinfo").read_text()


def is_volatile(mounts: str, uppers: Sequence[Path]) -> bool:
    """Whether an overlay with one of these upper layers is mounted ``volatile``, by a mountinfo
    file (overlayfs.rst, «Volatile mount»)."""
    wanted = {f"upperdir={upper}" for upper in uppers}
    for _, _, kind, options in parse_mounts(mounts):
        given = set(options.split(","))
        if kind == "overlay" and wanted & given and any(each in given for each in _VOLATILE):
            return True
    return False


def _is_read_only(processes: Processes) -> bool:
    for pid in processes.inside[:1]:
        with contextlib.suppress(OSError):
            for mount in parse_mounts((processes.proc / str(pid) / "mountinfo").read_text()):
                if mount[0] == "/":
                    return "ro" in mount[1].split(",")
    return False


def find_file_system(path: Path) -> str:
    """The type of the file system that a path lies on; of a quota's, that its file lies on."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    holding = [mount for mount in mounts if path.is_relative_to(mount[0])]
    deepest = max(len(mount[0]) for mount in holding)
    point, _, kind, _ = [mount for mount in holding if len(mount[0]) == deepest][-1]
    if point != "/" and (backing := find_backing(Path(point))).exists():
        return find_file_system(backing)
    return kind


def parse_mounts(text: str) -> list[tuple[str, str, str, str]]:
    """(mount point, options, type, the file system's own options) of every line of a mountinfo
    file (proc(5))."""
    found = []
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        words = head.split()
        point = words[4].replace("\\040", " ")
        kind, _, *options = tail.split()
        found.append((point, words[5], kind, " ".join(options)))
    return found


# ---- beforehand ------------------------------------------------------------------------------


def build_expected(kind: Kind, spec: InstanceSpec, *, read_only: bool = False) -> Conditions:
    """What is known of an instance before it starts, for --dry-run; the rest is left out."""
    limited = spec.limits or kind == "vm"
    limits: Mapping[str, int | None] = {
        "cpus": spec.cpus, "memory": spec.memory, "pids": spec.pids, "io": spec.io,
    }  # fmt: skip
    network = HOST if kind == "process" or spec.host_network else BRIDGE if spec.address else NONE
    expected = {
        **build_told(spec),
        **{
            name: Condition(value if limited and value is not None else NONE)
            for name, value in limits.items()
        },
        "network": Condition(network),
    }
    return {**expected, "storage": Condition(READ_ONLY)} if read_only else expected
