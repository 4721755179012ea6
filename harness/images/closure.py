"""A root file system cut down to what one application needs, as «distroless» images are.

Two closures, one after the other: dpkg's dependencies say which packages' files are needed, and
the libraries that ELF files name say whether any is missing. What is left has no package manager
and no shell.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from harness.errors import HostError
from harness.images.archive import read_content
from harness.images.dpkg import STANZAS, STATUS, Package, find_closure, list_files, parse_status
from harness.images.elf import Needs, parse_needs
from harness.images.recipes import Closure
from harness.images.rootfs import Entry, Tree, build_file

_BYTECODE = "__pycache__"


def select_closure(tree: Tree, closure: Closure) -> dict[str, Entry]:
    """What of a Debian ``tree`` the packages ``closure.roots`` need; see Closure."""
    packages = parse_status(read_content(tree[STATUS]).decode())
    missing = [name for name in closure.roots if name not in packages]
    if missing:
        raise HostError(f"the closure cannot be computed: {missing[0]} is not installed")
    names = find_closure(closure.roots, packages, closure.without)
    kept = {
        path: tree[path]
        for name in names
        for path in _walk_files(tree, packages[name])
        if not _matches(path, closure.drop)
    }
    kept |= {path: tree[path] for path in tree if _matches(path, closure.keep)}
    kept |= _find_bytecode(tree, kept)
    kept |= find_libraries(tree, kept)
    kept |= {path: entry for path, entry in tree.items() if _is_merged(path, entry)}
    return kept | {each.path: each for each in _build_stanzas(names, packages)}


def find_libraries(tree: Tree, kept: Tree) -> dict[str, Entry]:
    """The libraries and loaders that ELF files in ``kept`` name and ``kept`` lacks.

    Raises HostError for a library that is nowhere in ``tree``.
    """
    by_name: dict[str, str] = {}
    for path in sorted(tree, reverse=True):
        if not tree[path].is_folder and ".so" in path:
            by_name[PurePosixPath(path).name] = path
    found: dict[str, Entry] = {}
    waiting = list(kept)
    while waiting:
        path = waiting.pop()
        needs = _read_needs(tree, path)
        for name in (*needs.libraries, PurePosixPath(needs.interpreter).name):
            if not name:
                continue
            if name not in by_name:
                raise HostError(f"{path} needs {name}, which no package of the image holds")
            for each in _follow(tree, by_name[name]):
                if each not in kept and each not in found:
                    found[each] = tree[each]
                    waiting.append(each)
    return found


def resolve_merged(tree: Tree, path: str) -> str:
    """``lib/x`` as ``usr/lib/x`` where the tree has a link from ``lib`` to ``usr/lib``."""
    first, _, rest = path.partition("/")
    entry = tree.get(first)
    return f"{entry.target.strip('/')}/{rest}" if entry and entry.target and rest else path


def _walk_files(tree: Tree, package: Package) -> Iterator[str]:
    listing = next((path for path in list_files(package) if path in tree), None)
    lines = read_content(tree[listing]).decode().splitlines() if listing else []
    for line in lines:
        path = resolve_merged(tree, line.strip("/"))
        if path in tree and not tree[path].is_folder:
            yield path


def _find_bytecode(tree: Tree, kept: Mapping[str, Entry]) -> dict[str, Entry]:
    """The compiled form of each Python module that stays: made at installation, in no list."""
    found = {}
    for path, entry in tree.items():
        folder, _, name = path.rpartition("/")
        if folder.endswith(f"/{_BYTECODE}"):
            source = f"{folder.removesuffix(_BYTECODE)}{name.partition('.')[0]}.py"
            if source in kept:
                found[path] = entry
    return found


def _read_needs(tree: Tree, path: str) -> Needs:
    entry = tree[path]
    empty = Needs("", ())
    if entry.is_folder or entry.target:
        return empty
    return parse_needs(read_content(entry)) or empty


def _follow(tree: Tree, path: str) -> Iterator[str]:
    """A file and, where it is a symbolic link, whatever it leads to in the tree."""
    seen = set[str]()
    while path in tree and path not in seen:
        seen.add(path)
        yield path
        target = tree[path].target
        if not target:
            return
        beside = PurePosixPath(path).parent / target
        path = resolve_merged(tree, _flatten(PurePosixPath("/") / beside))


def _flatten(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts[1:]:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(parts)


def _is_merged(path: str, entry: Entry) -> bool:
    """A link at the top such as ``lib`` to ``usr/lib``: programs name their loader by it."""
    return "/" not in path and entry.target.strip("/").startswith("usr/")


def _build_stanzas(names: tuple[str, ...], packages: Mapping[str, Package]) -> Iterator[Entry]:
    for name in names:
        yield build_file(f"{STANZAS}/{name}", f"{packages[name].stanza}\n".encode())


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
