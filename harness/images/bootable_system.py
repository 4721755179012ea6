"""The root file system of a bootable disk: an image's own tree, with a kernel and systemd on top.

Debian's packages are installed into the tree as it is, by its own maintainer scripts, so that what
the image had stays the same bytes wherever no package has a reason to change it. An image that is
no Debian system with apt is mounted at /srv/image, and the system beside it is the slim image.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HostError
from harness.images import apt
from harness.images.archive import read_content, read_tar, write_tar
from harness.images.bootable_files import (
    SYSTEM_SCRIPT,
    build_early_files,
    build_late_files,
    build_system_script,
)
from harness.images.build import run_mmdebstrap
from harness.images.importer import read_folder
from harness.images.model import Image
from harness.images.recipes import AGENT, RECIPES, Recipe
from harness.images.rootfs import Entry, Tree, finish_tree, select_entries
from harness.images.workshop import Progress

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "initramfs-tools",
    "zstd",
    "linux-image-cloud-amd64",
)
"""What a virtual machine's disk needs besides the container image; apt adds what these need."""

SYSTEM = "slim"
"""The recipe of the system beside an image that is none itself."""

_STATUS = "var/lib/dpkg/status"
_DROP = (
    # Random, and made again at the first boot from the empty /etc/machine-id.
    "var/lib/dbus/machine-id",
    "var/log/*",
    # A server has no screen to log in at, and nothing to tidy in its first minutes.
    "etc/systemd/system/getty.target.wants/getty@tty1.service",
    "etc/systemd/system/timers.target.wants/apt-daily*",
    "etc/systemd/system/timers.target.wants/dpkg-db-backup.timer",
    "etc/systemd/system/timers.target.wants/e2scrub_all.timer",
    "etc/systemd/system/default.target.wants/e2scrub_reap.service",
    "etc/systemd/system/multi-user.target.wants/e2scrub_reap.service",
    # Names of the previous kernel, of which there is none.
    "vmlinuz.old",
    "initrd.img.old",
)


@dataclass(frozen=True, slots=True)
class System:
    """A disk's tree and how it differs from the image's; fields as in model.Disk."""

    tree: Tree
    kernel: str
    packages: tuple[tuple[str, str, int], ...]
    changed: tuple[str, ...]


def is_system(image: str) -> bool:
    """Whether the image of that name is a Debian system that packages can be added to."""
    recipe = RECIPES.get(image)
    return recipe is not None and recipe.variant == "minbase" and recipe.closure is None


def build_system(
    base: Image, partition: str, image_root: str | None, scratch: Path, progress: Progress
) -> System:
    """The tree of ``base`` with a kernel, systemd and what runs the agent.

    ``partition`` is the id of the disk's root partition. With ``image_root`` the workload sees
    only what is mounted there. The content of the entries stays in the folder ``scratch``. Raises
    HostError.
    """
    own = read_folder(base.tree, scratch)
    progress(f"{base.name}: installing a kernel and systemd")
    raw = install_packages(RECIPES[base.name], scratch)
    release = find_release(raw)
    for entry in build_late_files(release, partition, image_root):
        raw[entry.path] = entry
    tree = finish_tree(raw, base.tree / AGENT, _read_files(RECIPES[base.name]))
    tree[SYSTEM_SCRIPT] = build_system_script()
    added = find_added({} if image_root else list_packages(own), list_packages(tree))
    return System(tree, release, added, () if image_root else list_changed(own, tree))


def install_packages(recipe: Recipe, scratch: Path) -> dict[str, Entry]:
    """Install PACKAGES on the tree that ``read_folder`` left in ``scratch``."""
    early = scratch / "early.tar"
    write_tar({entry.path: entry for entry in build_early_files()}, early)
    raw = scratch / "system.tar"
    work = replace(recipe, variant="custom", packages=PACKAGES, hooks=())
    options = [f"--setup-hook={_build_setup(scratch / 'folder.tar', early)}"]
    run_mmdebstrap(work, apt.find_sources(), scratch, raw, options)
    return select_entries(read_tar(raw), replace(recipe, drop=(*recipe.drop, *_DROP)))


def find_release(tree: Tree) -> str:
    """The kernel's release; raises HostError if kernel or initramfs is not there."""
    prefix = "boot/vmlinuz-"
    for path in sorted(tree):
        release = path.removeprefix(prefix)
        if path.startswith(prefix) and f"boot/initrd.img-{release}" in tree:
            return release
    raise HostError(
        f"the package {PACKAGES[-1]} has left no kernel with an initramfs in /boot",
        hint="is it in the host's Debian archives?",
    )


def list_packages(tree: Tree) -> dict[str, tuple[str, int]]:
    """Version and installed bytes of each package, from dpkg's status; empty without one."""
    if _STATUS not in tree:
        return {}
    return parse_status(read_content(tree[_STATUS]).decode(errors="replace"))


def parse_status(text: str) -> dict[str, tuple[str, int]]:
    """The installed packages of a dpkg status file: name to (version, bytes)."""
    found = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            size = int(fields.get("Installed-Size", 0)) * 1024  # deb-control(5): in KiB
            found[fields["Package"]] = (fields["Version"], size)
    return found


def find_added(
    before: Mapping[str, tuple[str, int]], after: Mapping[str, tuple[str, int]]
) -> tuple[tuple[str, str, int], ...]:
    """(name, version, bytes) of packages that came, or came in another version."""
    return tuple((name, *after[name]) for name in sorted(after) if before.get(name) != after[name])


def list_changed(before: Tree, after: Tree) -> tuple[str, ...]:
    """Paths of ``before`` that are gone from ``after`` or differ in more than their time."""
    return tuple(
        path for path in sorted(before) if path and not _is_same(before[path], after.get(path))
    )


def _is_same(one: Entry, other: Entry | None) -> bool:
    if other is None:
        return False
    alike = replace(one, mtime=0, content=b"") == replace(other, mtime=0, content=b"")
    return alike and read_content(one) == read_content(other)


def _build_setup(*archives: Path) -> str:
    """A shell command that fills mmdebstrap's root; its own list of archives must be the only."""
    unpack = "tar --numeric-owner --same-owner --xattrs --xattrs-include='*' -xpf"
    steps = [f'{unpack} {archive} -C "$1"' for archive in archives]
    return " && ".join([*steps, 'rm -f "$1/etc/apt/sources.list"'])


def _read_files(recipe: Recipe) -> dict[str, str]:
    suite = apt.find_sources().suite
    return {path: text.replace("{suite}", suite) for path, text in recipe.files.items()}
