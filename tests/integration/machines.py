"""Virtual machines for the tests: what every start needs, and what a start must not leave."""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import lab
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.libvirt_host import open_hypervisor
from harness.errors import TrialError
from harness.images.model import GuestKernel, Image, Programs
from harness.paths import scratch_root

MEMORY = 192 << 20


class Parts:
    """What every start needs; forked into the lab with the test."""

    def __init__(self, image: Image, programs: Programs, kernel: GuestKernel) -> None:
        self.image, self.programs, self.kernel = image, programs, kernel

    def spec(self, run_id: str, name: str = "one", **changes: Any) -> InstanceSpec:
        folder = scratch_root() / run_id / name
        folder.mkdir(parents=True)
        spec = InstanceSpec(
            name=f"harness-{run_id}-{name}",
            folder=folder,
            image=self.image,
            command=("true",),
            environment={},
            ready="exit",
            memory=MEMORY,
        )
        return replace(spec, **changes)

    def driver(self, platform: str, run_id: str, **changes: Any) -> Any:
        scratch = scratch_root() / run_id
        toolbox = Toolbox(self.programs.starter, self.kernel, scratch=scratch, run_id=run_id)
        return load_driver(platform, replace(toolbox, **changes))

    @contextmanager
    def start(self, platform: str, run_id: str, **changes: Any) -> Iterator[Any]:
        """A started instance, ready."""
        driver = self.driver(platform, run_id)
        with driver.start_instance(self.spec(run_id, **changes)) as instance:
            instance.wait_ready()
            yield instance


def list_leftovers(run_id: str) -> list[str]:
    """QEMU processes, links and libvirt's files of domains, as seen in the lab."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"qemu-system" in (entry / "cmdline").read_bytes():
                found.append(f"process {entry.name}")
    found += [name for _, name in socket.if_nameindex() if name not in ("lo", lab.BRIDGE)]
    root = scratch_root() / run_id / "libvirt"
    found += [str(path) for path in root.glob("run/qemu/harness-*")]
    found += [str(path) for path in root.glob("lib/qemu/domain-*")]
    found += [each.name() for each in open_hypervisor(None, root).connection.listAllDomains()]
    return found


def fail_to_start(parts: Parts, run_id: str, platform: str, **changes: Any) -> list[Any]:
    """[message, hint, seconds until it was told, what is left] of a start that fails."""
    begun = time.monotonic()
    try:
        with parts.start(platform, run_id, **changes):
            pass
    except TrialError as error:
        seconds = time.monotonic() - begun
        return [error.message, error.hint or "", seconds, list_leftovers(run_id)]
    raise AssertionError("it started")
