"""Which of the named folders are runs that can be published, and why the others are left out.

A run is known by the bytes of what it stored, never by where it lies: the same runs give the same
site from whatever folders and in whatever order.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import harness
from harness.analysis.compare_traits import Traits, build_host_traits, find_differences
from harness.analysis.results import get_list, get_mapping
from harness.errors import InputError
from harness.store import is_being_written, read_manifest, safe_name
from harness.store.names import JOURNAL, MANIFEST, SAMPLES

KINDS = ("starts", "isolation", "rebuilds")
"""What runs measure: instances from start to teardown, what isolates them, images made anew."""

STORED = (MANIFEST, JOURNAL, SAMPLES)
"""What a report is made of, and so what a run is known by."""


@dataclass(frozen=True, slots=True)
class Source:
    """A run to publish: its folder, its id, a name for its pages and the digest of its files.

    ``kind`` is what it measured, ``host`` what tells its host from others.
    """

    folder: Path
    run_id: str
    name: str
    digest: str
    kind: str
    created_at: str
    host: Traits


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A folder that is not on the site, and why. ``fault``: something is wrong with it."""

    name: str
    reason: str
    fault: bool = True


def find_sources(folders: Sequence[Path]) -> tuple[tuple[Source, ...], tuple[LeftOut, ...]]:
    """The runs in ``folders``, by their ids; a folder that is no run stands for those below it.

    Raises InputError for a folder that is not there.
    """
    found: dict[str, Source] = {}
    left_out: list[LeftOut] = []
    torn: set[str] = set()
    for folder in _list_folders(folders):
        try:
            source = _read_source(folder)
        except InputError as error:
            left_out.append(LeftOut(folder.name, _shorten(str(error), folder)))
            continue
        if isinstance(source, LeftOut):
            left_out.append(source)
        elif found.setdefault(source.run_id, source).digest != source.digest:
            torn.add(source.run_id)
    left_out += [
        LeftOut(run_id, "two folders have this run id and differ; name one of them")
        for run_id in torn
    ]
    sources = [source for run_id, source in sorted(found.items()) if run_id not in torn]
    return tuple(sources), tuple(sorted(left_out, key=lambda each: (each.name, each.reason)))


def _list_folders(folders: Sequence[Path]) -> list[Path]:
    listed: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            there = "is no folder" if folder.exists() else "is not there"
            raise InputError(f"{folder} {there}", hint="name result folders of `run`")
        inside = [] if _is_run(folder) else sorted(filter(_is_run, folder.iterdir()))
        listed |= dict.fromkeys(each.resolve() for each in inside or [folder])
    return sorted(listed)


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or (folder / JOURNAL).is_file()


def _read_source(folder: Path) -> Source | LeftOut:
    if not (folder / MANIFEST).is_file():
        return LeftOut(folder.name, f"it is no result folder: it has no {MANIFEST}")
    if is_being_written(folder / JOURNAL):
        return LeftOut(folder.name, "its run is still going on", fault=False)
    manifest = read_manifest(folder)
    run_id = str(manifest["run_id"])
    return Source(
        folder, run_id, safe_name(run_id), digest_files(_list_stored(folder)),
        find_kind(manifest), str(manifest.get("created_at") or ""), build_host_traits(manifest),
    )  # fmt: skip


def find_kind(manifest: Mapping[str, object]) -> str:
    """What a run measured, by the command that made it: one of `KINDS`."""
    if "isolation" in manifest:
        return "isolation"
    workloads = get_list(get_mapping(manifest, "plan"), "workloads")
    return "rebuilds" if workloads == ["rebuild"] else "starts"  # a plan has their definitions


def find_evidence(source: Source, sources: Sequence[Source]) -> tuple[Source, ...]:
    """Runs of the same host whose chapters belong into a report of starts: of each other kind the
    one that is nearest in time."""
    if source.kind != "starts":
        return ()
    found = []
    for kind in KINDS[1:]:
        others = [each for each in sources if each.kind == kind]
        near = [each for each in others if not find_differences(source.host, each.host)]
        near.sort(key=lambda each: (_find_distance(source, each), each.run_id))
        found += near[:1]
    return tuple(found)


def _find_distance(one: Source, other: Source) -> float:
    """Seconds between two runs; without their times, infinitely many."""
    try:
        ours, theirs = (datetime.fromisoformat(each.created_at) for each in (one, other))
        return abs((ours - theirs).total_seconds())
    except (TypeError, ValueError):
        return math.inf


def _list_stored(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((name, folder / name) for name in STORED if (folder / name).is_file())


def _shorten(text: str, folder: Path) -> str:
    """An error without the path of this host: the site is read elsewhere."""
    return text.replace(f"{folder}/", "").replace(str(folder), folder.name)


def shorten_reason(text: str, *folders: Path) -> str:
    for folder in folders:
        text = _shorten(text, folder)
    return text


def digest_files(files: Iterator[tuple[str, Path]]) -> str:
    """One digest of named files and of the program that reads them."""
    parts = [[name, hashlib.sha256(path.read_bytes()).hexdigest()] for name, path in files]
    return digest_words([*parts, _digest_program()])


def digest_words(words: object) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


@cache
def _digest_program() -> str:
    """The harness itself: another version of it may say something else of the same samples."""
    root = Path(harness.__file__).parent
    files = sorted(each for each in root.rglob("*") if each.suffix in {".py", ".j2", ".css", ".js"})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
