"""The kernel of every direct-boot guest: Debian's cloud kernel, unpacked and not installed.

In the cache: ``kernels/RELEASE/`` with the bzImage, the ELF kernel and the modules it needs, made
once; beside them one initramfs per agent. ``kernels/current`` points to the release in use.

Version of kernel.json: 1, first release; 2, modules for a read-only root beside the others.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import HostError
from harness.images import apt
from harness.images.archive import digest_file
from harness.images.initramfs import build_initramfs
from harness.images.model import GuestKernel
from harness.images.modules import LAYERED, read_modules
from harness.images.programs import build_programs
from harness.images.rooted import require_tools
from harness.images.vmlinux import extract_elf
from harness.images.workshop import (
    Progress,
    move_into_place,
    point_to,
    require_space,
    start_work,
    write_bytes,
    write_text,
)
from harness.paths import cache_dir
from harness.process import run_command

VERSION = 2
META_PACKAGE = "linux-image-cloud-amd64"

_RECORD = "kernel.json"
_SPACE = 400 << 20
_TIMEOUT = 900.0


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a kernel package gave: digests of its files, and the modules in loading order."""

    release: str
    package: str
    bzimage_digest: str
    modules: tuple[str, ...]
    layered: tuple[str, ...]
    wanted: tuple[str, ...]


def kernels_dir() -> Path:
    """The folder of all unpacked kernels."""
    return cache_dir() / "kernels"


def find_guest_kernel() -> GuestKernel | None:
    """The unpacked kernel with the present agent's initramfs; contacts no mirror."""
    folder = kernels_dir() / "current"
    unpacked = _read_unpacked(folder)
    return _with_initramfs(folder.resolve(), unpacked) if unpacked else None


def require_guest_kernel(progress: Progress) -> GuestKernel:
    """The guest kernel, fetched from the Debian archive first where needed; raises HostError."""
    found = find_guest_kernel()
    if found is not None:
        return found
    with start_work(kernels_dir(), progress) as scratch:
        found = find_guest_kernel()
        if found is not None:
            return found
        require_space(scratch, _SPACE)
        progress("guest kernel: fetching Debian's cloud kernel")
        package = fetch_package(apt.find_sources(), scratch)
        progress(f"guest kernel: unpacking {package.name.partition('_')[0]}")
        built = scratch / "kernel"
        unpacked = unpack_kernel(package, scratch, built)
        move_into_place(built, kernels_dir() / unpacked.release)
        point_to(kernels_dir() / "current", unpacked.release)
    found = find_guest_kernel()
    assert found is not None, kernels_dir()
    return found


def fetch_package(sources: apt.Sources, scratch: Path) -> Path:
    """Download the newest real package behind META_PACKAGE; apt's state stays in ``scratch``."""
    require_tools("apt-get", "apt-cache", "apt-config", "dpkg-deb", "lz4")
    apt.require_keyring(sources)
    config = apt.write_private_config(sources, scratch)
    environment = {"APT_CONFIG": str(config), "LC_ALL": "C"}
    downloads = scratch / "downloads"
    downloads.mkdir()

    def run_apt(*argv: str) -> str:
        done = run_command(argv, timeout=_TIMEOUT, check=False, env=environment, cwd=downloads)
        if done.returncode != 0:
            raise HostError(
                f"the guest kernel cannot be fetched: {apt.find_reason(done.stderr)}",
                hint="is the Debian mirror reachable?",
            )
        return done.stdout

    run_apt("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
    name = parse_real_package(run_apt("apt-cache", "show", META_PACKAGE))
    run_apt("apt-get", "-q", "download", name)
    return next(downloads.glob("*.deb"))


def parse_real_package(stanzas: str) -> str:
    """The package that the first (newest) stanza of the meta package depends on."""
    depends = next((line for line in stanzas.splitlines() if line.startswith("Depends:")), "")
    match = re.search(r"linux-image-[\w.+~-]+", depends)
    if match is None:
        raise HostError(f"{META_PACKAGE} names no kernel", hint="is it in the host's archives?")
    return match[0]


def unpack_kernel(package: Path, scratch: Path, out: Path) -> Unpacked:
    """Take from a kernel package what guests need; ``kernel.json`` comes last."""
    root = scratch / "package"
    run_command(["dpkg-deb", "--extract", package, root], timeout=_TIMEOUT)
    image = next((root / "boot").glob("vmlinuz-*"), None)
    if image is None:
        raise HostError(f"{package.name} holds no kernel")
    release = image.name.removeprefix("vmlinuz-")
    out.mkdir()
    (out / "modules").mkdir()
    image.rename(out / "bzImage")
    extract_elf(out / "bzImage", out / "vmlinux")
    folder = next(path for path in root.glob("**/lib/modules/*") if path.name == release)
    modules = read_modules(folder, LAYERED)
    plain = read_modules(folder)
    for name, data in modules.items():
        (out / "modules" / name).write_bytes(data)
    unpacked = Unpacked(
        release,
        package.name,
        digest_file(out / "bzImage"),
        tuple(plain),
        tuple(modules),
        LAYERED,
    )
    write_text(out / _RECORD, json.dumps({"version": VERSION, **asdict(unpacked)}, indent=1) + "\n")
    return unpacked


def _read_unpacked(folder: Path) -> Unpacked | None:
    try:
        document = json.loads((folder / _RECORD).read_text())
        unpacked = _parse_unpacked(document)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = ("bzImage", "vmlinux", *(f"modules/{name}" for name in unpacked.layered))
    # Another list of wanted modules makes the unpacked kernel out of date.
    whole = all((folder / name).is_file() for name in files) and unpacked.wanted == LAYERED
    return unpacked if whole else None


def _parse_unpacked(document: Mapping[str, object]) -> Unpacked:
    if document["version"] != VERSION:
        raise ValueError(f"kernel.json of version {document['version']}")
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("modules", "layered", "wanted"):
        names = document[key]
        if not isinstance(names, list):
            raise TypeError(f"kernel.json has no list of {key}")
        lists[key] = tuple(str(name) for name in names)
    return Unpacked(
        release=str(document["release"]),
        package=str(document["package"]),
        bzimage_digest=str(document["bzimage_digest"]),
        **lists,
    )


def _with_initramfs(folder: Path, unpacked: Unpacked) -> GuestKernel:
    initramfs = _require_initramfs(folder, "initramfs", unpacked.modules)
    both = f"{unpacked.bzimage_digest} {digest_file(initramfs)}"
    return GuestKernel(
        release=unpacked.release,
        digest=f"sha256:{hashlib.sha256(both.encode()).hexdigest()}",
        bzimage=folder / "bzImage",
        elf=folder / "vmlinux",
        initramfs=initramfs,
        layered=_require_initramfs(folder, "layered", unpacked.layered),
        modules=tuple(name.removesuffix(".ko") for name in unpacked.modules),
    )


def _require_initramfs(folder: Path, name: str, modules: Sequence[str]) -> Path:
    agent = build_programs().agent.read_bytes()
    path = folder / f"{name}-{hashlib.sha256(agent).hexdigest()[:12]}.cpio"
    if not path.is_file():
        contents = {each: (folder / "modules" / each).read_bytes() for each in modules}
        write_bytes(path, build_initramfs(agent, contents))
    return path
