"""A virtual machine's limits as the host has them: in its QEMU's own command line."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from harness.drivers.base import Instance


def read_machine(instance: Instance) -> dict[str, float | None]:
    """CPUs and memory of a guest by its QEMU's own command line; nothing where there is none."""
    found: dict[str, float | None] = {}
    for pid in instance.processes().inside:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            found |= parse_machine(words)
    return found


def parse_machine(words: Sequence[str]) -> dict[str, float | None]:
    """``-m size=131072k`` (or MiB) and ``-smp 1,…`` of QEMU's command line (qemu(1))."""
    found: dict[str, float | None] = {}
    for name, value in itertools.pairwise(words):
        first = value.split(",")[0].removeprefix("size=")
        if name == "-smp" and first.isdigit():
            found["cpu"] = float(first)
        if name == "-m" and first.rstrip("kMG").isdigit():
            factor = {"k": 1 << 10, "G": 1 << 30}.get(first[-1], 1 << 20)
            found["memory"] = float(int(first.rstrip("kMG")) * factor)
    return found
