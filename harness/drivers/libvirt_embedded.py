"""libvirt's QEMU driver in this process: its settings, and what it may see of the host.

``qemu:///embed`` (libvirt.org/drvqemu.html) has all its files below one folder and needs no daemon.
"""

import contextlib
import threading
from pathlib import Path
from typing import Any

from harness import lab, linux
from harness.drivers.libvirt_connect import open_connection
from harness.drivers.libvirt_uri import EMBEDDED
from harness.errors import HostError

_CONF = """\
# QEMU runs as the user of the harness, and nothing but the harness confines it.
user = "+{user}"
group = "+{user}"
hugetlbfs_mount = [{huge}]
security_driver = "none"
namespaces = []
cgroup_controllers = []
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
max_core = 0
"""
_ROOT = 0
_UNCHANGED = 2**32 - 1
"""The user that setuid(2) and setgid(2) take for «as it is». An ordinary user is root in the lab,
so libvirt would set the groups anew to those of root; what the user has besides, such as ``kvm``,
has no number there and would be lost."""
_HUGE = "huge"

# Users that distributions build libvirt's QEMU driver with; only its daemon's package makes them.
_COMPILED_IN_USERS = ("libvirt-qemu", "qemu")


def build_conf(privileged: bool, huge: str | None) -> str:
    """``qemu.conf``. ``huge`` is the file system for guests in huge pages; without one libvirt
    would make folders in all that the host has mounted."""
    user = _ROOT if privileged else _UNCHANGED
    return _CONF.format(user=user, huge=f'"{huge}"' if huge else "")


def open_embedded(root: Path) -> Any:
    """The connection to the driver with its files below ``root``; raises HostError."""
    try:
        (root / "etc").mkdir(exist_ok=True)
        huge = str(root / _HUGE) if _mount_huge_pages(root / _HUGE) else None
        (root / "etc/qemu.conf").write_text(build_conf(lab.is_privileged(), huge))
    except OSError as error:
        raise HostError(f"libvirt cannot be set up: {error}") from error
    found: list[Any] = []

    def work() -> None:
        try:
            _enter_view(root)
            found.append(open_connection(f"{EMBEDDED}?root={root}"))
        except OSError as error:
            found.append(HostError(f"libvirt cannot be set up: {error}"))
        except Exception as error:  # raised where it is waited for
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _mount_huge_pages(folder: Path) -> bool:
    """A file system for huge pages in the run's own folder; only root of the host may mount one."""
    folder.mkdir(exist_ok=True)
    if not lab.is_privileged():
        return False
    with contextlib.suppress(OSError):  # a kernel without them
        linux.mount("hugetlbfs", folder, "hugetlbfs", linux.MS_NOSUID | linux.MS_NODEV)
        return True
    return False


def _enter_view(root: Path) -> None:
    """Give this thread alone a view of the host that the driver's set-up can work with.

    libvirt looks up the users that its distribution compiled in before it reads that its
    configuration names others. A host with only the driver has no such users, so here they are
    further names of root. What it makes in /run/libvirt is no daemon's.
    """
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    if Path("/run/libvirt").is_dir():
        linux.mount("tmpfs", "/run/libvirt", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for name, rest in (("passwd", "x:0:0::/:/bin/false"), ("group", "x:0:")):
        known = Path("/etc", name).read_text(errors="surrogateescape")
        present = {line.partition(":")[0] for line in known.splitlines()}
        added = [f"{user}:{rest}\n" for user in _COMPILED_IN_USERS if user not in present]
        text = known.rstrip("\n") + "\n" + "".join(added)
        (root / name).write_text(text, errors="surrogateescape")
        linux.mount(str(root / name), f"/etc/{name}", "", linux.MS_BIND)
