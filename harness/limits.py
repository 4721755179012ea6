"""The limits of an instance's own control group: set from outside, and read back from there.

Memory, CPU time and processes are limited in the group; how fast an instance writes, by the
device that it writes to. Source: cgroup-v1/pids.rst, cgroup-v1/blkio-controller.rst and
cgroup-v2.rst of the kernel's admin guide.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.cgroup import MOUNT, PREFIX, CgroupTree, list_levels

_WRITE_FILES = ("blkio.throttle.write_bps_device", "io.max")


def add_writing(tree: CgroupTree, run_id: str) -> CgroupTree:
    """The tree with the groups that limit writing, where this host has a controller for it."""
    if tree.version == 2:
        with contextlib.suppress(OSError):
            for folder in (*(root.parent for root in tree.roots), *tree.roots):
                (folder / "cgroup.subtree_control").write_text("+io")
        return tree
    if not (MOUNT / "blkio").is_dir():
        return tree
    root = (MOUNT / "blkio" / f"{PREFIX}{run_id}").resolve()
    with contextlib.suppress(OSError):
        root.mkdir(exist_ok=True)
        return replace(tree, roots=tuple(dict.fromkeys((*tree.roots, root))))
    return tree


def limit_processes(folders: Sequence[Path], most: int) -> bool:
    """Limit a group's processes and threads; whether this host can."""
    return write_limit(folders, ("pids.max",), str(most))


def limit_writing(folders: Sequence[Path], places: Sequence[Path], rate: int) -> dict[str, str]:
    """Limit what a started instance writes per second to the disks that hold ``places``.

    On v1 a group's limit is not one of the groups below it (blkio-controller.rst, «Hierarchical
    Cgroups»), so each gets its own, once it is there. Returns the reason if it cannot be.
    """
    devices = {device for place in places if (device := find_device(place))}
    if not devices:
        return {"write": "what the instance writes is on no block device"}
    every = [Path(where) for folder in folders for where, _, _ in os.walk(folder)]
    done = [_limit_device(folder, device, rate) for folder in every for device in devices]
    if any(done):
        return {}
    return {"write": f"no controller here limits writing to {', '.join(sorted(devices))}"}


def _limit_device(folder: Path, device: str, rate: int) -> bool:
    found = write_limit([folder], ("blkio.throttle.write_bps_device",), f"{device} {rate}")
    return found or write_limit([folder], ("io.max",), f"{device} wbps={rate}")


def write_limit(folders: Sequence[Path], names: Sequence[str], text: str) -> bool:
    """Write a limit to the first of these files that is there; whether one was."""
    for folder in folders:
        for name in names:
            with contextlib.suppress(OSError):
                if (folder / name).exists():
                    (folder / name).write_text(text)
                    return True
    return False


def find_device(folder: Path) -> str | None:
    """``MAJOR:MINOR`` of the whole disk below a folder, since that is what can be limited."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    number = os.stat(there).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    entry = Path("/sys/dev/block") / device
    if not entry.exists():
        return None
    with contextlib.suppress(OSError):
        if (entry / "partition").exists():
            return (entry.resolve().parent / "dev").read_text().strip()
    return device


def find_device_file(folder: Path) -> Path | None:
    """That disk in /dev, as engines want it; None where it is not there."""
    device = find_device(folder)
    with contextlib.suppress(OSError):
        lines = Path(f"/sys/dev/block/{device}/uevent").read_text().splitlines()
        names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
        return next((Path("/dev") / name for name in names if (Path("/dev") / name).exists()), None)
    return None


def find_writing(folders: Sequence[Path], device: str = "") -> float | None:
    """The least limit of writing as the kernel has it, in bytes per second; None without one.
    Only that of a ``device`` (``MAJOR:MINOR``), where one is named."""
    rates = []
    for folder in folders:
        for name in _WRITE_FILES:
            with contextlib.suppress(OSError):
                lines = (folder / name).read_text().splitlines()
                chosen = [line for line in lines if not device or line.startswith(f"{device} ")]
                rates += parse_rates("\n".join(chosen))
    return min(rates, default=None)


def parse_rates(text: str) -> list[float]:
    """The rates in lines of ``253:0 8388608`` or ``253:0 rbps=max wbps=8388608``."""
    last = [line.replace("wbps=", " ").split()[1:] for line in text.splitlines() if line.strip()]
    return [float(word) for words in last for word in words if word.isdigit()]


def read_least(folders: Sequence[Path], names: Sequence[str]) -> int | None:
    """The least number in these files on the `list_levels`; None without one."""
    found = []
    for folder in list_levels(folders):
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                found.append(int((folder / name).read_text().split()[0]))
    return min((number for number in found if 0 < number < 1 << 62), default=None)


def read_quota(folders: Sequence[Path]) -> float | None:
    """The least CPU quota on the `list_levels`, in cores; None without one."""
    found = []
    for folder in list_levels(folders):
        with contextlib.suppress(OSError, ValueError):
            found.append(_read_own_quota(folder))
    return min((quota for quota in found if quota > 0), default=None)


def _read_own_quota(folder: Path) -> float:
    """Cores; -1 or ValueError without a quota, OSError without the files."""
    joint = folder / "cpu.max"
    if joint.exists():
        quota, period = map(int, joint.read_text().split())
        return quota / period
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return quota / int((folder / "cpu.cfs_period_us").read_text())
