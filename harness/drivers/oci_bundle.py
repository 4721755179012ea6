"""The configuration of an OCI bundle for one instance: the same container as `namespace` makes.

`build_config` returns what goes into ``config.json``; it makes nothing, and reads only the filter
of system calls where one is asked for. Format: the OCI runtime specification
1.0 (config.md, config-linux.md).
"""

from collections.abc import Mapping

from harness import cgroup
from harness.cgroup import CPU_PERIOD_US
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.commanded import FIRST_PROCESS, PATH, RUN_FOLDER
from harness.drivers.rooted import Layout, build_link_name
from harness.drivers.seccomp import read_filter
from harness.limits import find_device

CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
        "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip
"""What engines leave to root by default; container.h keeps the same."""

_TERMINALS = ("ptmxmode=0666", "mode=0620")
_QUIET = ("nosuid", "noexec", "nodev")
GROUP = "container"


def build_config(spec: InstanceSpec, toolbox: Toolbox) -> Mapping[str, object]:
    """``config.json`` of the bundle in ``spec.folder``."""
    layout = Layout.of(spec)
    capabilities = {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(FIRST_PROCESS),
            "env": [f"PATH={PATH}"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": not spec.may_gain,
        },
        "root": {"path": str(layout.merged), "readonly": toolbox.options.read_only},
        "hostname": spec.name[-63:],
        "mounts": build_mounts(str(layout.run)),
        "linux": build_linux(spec, seccomp=bool(toolbox.options.seccomp)),
        **build_hooks(spec, toolbox),
    }


def build_mounts(run: str) -> list[dict[str, object]]:
    def mount(target: str, kind: str, *options: str, source: str = "") -> dict[str, object]:
        return {
            "destination": target, "type": kind, "source": source or kind,
            "options": list(options),
        }  # fmt: skip

    return [
        mount("/proc", "proc", *_QUIET),
        mount("/dev", "tmpfs", "nosuid", "mode=755", "size=65536k"),
        mount(
            "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"
        ),
        mount("/dev/shm", "tmpfs", *_QUIET, "mode=1777", "size=65536k"),
        mount("/sys", "sysfs", *_QUIET, "ro"),
        mount(RUN_FOLDER, "bind", "bind", "rw", source=run),
    ]


def build_linux(spec: InstanceSpec, *, seccomp: bool = False) -> dict[str, object]:
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"]
    kinds += [] if spec.host_network else ["network"]
    resources: dict[str, object] = {}
    if spec.limits:
        resources = {
            "memory": {"limit": spec.memory, "swap": spec.memory},
            "cpu": {"quota": spec.cpus * CPU_PERIOD_US, "period": CPU_PERIOD_US},
            **build_further(spec),
        }
    path = cgroup.build_path(spec.cgroups, GROUP)
    return {
        "namespaces": [{"type": kind} for kind in kinds],
        "resources": {"devices": [{"allow": False, "access": "rwm"}], **resources},
        **({"cgroupsPath": path} if path else {}),
        **({"seccomp": read_filter(CAPABILITIES)} if seccomp else {}),
        "maskedPaths": [],
        "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
    }


def build_further(spec: InstanceSpec) -> dict[str, object]:
    """The limits of processes and of writing, where they are asked for."""
    found: dict[str, object] = {"pids": {"limit": spec.pids}} if spec.pids is not None else {}
    if spec.io is not None and (device := find_device(spec.folder)):
        major, minor = map(int, device.split(":"))
        rate = {"major": major, "minor": minor, "rate": spec.io}
        found["blockIO"] = {"throttleWriteBpsDevice": [rate]}
    return found


def build_hooks(spec: InstanceSpec, toolbox: Toolbox) -> dict[str, object]:
    """Before the first process starts, the starter links the container to the lab's bridge."""
    if not (spec.address and spec.bridge):
        return {}
    program = str(toolbox.starter)
    words = [program, "link", spec.bridge, build_link_name(spec.name), spec.address]
    words += [spec.gateway] if spec.gateway else []
    return {"hooks": {"createRuntime": [{"path": program, "args": words}]}}
