"""`lxc`: the oldest of Linux's container managers, started in the foreground from a configuration.

Nothing tells from outside when its sandbox is there, so `created` is not known and the time up to
`init` stands under `residual`. Source of the keys: lxc.container.conf(5).
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness import cgroup
from harness.drivers.base import InstanceSpec
from harness.drivers.commanded import FIRST_PROCESS, RUN_FOLDER, Command, CommandedInstance
from harness.drivers.commanded_driver import CommandedDriver
from harness.drivers.oci_bundle import CAPABILITIES
from harness.drivers.rooted import Layout
from harness.limits import find_device

_SWITCH = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_PROFILE = "lxc-container-default-cgns"


class LxcDriver(CommandedDriver):
    """LXC, with the capabilities that container engines leave to root."""

    name = "lxc"
    program = "lxc-start"

    def describe(self, spec: InstanceSpec) -> Mapping[str, object]:
        return {**super().describe(spec), "config": build_config(spec, find_confinement())}

    @contextmanager
    def start_instance(self, spec: InstanceSpec) -> Iterator[CommandedInstance]:
        try:
            with super().start_instance(spec) as instance:
                yield instance
        finally:  # LXC makes groups in every hierarchy, and removes only their innermost
            cgroup.remove_trees(cgroup.find_beside(spec.name))

    def prepare(self, spec: InstanceSpec) -> None:
        super().prepare(spec)
        config = spec.folder / spec.name / "config"
        config.parent.mkdir()
        lines = build_config(spec, find_confinement())
        config.write_text("".join(f"{line}\n" for line in lines))

    def build_command(self, spec: InstanceSpec) -> Command:
        words = [self.path, "-F", "-P", str(spec.folder), "-n", spec.name]
        words += ["-o", str(spec.folder / "lxc.log"), "-l", "WARN"]
        return Command(tuple(words), log=spec.folder / "lxc.log")


def find_confinement() -> str | None:
    """What `lxc.apparmor.profile` has to say here; None where LXC's own choice works.

    With AppArmor in the kernel LXC wants the profile of its package, which only AppArmor's own
    tools load: where they have not, it does not start at all (lxc.container.conf(5)).
    """
    with contextlib.suppress(OSError):
        if not _SWITCH.read_text().startswith("Y"):
            return None
        with contextlib.suppress(OSError):
            if _PROFILE in _PROFILES.read_text():
                return None
        return "unconfined"
    return None


def build_config(spec: InstanceSpec, confinement: str | None = None) -> list[str]:
    """Pure: the lines of its configuration. Its groups lie below those that it is started in."""
    layout = Layout.of(spec)
    lines = {
        "lxc.uts.name": spec.name[-63:],
        "lxc.rootfs.path": f"dir:{layout.merged}",
        "lxc.init.cmd": " ".join(FIRST_PROCESS),
        "lxc.mount.auto": "proc:mixed sys:ro",
        "lxc.mount.entry": f"{layout.run} {RUN_FOLDER[1:]} none bind 0 0",
        "lxc.cap.keep": " ".join(name.removeprefix("CAP_").lower() for name in CAPABILITIES),
        "lxc.no_new_privs": str(int(not spec.may_gain)),
        "lxc.autodev": "1",
        "lxc.pty.max": "0",
        "lxc.tty.max": "0",
        "lxc.console.path": "none",
        "lxc.cgroup.relative": "1",
        "lxc.cgroup.dir.container": f"{spec.name}/container",
        "lxc.cgroup.dir.monitor": f"{spec.name}/monitor",
        **({"lxc.apparmor.profile": confinement} if confinement else {}),
        **_build_writing(spec),
        **_build_network(spec),
    }
    return [f"{key} = {value}" for key, value in lines.items()]


def _build_writing(spec: InstanceSpec) -> Mapping[str, str]:
    """The rate of writing, which on version 1 no group has from the one above it."""
    device = find_device(spec.folder) if spec.limits and spec.io is not None else None
    if device is None or not any("/blkio/" in f"{each}/" for each in spec.cgroups):
        return {}
    return {"lxc.cgroup.blkio.throttle.write_bps_device": f"{device} {spec.io}"}


def _build_network(spec: InstanceSpec) -> Mapping[str, str]:
    if spec.host_network:
        return {"lxc.net.0.type": "none"}
    if not (spec.address and spec.bridge):
        return {"lxc.net.0.type": "empty"}
    gateway = {"lxc.net.0.ipv4.gateway": spec.gateway} if spec.gateway else {}
    return {
        "lxc.net.0.type": "veth",
        "lxc.net.0.link": spec.bridge,
        "lxc.net.0.flags": "up",
        "lxc.net.0.name": "eth0",
        "lxc.net.0.ipv4.address": spec.address,
        **gateway,
    }
