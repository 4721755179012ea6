"""The smallest guest there is, under KVM: even a software KVM that boots no kernel runs it.

    python -m tests.integration.boot_sector

prints what came out of it, in the lab of the user who calls, and what its QEMU is, as JSON.
"""

import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.drivers.accelerator import KVM_WITHOUT_CAPABILITIES_MSR
from harness.drivers.domain_xml import PC, Domain, Drive, build_domain_xml
from harness.drivers.libvirt_host import open_hypervisor
from harness.images.programs import build_programs
from harness.paths import scratch_root
from harness.starter import read_clock, start_starter
from tests.integration.laboratory import run_in_lab

# mov dx, 0x3f8; mov al, 'K'; out dx, al; halt: cli; hlt; jmp halt
_CODE = bytes.fromhex("ba f803 b0 4b ee fa f4 eb fc")
_WAIT_NS = 30_000_000_000


def start_boot_sector(run_id: str) -> dict[str, Any]:
    """Start it through libvirt, in the lab; what it said and what was seen of its QEMU."""
    folder = scratch_root() / run_id
    folder.mkdir(parents=True)
    disk, console, log = folder / "disk", folder / "console", folder / "console.log"
    disk.write_bytes(_CODE.ljust(510, b"\0") + struct.pack("<H", 0xAA55))
    name = f"harness-{run_id}"
    xml = build_domain_xml(
        Domain(
            name=name,
            machine=PC,
            acceleration=KVM_WITHOUT_CAPABILITIES_MSR,
            memory=16 << 20,
            cpus=1,
            console=console,
            drives=(Drive(disk, bus="ide"),),
        )
    )
    hypervisor = open_hypervisor(None, folder / "libvirt")
    hypervisor.validate(xml)
    with (
        start_starter(build_programs().starter) as starter,
        hypervisor.hold(name) as domain,
    ):
        starter.listen(folder / "channel", b"", console, log)
        hypervisor.create(domain, xml)
        hypervisor.find_process(domain)
        event = starter.next_event(read_clock() + _WAIT_NS)
        return {
            "event": event and [event.source, event.text],
            "printed": log.read_text(),
            "live": domain.handle.XMLDesc(0),
            "open": [os.readlink(each) for each in Path(f"/proc/{domain.pid}/fd").iterdir()],
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        json.dump(run_in_lab(start_boot_sector, Path(place)), sys.stdout)
