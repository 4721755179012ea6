"""What images there are, and how one gets, brings in, hands out and throws away images."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path

from harness.errors import HostError, InputError
from harness.images import apt, store
from harness.images.archive import digest_file, write_tar
from harness.images.build import build_tree
from harness.images.facts import count_facts
from harness.images.importer import read_source
from harness.images.importer_layers import make_directory
from harness.images.importer_unpack import LIMIT
from harness.images.model import Image, ImageConfig
from harness.images.oci import configure_layout
from harness.images.pack import EXTRA_PATHS, PATHS, measure_file, write_extra, write_packings
from harness.images.programs import build_programs
from harness.images.recipes import RECIPES, Recipe
from harness.images.rooted import run_rooted
from harness.images.rootfs import Tree, finish_tree, sum_holes, sum_sizes
from harness.images.workshop import Progress, remove_tree, start_work
from harness.process import says_full

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_LAYOUT_VERSION = "1"
"""Raised whenever the same recipe must give other bytes: it makes cached images out of date."""


_PATH_TRANSPORTS = ("oci", "oci-archive", "docker-archive", "dir")
"""Transports of references that name a path of this host (containers-transports(5))."""

_NO_LIMIT = 1 << 60
_IDLE_KEYS = ("summary", "space")


def list_images() -> list[Image]:
    """The current image of every name that has been built or imported, by name."""
    return [record.image for record in store.list_records()]


def list_names() -> list[str]:
    """Every name that `require_image` knows: recipes and imported images."""
    return sorted({*RECIPES, *(image.name for image in list_images())})


def find_image(name: str) -> Image | None:
    """The image of ``name`` if it is built and up to date; contacts no mirror."""
    record = store.find_record(name)
    if record is None:
        return None
    return record.image if record.inputs == _expected_inputs(name, record.inputs) else None


def require_image(name: str, progress: Progress) -> Image:
    """The image of ``name``, built first where that is needed.

    Raises InputError for a name that is neither a recipe nor imported, HostError if building fails.
    """
    found = find_image(name)
    if found is not None:
        return found
    if name in RECIPES:
        return build_image(name, progress)
    record = store.find_record(name)
    if record is None:
        raise InputError(f"there is no image {name!r}", hint=_suggest_name(name))
    progress(f"{name}: packing again with the present agent")
    return _pack_again(record, progress)


def build_image(name: str, progress: Progress, force: bool = False) -> Image:
    """Build a recipe's image from Debian's packages of today; ``force`` ignores the cache."""
    recipe = RECIPES.get(name)
    if recipe is None:
        raise InputError(f"there is no recipe {name!r}", hint=_suggest_name(name))
    agent = build_programs().agent
    sources = apt.find_sources()
    with start_work(store.images_dir() / name, progress) as folder:
        # Whoever held the lock before may have built it.
        found = None if force else find_image(name)
        if found is not None:
            return found
        tree = build_tree(recipe, sources, agent, folder, progress)
        inputs = _build_inputs(recipe, sources.suite, agent)
        return _pack(name, store.RECIPE, inputs, tree, folder, progress, replace_same=force)


def import_image(source: str, name: str, progress: Progress, limit: int = LIMIT) -> Image:
    """Make an image of a folder, a root file system archive or an OCI image.

    ``source`` is a path, or an OCI reference such as ``docker://debian:12`` for skopeo; ``limit``
    is how many bytes it may be unpacked. Raises InputError for a source that is missing, broken,
    too large or climbs out of its root.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name an image", hint="use a-z, 0-9, '.', '_' and '-'")
    if name in RECIPES:
        raise InputError(f"{name!r} is the name of a recipe", hint="import under another --name")
    agent = build_programs().agent
    with start_work(store.images_dir() / name, progress) as folder:
        progress(f"{name}: reading {source}")
        found = read_source(source, folder, limit)
        for note in found.notes:
            progress(f"{name}: {note}")
        tree, config = _finish_import(found.tree, found.config, agent, source)
        origin = locate_source(source)
        inputs = {"agent": digest_file(agent), "layout": _LAYOUT_VERSION, "source": origin}
        return _pack(name, store.IMPORT, inputs, tree, folder, progress, config=config)


def find_imported(source: str) -> Image | None:
    """The image that was imported from ``source``, whatever its name."""
    origin = locate_source(source)
    found = (each for each in store.list_records() if each.inputs.get("source") == origin)
    return next((each.image for each in found if each.origin == store.IMPORT), None)


def locate_source(source: str) -> str:
    """``source`` as it is meant from every folder: paths are absolute, also in references."""
    if os.path.exists(source) or ":" not in source:
        return os.path.realpath(source)
    transport, _, rest = source.partition(":")
    if transport in _PATH_TRANSPORTS and rest:
        return f"{transport}:{os.path.realpath(rest)}"
    return source


def name_source(source: str) -> str:
    """A name for an image that is imported from ``source`` without one: its last words.

    Where the name is taken, by a recipe or by what came from elsewhere, a digest sets it apart.
    """
    origin = locate_source(source)
    words = re.sub(
        r"[^a-z0-9]+", "-", origin.partition("://")[2].lower() or Path(origin).name.lower()
    )
    name = words.strip("-")[-48:].strip("-") or "image"
    record = store.find_record(name)
    if name not in RECIPES and (record is None or record.inputs.get("source") == origin):
        return name
    return f"{name}-{hashlib.sha256(os.fsencode(origin)).hexdigest()[:6]}"


def require_packing(name: str, packing: str, progress: Progress) -> Image:
    """The image of ``name`` with a packing that not every image gets, made first where needed."""
    image = require_image(name, progress)
    if packing in image.packings:
        return image
    with start_work(store.images_dir() / name, progress) as folder:
        progress(f"{name}: packing as {packing}")
        fresh, final = folder / packing, image.folder / EXTRA_PATHS[packing]
        write_extra(packing, image.tree, fresh, image.digest)
        fresh.rename(final)
    return replace(image, packings={**image.packings, packing: measure_file(packing, final)})


def export_image(name: str, packing: str, out: Path, progress: Progress) -> Path:
    """Copy one packing of an image to ``out`` (a new file or folder) and return it.

    OCI layouts get the image's own configuration with it.
    """
    if packing not in (*PATHS, *EXTRA_PATHS):
        hint = f"one of {', '.join((*PATHS, *EXTRA_PATHS))}"
        raise InputError(f"{packing!r} is not a packing", hint=hint)
    extra = packing in EXTRA_PATHS
    image = require_packing(name, packing, progress) if extra else require_image(name, progress)
    if out.exists() or not out.absolute().parent.is_dir():
        reason = "exists already" if out.exists() else "is in a folder that does not exist"
        raise InputError(f"{out} {reason}", hint="name a new file or folder")
    source = image.packings[packing].path
    progress(f"copying {name} as {packing} to {out}")
    _copy_out(source, out)
    if image.config is not None and packing.startswith("oci-"):
        configure_layout(out, image.config)
    return out


def _copy_out(source: Path, out: Path) -> None:
    """Copy a packing to a new path; what a full disk has of it is removed again."""
    try:
        run_rooted(["cp", "-a", "--sparse=always", "--reflink=auto", source, out], timeout=900)
    except HostError as error:
        if not says_full(error.message):
            raise
        remove_tree(out)
        reason = f"{out} cannot be written: no space left on the disk"
        raise HostError(reason, hint="name a path on a larger disk") from error


def _pack_again(record: store.Record, progress: Progress) -> Image:
    """An imported image with the present agent, from its own tree: its source may be gone."""
    image, agent = record.image, build_programs().agent
    with start_work(store.images_dir() / image.name, progress) as folder:
        found = read_source(str(image.tree), folder, _NO_LIMIT).tree
        tree, config = _finish_import(found, image.config, agent, image.name)
        inputs = {**record.inputs, "agent": digest_file(agent), "layout": _LAYOUT_VERSION}
        return _pack(image.name, store.IMPORT, inputs, tree, folder, progress, config=config)


def _finish_import(
    tree: Tree, config: ImageConfig | None, agent: Path, source: str
) -> tuple[Tree, ImageConfig | None]:
    """The whole tree with its working directory, which engines make too, and where that is."""
    full = finish_tree(tree, agent)
    if config is None:
        return full, None
    try:
        return full, replace(config, directory=make_directory(full, config.directory))
    except InputError as error:
        raise InputError(f"{source}: {error.message}", hint=error.hint) from None


def _pack(
    name: str,
    origin: str,
    inputs: Mapping[str, str],
    tree: Tree,
    folder: Path,
    progress: Progress,
    replace_same: bool = False,
    config: ImageConfig | None = None,
) -> Image:
    tar = folder / "canonical.tar"
    digest = write_tar(tree, tar)
    built = folder / "image"
    built.mkdir()
    size, holes = sum_sizes(tree), sum_holes(tree)
    packings = write_packings(tar, digest, len(tree), size, built, progress, holes)
    image = Image(name, digest, built, packings, config, origin == store.IMPORT, count_facts(tree))
    published = store.publish(store.Record(image, origin, inputs), replace_same)
    progress(f"{name}: {store.short_digest(digest)} is ready")
    return published.image


def _expected_inputs(name: str, stored: Mapping[str, str]) -> Mapping[str, str]:
    agent = build_programs().agent
    if name in RECIPES:
        return _build_inputs(RECIPES[name], apt.find_sources().suite, agent)
    return {**stored, "agent": digest_file(agent), "layout": _LAYOUT_VERSION}


def _build_inputs(recipe: Recipe, suite: str, agent: Path) -> dict[str, str]:
    deciding = {key: value for key, value in asdict(recipe).items() if key not in _IDLE_KEYS}
    text = json.dumps(deciding, sort_keys=True)
    return {
        "agent": digest_file(agent),
        "layout": _LAYOUT_VERSION,
        "recipe": hashlib.sha256(text.encode()).hexdigest()[:16],
        "suite": suite,
    }


def _suggest_name(name: str) -> str:
    names = list_names()
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(names)}"
