"""Root file system tars: read any, write the canonical one, where same files are same bytes.

Canonical: each folder right before what it holds, by name; owners as numbers; no time later than
EPOCH; extended attributes as pax records (``SCHILY.xattr.*``); no devices; and of some hard links
the first has the content.
"""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from harness.errors import InputError
from harness.images.recipes import EPOCH
from harness.images.rootfs import Entry, Span, Tree

_XATTR = "SCHILY.xattr."
_KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE)


def read_tar(path: Path) -> dict[str, Entry]:
    """The entries of an uncompressed root file system tar, by path.

    Devices are left out: every platform brings its own. Raises InputError for a member that would
    climb out of the root, for a hard link to nothing, and for a file that is no tar.
    """
    tree: dict[str, Entry] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = require_inside(member.name, path)
                entry = _read_member(archive, member, name, path, tree)
                if name and entry is not None:
                    tree[name] = entry
    except tarfile.TarError as error:
        raise InputError(f"{path} is not a root file system archive: {error}") from error
    return tree


def require_inside(name: str, source: Path | str) -> str:
    """``name`` without ``./``; raises InputError if it is absolute or has ``..`` in it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise InputError(
            f"{source}: member {name!r} points out of the root file system",
            hint="make the archive again from inside the folder: tar -C ROOT -cf FILE .",
        )
    return "/".join(parts)


def write_tar(tree: Tree, out: Path) -> str:
    """Write ``tree`` to ``out`` as the canonical tar and return its digest, ``sha256:…``."""
    first: dict[Span, str] = {}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree, key=lambda path: path.split("/")):
            entry = tree[path]
            member = _build_member(entry)
            if isinstance(entry.content, Span) and first.setdefault(entry.content, path) != path:
                member.type, member.linkname = tarfile.LNKTYPE, first[entry.content]
                archive.addfile(member)
            else:
                _add_content(archive, member, entry.content)
    return digest_file(out)


def digest_file(path: Path) -> str:
    """``sha256:…`` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_content(entry: Entry) -> bytes:
    """The bytes of a regular file."""
    if isinstance(entry.content, bytes):
        return entry.content
    with entry.content.path.open("rb") as file:
        file.seek(entry.content.offset)
        return file.read(entry.content.size)


def _read_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    source: Path,
    tree: Mapping[str, Entry],
) -> Entry | None:
    if member.islnk():
        target = tree.get(require_inside(member.linkname, source))
        if target is None:
            raise InputError(f"{source}: {name!r} is a hard link to a file that is not there")
        return replace(target, path=name)
    kind = tarfile.REGTYPE if member.isreg() else member.type
    if kind not in _KINDS:
        return None
    content: Span | bytes = b""
    if member.issparse():
        content = _read_sparse(archive, member)
    elif member.isreg():
        content = Span(source, member.offset_data, member.size)
    return Entry(
        path=name,
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        target=member.linkname if member.issym() else "",
        content=content,
        xattrs={
            key.removeprefix(_XATTR): value
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR)
        },
    )


def _read_sparse(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _build_member(entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(entry.path)
    member.type = entry.kind
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    member.mtime = max(0, min(entry.mtime, EPOCH))
    member.linkname = entry.target
    member.pax_headers = {_XATTR + key: entry.xattrs[key] for key in sorted(entry.xattrs)}
    return member


def _add_content(archive: tarfile.TarFile, member: tarfile.TarInfo, content: Span | bytes) -> None:
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, BytesIO(content))
        return
    member.size = content.size
    with content.path.open("rb") as file:
        file.seek(content.offset)
        archive.addfile(member, file)
