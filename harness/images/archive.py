"""Root file system tars: read any, write the canonical one, where same files are same bytes.

Canonical: each folder right before what it holds, by name; owners as numbers; no time later than
EPOCH; extended attributes as pax records (``SCHILY.xattr.*``); of some hard links the first has the
content; and files that came with holes as GNU's sparse format 1.0 has them, by blocks of 4 KiB.
"""

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from harness.errors import InputError
from harness.images.recipes import EPOCH
from harness.images.rootfs import Entry, Span, Sparse, Tree
from harness.images.sparse import build_map, normalize, open_pieces

ENTRIES_MOST = 2_000_000
"""More entries than any image has: what is beyond is a bomb."""

_XATTR = "SCHILY.xattr."
_KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
_BLOCK = 512


def read_tar(path: Path, *, layer: bool = False, name: str = "") -> dict[str, Entry]:
    """The entries of an uncompressed root file system tar, by path.

    Only a ``layer`` keeps its device nodes, and hard links to files that it does not hold itself.
    Raises InputError for a member that would climb out of the root, for a hard link to nothing, and
    for a file that is no whole tar; ``name`` is what it calls the file.
    """
    tree: dict[str, Entry] = {}
    source = name or str(path)
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:
            for member in archive:
                inside = require_inside(member.name, source)
                entry = _read_member(member, inside, path, source, tree, layer)
                if inside and entry is not None:
                    tree[inside] = entry
                if len(tree) > ENTRIES_MOST:
                    raise InputError(f"{source} has more than {ENTRIES_MOST} entries")
            _require_end(path, archive.offset, source)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InputError(f"{source} is not a root file system archive: {error}") from error
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
    first: dict[Span | Sparse, str] = {}
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for path in sorted(tree, key=lambda path: path.split("/")):
            entry = tree[path]
            member = _build_member(entry)
            shared = entry.content
            if not isinstance(shared, bytes) and first.setdefault(shared, path) != path:
                member.type, member.linkname = tarfile.LNKTYPE, first[shared]
                archive.addfile(member)
            else:
                _add_content(archive, member, shared)
    return digest_file(out)


def digest_file(path: Path) -> str:
    """``sha256:…`` of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def read_content(entry: Entry) -> bytes:
    """The bytes of a regular file."""
    if isinstance(entry.content, bytes):
        return entry.content
    with open_pieces(entry.content) as file:
        return file.read()


def _read_member(
    member: tarfile.TarInfo,
    name: str,
    path: Path,
    source: str,
    tree: Mapping[str, Entry],
    layer: bool,
) -> Entry | None:
    if member.islnk():
        return _read_link(member, name, source, tree, layer)
    kind = tarfile.REGTYPE if member.isreg() else member.type
    if kind not in _KINDS and not (layer and kind in _DEVICES):
        return None
    return Entry(
        path=name,
        kind=kind,
        mode=0o777 if member.issym() else member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        target=member.linkname if member.issym() else "",
        content=_find_content(member, path),
        xattrs={
            key.removeprefix(_XATTR): value
            for key, value in member.pax_headers.items()
            if key.startswith(_XATTR)
        },
        device=(member.devmajor, member.devminor) if kind in _DEVICES else (0, 0),
    )


def _read_link(
    member: tarfile.TarInfo, name: str, source: str, tree: Mapping[str, Entry], layer: bool
) -> Entry:
    target = require_inside(member.linkname, source)
    if target in tree:
        return replace(tree[target], path=name)
    if layer:
        return Entry(name, tarfile.LNKTYPE, 0o644, target=target)
    raise InputError(f"{source}: {name!r} is a hard link to a file that is not there")


def _find_content(member: tarfile.TarInfo, path: Path) -> Span | Sparse | bytes:
    if not member.isreg():
        return b""
    holes: Sequence[tuple[int, int]] | None = getattr(member, "sparse", None)
    if holes is None:
        return Span(path, member.offset_data, member.size)
    pieces: list[tuple[int, Span]] = []
    offset = member.offset_data
    for position, length in holes:
        if length:
            pieces.append((position, Span(path, offset, length)))
        offset += length
    sparse = normalize(Sparse(tuple(pieces), member.size))
    if sparse.pieces:
        return sparse
    # An empty piece where its data would be: without one, all files that are holes would be one.
    return Sparse(((member.size, Span(path, member.offset_data, 0)),), member.size)


def _require_end(path: Path, offset: int, source: str) -> None:
    """A tar ends with blocks of zeros; one that was cut at a member's end lacks them."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise InputError(f"{source} is cut short: the end of the archive is missing")


def _build_member(entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(entry.path)
    member.type = entry.kind
    member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
    member.mtime = max(0, min(entry.mtime, EPOCH))
    member.linkname = entry.target
    member.devmajor, member.devminor = entry.device
    member.pax_headers = {_XATTR + key: entry.xattrs[key] for key in sorted(entry.xattrs)}
    return member


def _add_content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, content: Span | Sparse | bytes
) -> None:
    if isinstance(content, bytes):
        member.size = len(content)
        archive.addfile(member, BytesIO(content))
        return
    before = b""
    member.size = content.size
    if isinstance(content, Sparse):
        before = build_map(content)
        member.size = len(before) + sum(span.size for _, span in content.pieces)
        member.pax_headers = {
            **member.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": member.name,
            "GNU.sparse.realsize": str(content.size),
        }
        folder, _, name = member.name.rpartition("/")
        member.name = f"{folder}/GNUSparseFile.0/{name}".lstrip("/")
    with open_pieces(content, before, holes=False) as file:
        archive.addfile(member, file)
