"""A root file system as entries by path: what a recipe keeps, and what every image must have."""

import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from harness.images.recipes import AGENT, EPOCH, FOLDERS, Recipe


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a file on disk. Two entries with the same span are hard links of one file."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sparse:
    """A file with holes: ``pieces`` are (position in the file, bytes); the rest is zeros.

    As with spans, the same pieces are hard links of one file; one that is all hole has an empty
    piece at its end, which tells it from others.
    """

    pieces: tuple[tuple[int, Span], ...]
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a root file system, without the leading slash.

    ``kind`` is a tar type: REGTYPE, DIRTYPE, SYMTYPE, FIFOTYPE, CHRTYPE or BLKTYPE, and in a layer
    LNKTYPE for a hard link to what a layer below has. ``device`` is (major, minor). Extended
    attributes are text with surrogate escapes, as tarfile has them.
    """

    path: str
    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = EPOCH
    target: str = ""
    content: Span | Sparse | bytes = b""
    xattrs: Mapping[str, str] = field(default_factory=dict)
    device: tuple[int, int] = (0, 0)

    @property
    def is_folder(self) -> bool:
        return self.kind == tarfile.DIRTYPE


Tree: TypeAlias = Mapping[str, Entry]


def build_file(path: str, content: bytes, mode: int = 0o644) -> Entry:
    """A regular file of root's with ``content``."""
    return Entry(path, tarfile.REGTYPE, mode, content=content)


def build_folder(path: str, mode: int = 0o755) -> Entry:
    """A folder of root's."""
    return Entry(path, tarfile.DIRTYPE, mode)


def build_symlink(path: str, target: str) -> Entry:
    """A symbolic link of root's."""
    return Entry(path, tarfile.SYMTYPE, 0o777, target=target)


def select_entries(tree: Tree, recipe: Recipe) -> dict[str, Entry]:
    """What ``recipe`` keeps of ``tree``; see Recipe for the meaning of its patterns."""
    return {
        path: entry
        for path, entry in tree.items()
        if _matches(path, recipe.keep) and (entry.is_folder or not _matches(path, recipe.drop))
    }


def finish_tree(
    tree: Tree, agent: Path, files: Mapping[str, str] | None = None
) -> dict[str, Entry]:
    """``tree`` with ``files``, the agent, the mount points and every parent folder it lacks."""
    full = {path: entry for path, entry in tree.items() if not _is_ours(path)}
    for path, mode in FOLDERS.items():
        full.setdefault(path, build_folder(path, mode))
    for path, text in (files or {}).items():
        full[path] = build_file(path, text.encode())
    full[AGENT] = build_file(AGENT, agent.read_bytes(), 0o755)
    for path in list(full):
        for parent in PurePosixPath(path).parents[:-1]:
            full.setdefault(str(parent), build_folder(str(parent)))
    return full


def sum_sizes(tree: Tree) -> int:
    """Bytes of all regular files and symbolic links of ``tree``, hard links once, holes too."""
    shared = {each.content for each in tree.values() if not isinstance(each.content, bytes)}
    inline = [entry.content for entry in tree.values() if isinstance(entry.content, bytes)]
    links = [os.fsencode(entry.target) for entry in tree.values()]
    return sum(each.size for each in shared) + sum(len(piece) for piece in inline + links)


def sum_holes(tree: Tree) -> int:
    """Bytes of ``tree`` that are holes of sparse files, hard links once."""
    sparse = {each.content for each in tree.values() if isinstance(each.content, Sparse)}
    return sum(each.size - sum(span.size for _, span in each.pieces) for each in sparse)


def _is_ours(path: str) -> bool:
    return PurePosixPath(path).parts[0] == PurePosixPath(AGENT).parts[0]


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
