"""Kernel modules for a guest: found in an unpacked kernel package, in the order to load them.

Dependencies are read from the modules themselves (section ``.modinfo``), so neither depmod nor its
tables are needed.
"""

import gzip
import lzma
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.errors import HostError
from harness.process import run_command

WANTED = (
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    # ext4 asks the crypto layer for this one by name, where no modprobe is there to answer.
    "crc32c_generic",
    "ext4",
)

LAYERED = (*WANTED, "overlay", "squashfs", "erofs", "virtiofs")
"""For guests whose root is read-only below a layer to write in; others need not carry these."""


def read_modules(folder: Path, wanted: Iterable[str] = WANTED) -> dict[str, bytes]:
    """Plain modules by file name (``virtio.ko``), each after those it depends on.

    ``folder`` is ``lib/modules/RELEASE``. Built-in ones are left out. Raises HostError for a
    module that the kernel does not have.
    """
    files = {_module_name(path): path for path in sorted(folder.rglob("*.ko*"))}
    builtin = {_module_name(Path(line)) for line in _read_lines(folder / "modules.builtin")}
    ordered: dict[str, bytes] = {}
    for name in wanted:
        _add_module(name, files, builtin, ordered)
    return {f"{name}.ko": data for name, data in ordered.items()}


def parse_modinfo(module: bytes) -> dict[str, str]:
    """The ``key=value`` records of a module's ``.modinfo`` section; of several, the last."""
    (offset,) = struct.unpack_from("<Q", module, 40)
    size, count, names_index = struct.unpack_from("<HHH", module, 58)
    sections = [struct.unpack_from("<IIQQQQ", module, offset + n * size) for n in range(count)]
    names_start = sections[names_index][4]
    for name_offset, _, _, _, start, length in sections:
        begin = names_start + name_offset
        if module[begin : module.index(b"\0", begin)] == b".modinfo":
            records = module[start : start + length].decode(errors="replace").split("\0")
            return {key: value for key, _, value in (r.partition("=") for r in records) if key}
    return {}


def _add_module(
    name: str, files: dict[str, Path], builtin: set[str], ordered: dict[str, bytes]
) -> None:
    if name in builtin or name in ordered:
        return
    if name not in files:
        raise HostError(f"the guest kernel has no module {name}")
    data = _read_plain(files[name])
    for dependency in _split_names(parse_modinfo(data).get("depends", "")):
        _add_module(dependency, files, builtin, ordered)
    ordered[name] = data


def _split_names(text: str) -> Iterator[str]:
    return (_normalise(name) for name in text.split(",") if name)


def _module_name(path: Path) -> str:
    return _normalise(path.name.partition(".ko")[0])


def _normalise(name: str) -> str:
    return name.replace("-", "_")


def _read_lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _read_plain(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        plain = path.with_suffix("")
        run_command(["zstd", "-q", "-d", "-f", path, "-o", plain], timeout=60)
        return plain.read_bytes()
    return path.read_bytes()
