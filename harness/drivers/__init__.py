"""The platforms, in one table. A line is ``name: "module:Class"``, loaded when asked for."""

import importlib

from harness.drivers.base import Driver, Toolbox
from harness.errors import InputError

PLATFORMS = {
    "process": "harness.drivers.process:ProcessDriver",
    "namespace": "harness.drivers.namespace:NamespaceDriver",
    "vm-direct": "harness.drivers.libvirt_vm:VmDirectDriver",
    "vm-microvm": "harness.drivers.libvirt_vm:VmMicrovmDriver",
}


def load_driver(name: str, toolbox: Toolbox) -> Driver:
    """The driver of platform ``name``; raises InputError for an unknown one."""
    if name not in PLATFORMS:
        raise InputError(
            f"unknown platform {name!r}", hint="`python -m harness list platforms` shows them"
        )
    module, _, class_name = PLATFORMS[name].partition(":")
    driver: Driver = getattr(importlib.import_module(module), class_name)(toolbox)
    return driver
