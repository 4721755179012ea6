"""The initramfs of a guest: the agent and its modules, as an uncompressed cpio archive.

Format: «newc», Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
Nothing but the content decides the bytes: no dates, no owners but root, numbered in order.
"""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"
_FOLDERS = ("dev", "proc", "sys", "newroot", "modules")


@dataclass(frozen=True, slots=True)
class Node:
    """One file of the archive; ``mode`` has the file type, ``device`` is major and minor."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def build_initramfs(agent: bytes, modules: Mapping[str, bytes]) -> bytes:
    """The archive: ``/init``, ``/modules/NAME`` and their ``order``, as ``modules`` has them."""
    order = "".join(f"{name}\n" for name in modules)
    nodes = [Node(name, stat.S_IFDIR | 0o755) for name in _FOLDERS]
    # The kernel opens it for init before anything is mounted on /dev.
    nodes.append(Node("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    nodes.append(Node("init", stat.S_IFREG | 0o755, agent))
    nodes += [Node(f"modules/{name}", stat.S_IFREG | 0o644, modules[name]) for name in modules]
    nodes.append(Node("modules/order", stat.S_IFREG | 0o644, order.encode()))
    return build_cpio(nodes)


def build_cpio(nodes: Iterable[Node]) -> bytes:
    """A newc archive of ``nodes``, in their order."""
    pieces = [_build_record(number, node) for number, node in enumerate(nodes, 1)]
    pieces.append(_build_record(0, Node(_TRAILER, 0)))
    archive = b"".join(pieces)
    return archive + bytes(-len(archive) % 512)


def _build_record(number: int, node: Node) -> bytes:
    links = 2 if stat.S_ISDIR(node.mode) else 1
    name = node.name.encode() + b"\0"
    fields = (
        number,
        node.mode,
        *(0, 0),  # owner
        links,
        0,  # time
        len(node.data),
        *(0, 0),  # device that holds the file
        *node.device,
        len(name),
        0,  # checksum, not used in this format
    )
    header = b"070701" + b"".join(f"{value:08X}".encode() for value in fields)
    return _pad(header + name) + _pad(node.data)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
