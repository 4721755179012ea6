"""The platforms, in one table. A line is ``name: "module:Class"``, loaded when asked for."""

import importlib
from dataclasses import replace

from harness.drivers.base import Driver, Toolbox
from harness.variants import parse_variant

PLATFORMS = {
    "process": "harness.drivers.process:ProcessDriver",
    "namespace": "harness.drivers.namespace:NamespaceDriver",
    "bubblewrap": "harness.drivers.bubblewrap:BubblewrapDriver",
    "systemd-nspawn": "harness.drivers.nspawn:NspawnDriver",
    "lxc": "harness.drivers.lxc:LxcDriver",
    "crun": "harness.drivers.oci:CrunDriver",
    "runc": "harness.drivers.oci:RuncDriver",
    "gvisor": "harness.drivers.oci:GvisorDriver",
    "podman": "harness.drivers.podman:PodmanDriver",
    "docker": "harness.drivers.docker_engine:DockerDriver",
    "vm-direct": "harness.drivers.vm_direct:VmDirectDriver",
    "vm-microvm": "harness.drivers.vm_direct:VmMicrovmDriver",
    "vm-disk": "harness.drivers.vm_disk:VmDiskDriver",
    "vm-restore": "harness.drivers.vm_restore:VmRestoreDriver",
}


def load_driver(name: str, toolbox: Toolbox) -> Driver:
    """The driver of platform ``name``, a variant's too; raises InputError for an unknown one."""
    variant = parse_variant(name, PLATFORMS)
    module, _, class_name = PLATFORMS[variant.base].partition(":")
    own = replace(toolbox, platform=variant.name, options=variant.options)
    driver: Driver = getattr(importlib.import_module(module), class_name)(own)
    return driver
