"""A virtual machine's disk after a change: made anew from the cached base, or updated in place.

The packages are installed by dpkg in a chroot above an overlay, so that the base's tree is never
copied and what a change has written is known. A new disk is made as every disk image of the
harness is; an old one gets the changed files by debugfs(8), which needs neither root nor a mount.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import lab, linux
from harness.errors import TrialError
from harness.images.pack import convert_qcow2, write_ext4
from harness.images.rooted import tool_path
from harness.process import run_command
from harness.rebuild.recipe import HOME

_TIMEOUT = 300.0
_DEVICES = ("null", "zero", "urandom", "full", "random")
_WHITEOUT = 0
_FOLDER_EXISTS = "Ext2 directory already exists"


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a tree: .deb files to install, files of the application to write, and files
    of an updated base to copy."""

    packages: tuple[Path, ...] = ()
    files: Mapping[str, str] | None = None
    base: Path | None = None
    paths: tuple[str, ...] = ()


def apply_change(lowers: Sequence[Path], upper: Path, change: Change) -> None:
    """Leave in the new folder ``upper`` all that ``change`` writes above ``lowers``."""
    with start_overlay(lowers, upper) as root:
        if change.base is not None:
            copy = ["cp", "--archive", "--parents", "--", *change.paths, str(root)]
            run_command(copy, timeout=_TIMEOUT, cwd=change.base)
        if change.packages:
            _install(root, change.packages)
        for path, text in (change.files or {}).items():
            target = root / HOME / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)


def write_disk(lowers: Sequence[Path], upper: Path, out: Path, digest: str) -> None:
    """A raw ext4 disk of what ``upper`` and ``lowers`` show together."""
    with start_overlay(lowers, upper) as root:
        files, apparent = _measure(root)
        write_ext4(root, out, digest, files, apparent)


def update_disk(before: Path, upper: Path, out: Path) -> None:
    """A copy of the disk ``before`` with everything in ``upper`` copied in."""
    run_command(["cp", "--sparse=always", "--reflink=auto", before, out], timeout=_TIMEOUT)
    script = "\n".join(build_script(upper)) + "\n"
    done = run_command(["debugfs", "-w", "-f", "-", out], timeout=_TIMEOUT, stdin=script,
                       env=tool_path())  # fmt: skip
    fault = find_fault(done.stderr)
    if fault is not None:
        raise TrialError(f"debugfs failed: {fault}")


def build_script(upper: Path) -> list[str]:
    """The commands of debugfs(8) that copy a folder in, whatever was there before."""
    lines: list[str] = []
    for path in sorted(upper.rglob("*")):
        name = f"/{path.relative_to(upper)}"
        info = path.lstat()
        quoted, parent = f'"{name}"', f'"{os.path.dirname(name)}"'
        if stat.S_ISDIR(info.st_mode):
            lines.append(f"mkdir {quoted}")
        else:
            lines.append(f"rm {quoted}")
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == _WHITEOUT:
            continue
        if stat.S_ISREG(info.st_mode):
            lines += [f"cd {parent}", f'write "{path}" "{path.name}"']
        if stat.S_ISLNK(info.st_mode):
            lines.append(f'symlink {quoted} "{os.readlink(path)}"')
        lines += [f"set_inode_field {quoted} {field} {value}"
                  for field, value in _list_fields(info).items()]  # fmt: skip
    return lines


def find_fault(stderr: str) -> str | None:
    """What debugfs complained of, other than a file to replace or a folder to make being as it
    is; None for nothing."""
    harmless = ("debugfs ", "rm: File not found by ext2_lookup")
    lines = (line.strip() for line in stderr.splitlines())
    faults = (
        line for line in lines
        if line and not line.startswith(harmless) and _FOLDER_EXISTS not in line
    )  # fmt: skip
    return next(faults, None)


def write_overlay(before: Path, after: Path, out: Path) -> None:
    """A qcow2 of the clusters in which ``after`` differs, above ``before``."""
    create: list[str | Path] = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        after,
        out,
    ]
    run_command(create, timeout=_TIMEOUT)
    rebase: list[str | Path] = [
        "qemu-img",
        "rebase",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        before,
        out,
    ]
    run_command(rebase, timeout=_TIMEOUT)


def write_qcow2(raw: Path, out: Path) -> int:
    """The whole disk as a compressed qcow2; its bytes."""
    convert_qcow2(raw, out)
    return out.stat().st_size


@contextlib.contextmanager
def start_overlay(lowers: Sequence[Path], upper: Path) -> Iterator[Path]:
    """What ``upper`` shows above ``lowers`` (the highest first), where it can be written."""
    work, root = upper.with_name(f"{upper.name}.work"), upper.with_name(f"{upper.name}.root")
    for folder in (upper, work, root):
        folder.mkdir(exist_ok=True)
    layers = ":".join(map(str, lowers))
    options = f"lowerdir={layers},upperdir={upper},workdir={work},metacopy=off"
    # Root of a user namespace may not set the attributes that overlayfs marks files with.
    marks = "" if lab.is_privileged() else ",userxattr"
    linux.mount("overlay", root, "overlay", 0, options + marks)
    try:
        yield root
    finally:
        linux.unmount(root)


def _install(root: Path, packages: Sequence[Path]) -> None:
    """Install .deb files as dpkg does, with the devices that maintainer scripts write to."""
    folder = root / "mnt"
    with contextlib.ExitStack() as mounts:
        for name in _DEVICES:
            (root / "dev" / name).touch()
            linux.mount(f"/dev/{name}", root / "dev" / name, "", linux.MS_BIND)
            mounts.callback(_remove_mount, root / "dev" / name)
        linux.mount(str(packages[0].parent), folder, "", linux.MS_BIND)
        mounts.callback(linux.unmount, folder)
        names = [f"/mnt/{path.name}" for path in packages]
        environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        command: list[str | Path] = ["chroot", root, "dpkg", "--install", *names]
        done = run_command(command, timeout=_TIMEOUT, check=False,
                           env={**environment, **tool_path()})  # fmt: skip
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise TrialError(f"dpkg failed: {lines[-1] if lines else 'it printed nothing'}")


def _remove_mount(path: Path) -> None:
    linux.unmount(path)
    path.unlink()


def _list_fields(info: os.stat_result) -> dict[str, str]:
    kind = stat.S_IFMT(info.st_mode) | stat.S_IMODE(info.st_mode)
    fields = {"uid": str(info.st_uid), "gid": str(info.st_gid), "mtime": f"@{int(info.st_mtime)}"}
    return fields if stat.S_ISLNK(info.st_mode) else {"mode": f"0{kind:o}", **fields}


def _measure(root: Path) -> tuple[int, int]:
    """(entries, bytes of content) of a tree, as `pack.size_ext4` counts."""
    count = size = 0
    for folder, folders, files in os.walk(root):
        count += len(folders) + len(files)
        size += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return count, size
