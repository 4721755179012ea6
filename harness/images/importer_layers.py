"""Layers put on one another (OCI image specification, layer.md), within the root for certain.

A path through a symbolic link is followed as a chroot would. What comes out has no entry below
anything but folders, so that whoever unpacks it cannot be led astray.
"""

import os
import posixpath
import tarfile
from dataclasses import replace

from harness.errors import InputError
from harness.images.rootfs import Entry, Tree, build_folder

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MAX_LINKS = 40
_NAME_MOST = 255  # NAME_MAX, limits.h(0p)


def apply_layer(lower: Tree, layer: Tree) -> dict[str, Entry]:
    """``lower`` with ``layer`` on top: whiteouts hide what is below, wherever they stand."""
    tree = dict(lower)
    for path in layer:
        folder, _, name = path.rpartition("/")
        if name == _OPAQUE:
            _remove_below(tree, resolve_path(tree, path).rpartition("/")[0])
        elif name.startswith(_WHITEOUT):
            hidden = f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
            _remove(tree, resolve_path(tree, hidden))
    for path, entry in layer.items():
        if not path.rpartition("/")[2].startswith(_WHITEOUT):
            _put(tree, resolve_path(tree, path), entry)
    return tree


def put_layer(lower: Tree, layer: Tree, source: str) -> dict[str, Entry]:
    """`apply_layer`, with ``source`` named in every error."""
    try:
        return apply_layer(lower, layer)
    except InputError as error:
        raise InputError(f"{source}: {error.message}", hint=error.hint) from None


def resolve_path(tree: Tree, path: str) -> str:
    """``path`` with the symbolic links among its folders followed.

    Raises InputError for a link that leads above the root, and for a circle of them.
    """
    pending = path.split("/")
    done: list[str] = []
    followed = 0
    while len(pending) > 1:
        part = pending.pop(0)
        entry = tree.get("/".join([*done, part]))
        if part == "..":
            if not done:
                raise InputError(f"member {path!r} goes through a link that leads out of the root")
            done = done[:-1]
        elif entry is not None and entry.kind == tarfile.SYMTYPE:
            followed += 1
            if followed > _MAX_LINKS:
                raise InputError(f"member {path!r} goes through a circle of symbolic links")
            done = [] if entry.target.startswith("/") else done
            pending = [*entry.target.split("/"), *pending]
        elif part not in ("", "."):
            done.append(part)
    return "/".join([*done, pending[0]])


def make_directory(tree: dict[str, Entry], directory: str) -> str:
    """Make the working directory of an image in ``tree``; the absolute path that it really has.

    ``..`` goes away first, as engines do it; then links are followed, the last one too. Raises
    InputError where that leads below a file, out of the root, or round in a circle, and for what
    no file system takes as a name.
    """
    clean = posixpath.normpath(f"/{directory}").lstrip("/")
    try:
        if not _can_be_named(clean):
            raise InputError("no file system has such a name")
        inside = resolve_path(tree, f"{clean}/.")
        _make_parents(tree, inside)
    except InputError as error:
        reason = error.message.replace(f"{clean}/.", clean)
        raise InputError(
            f"WorkingDir {directory[:80]!r} of the image cannot be made: {reason}",
            hint="give the image another WorkingDir",
        ) from None
    return f"/{inside.rpartition('/')[0]}"


def _can_be_named(path: str) -> bool:
    try:
        parts = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        return False
    return all(len(part) <= _NAME_MOST and b"\0" not in part for part in parts)


def _put(tree: dict[str, Entry], path: str, entry: Entry) -> None:
    _make_parents(tree, path)
    if entry.kind == tarfile.LNKTYPE:
        entry = _find_linked(tree, path, entry.target)
    before = tree.get(path)
    if before is not None and before.is_folder and not entry.is_folder:
        _remove_below(tree, path)
    tree[path] = entry if entry.path == path else replace(entry, path=path)


def _make_parents(tree: dict[str, Entry], path: str) -> None:
    """Archives may leave out folders; what they hold must not lie below anything else."""
    folder = path.rpartition("/")[0]
    while folder:
        entry = tree.get(folder)
        if entry is None:
            tree[folder] = build_folder(folder)
        elif entry.is_folder:
            return
        else:
            raise InputError(f"member {path!r} lies below {folder!r}, which is no folder")
        folder = folder.rpartition("/")[0]


def _find_linked(tree: Tree, path: str, target: str) -> Entry:
    found = tree.get(resolve_path(tree, target))
    if found is None or found.is_folder:
        raise InputError(f"{path!r} is a hard link to {target!r}, which is no file of the image")
    return found


def _remove(tree: dict[str, Entry], path: str) -> None:
    gone = tree.pop(path, None)
    if gone is not None and gone.is_folder:
        _remove_below(tree, path)


def _remove_below(tree: dict[str, Entry], folder: str) -> None:
    prefix = f"{folder}/" if folder else ""
    for path in [path for path in tree if path.startswith(prefix)]:
        del tree[path]
