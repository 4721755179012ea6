"""Users by name or number, as an image's own /etc/passwd and /etc/group have them."""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError
from harness.images.archive import read_content
from harness.images.importer_layers import resolve_path
from harness.images.rootfs import Tree

PASSWD = "etc/passwd"
GROUP = "etc/group"
_MOST = (1 << 32) - 2
_LARGEST = 4 << 20
_GROUPS_MOST = 64


@dataclass(frozen=True, slots=True)
class User:
    """A user to run as: ``groups`` are the supplementary ones, in ascending order."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def identity(self) -> str:
        """``UID:GID[,GROUP…]``, as the agent's spec has it."""
        return ",".join([f"{self.uid}:{self.gid}", *map(str, self.groups)])


def resolve_user(text: str, passwd: str, group: str) -> User:
    """What ``user``, ``uid``, ``user:group`` or ``uid:gid`` means; empty is root.

    As in the OCI image specification: without a group, it is the user's own, with the supplementary
    ones; with a group there are none. A number need not be in ``passwd``; its group is then 0.
    Raises InputError for a name that is not there.
    """
    name, colon, group_name = (text or "0").partition(":")
    users = _read_lines(passwd, 7)
    groups = _read_lines(group, 3)
    found = next((each for each in users if name in (each[0], each[2])), None)
    if found is None and not _is_number(name):
        raise InputError(f"user {name!r} is not in the image's /etc/passwd")
    uid = int(found[2]) if found else int(name)
    home = found[5] if found and found[5] else "/"
    if colon and group_name:
        return User(uid, _find_group(group_name, groups), (), home)
    login = found[0] if found else None
    members = [int(each[2]) for each in groups if len(each) > 3 and login in each[3].split(",")]
    extra = tuple(sorted(set(members)))[:_GROUPS_MOST]
    return User(uid, int(found[3]) if found and found[3].isdecimal() else 0, extra, home)


def read_accounts(tree: Tree) -> tuple[str, str]:
    """The text of /etc/passwd and of /etc/group; empty where the image has none."""
    return _read_text(tree, PASSWD), _read_text(tree, GROUP)


def find_accounts(root: Path) -> tuple[str, str]:
    """As `read_accounts`, from an unpacked tree; follows no link, as that may lead out of it."""
    return _read_file(root / PASSWD), _read_file(root / GROUP)


def _read_text(tree: Tree, path: str) -> str:
    for _ in range(8):
        entry = tree.get(resolve_path(tree, path))
        if entry is None or entry.kind != tarfile.SYMTYPE:
            break
        beside = "" if entry.target.startswith("/") else f"{path.rpartition('/')[0]}/"
        path = f"{beside}{entry.target.lstrip('/')}"
    if entry is None or entry.kind != tarfile.REGTYPE:
        return ""
    size = len(entry.content) if isinstance(entry.content, bytes) else entry.content.size
    return read_content(entry).decode(errors="surrogateescape") if size <= _LARGEST else ""


def _read_file(path: Path) -> str:
    if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
        return ""
    if path.stat().st_size > _LARGEST:
        return ""
    return path.read_text(errors="surrogateescape")


def _read_lines(text: str, fields: int) -> list[list[str]]:
    """The lines with enough fields, of which the third is a number."""
    lines = (line.strip().split(":") for line in text.splitlines() if not line.startswith("#"))
    return [each for each in lines if len(each) >= fields and _is_number(each[2])]


def _find_group(name: str, groups: list[list[str]]) -> int:
    found = next((each for each in groups if name in (each[0], each[2])), None)
    if found is None and not _is_number(name):
        raise InputError(f"group {name!r} is not in the image's /etc/group")
    return int(found[2]) if found else int(name)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) <= _MOST
