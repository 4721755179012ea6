"""The walls between the rooms, read from the source: who may import whom, and what."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from harness.drivers import PLATFORMS

ROOT = Path(__file__).parents[2]

SHARED = (
    "harness",
    "harness.certificate",
    "harness.errors",
    "harness.units",
    "harness.model",
    "harness.metrics",
    "harness.paths",
    "harness.marks",
    "harness.precision",
    "harness.inputs",
)
STORE = ("harness.store*",)
ANALYSE = ("harness.analysis*",)
WIRING = (
    "harness.session",
    "harness.run_folder",
    "harness.rebuild_session",
    "harness.isolation_session",
    "harness.dry_run",
    "harness.doctor",
    "harness.proof",
    "harness.image_check",
    "harness.cli*",
    "harness.__main__",
)
SET_UP = ("harness.setup*", "harness.services", "harness.system")

# Rooms, and the rooms that they import from. Every other module is of the measuring half.
ROOMS = {
    "shared": (SHARED, ("shared",)),
    "store": (STORE, ("shared", "store")),
    "analyse": (ANALYSE, ("shared", "store", "analyse")),
    "set-up": (SET_UP, ("shared", "set-up")),
    "wiring": (WIRING, ("shared", "measure", "store", "analyse", "set-up", "wiring")),
    "measure": (("harness.*",), ("shared", "measure")),
}

# One door per outside thing: package, and the modules that may import it.
DOORS = {
    "asv_runner": (),
    "docker": ("harness.drivers.docker_api",),
    "requests": ("harness.drivers.docker_api",),
    "click": ("harness.cli*", "harness.__main__"),
    "jinja2": ("harness.analysis.report*",),
    "libvirt": ("harness.drivers.libvirt_*",),
    "lxml": ("harness.drivers.domain_xml", "harness.drivers.libvirt_pool"),
    "matplotlib": ("harness.analysis.plots*",),
    "msgspec": (
        "harness.inputs",
        "harness.plan*",
        "harness.workloads*",
        "harness.store*",
        "harness.analysis.claim_list",
        "harness.analysis.published",
    ),
    "numpy": ("harness.analysis*",),
    "pandas": ("harness.analysis*",),
    "psutil": ("harness.host", "harness.probes*"),
    "pyarrow": ("harness.store*", "harness.analysis*"),
    "pyperf": ("harness.store*",),
    "rich": ("harness.cli*",),
    "scipy": ("harness.analysis*",),
    "seaborn": ("harness.analysis.plots*",),
    "subprocess": ("harness.process", "harness.setup", "harness.system"),
}

CONCRETE = "harness.drivers.[!b]*"  # every module of drivers but base

# Further walls: module, and what it never imports.
WALLS = (
    ("harness.runner", ("harness.store*", CONCRETE)),
    ("harness.density", ("harness.store*", CONCRETE)),
    ("harness.storm", ("harness.store*", CONCRETE)),
    ("harness.minimum", ("harness.store*", CONCRETE)),
    ("harness.isolation*", ("harness.analysis*", CONCRETE)),
    ("harness.probes*", (CONCRETE,)),
    ("harness.session", ("harness.analysis*", CONCRETE)),
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = sorted((ROOT / "harness").rglob("*.py"))
    return {build_name(path): path for path in paths}


def build_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(name: str) -> frozenset[str]:
    """The modules that a module imports at run time, also inside its functions."""
    return frozenset(walk_imports(ast.parse(modules()[name].read_text())))


def walk_imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom) and node.module:
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        found = [each for each in inside if each in modules()]
        yield from found
        if len(found) < len(inside):
            yield node.module
    for child in ast.iter_child_nodes(node):
        yield from walk_imports(child)


def find_room(name: str) -> str:
    return next(room for room, (members, _) in ROOMS.items() if matches(name, members))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_from_rooms_that_its_room_may_enter(name: str) -> None:
    _, open_rooms = ROOMS[find_room(name)]
    inside = [each for each in imports(name) if each in modules()]
    assert [each for each in inside if find_room(each) not in open_rooms] == []


@pytest.mark.parametrize("name", modules())
def test_an_outside_thing_is_imported_at_its_door_only(name: str) -> None:
    packages = {each.split(".")[0] for each in imports(name)} & DOORS.keys()
    assert [each for each in packages if not matches(name, DOORS[each])] == []


@pytest.mark.parametrize(("pattern", "forbidden"), WALLS)
def test_a_wall_has_no_hole(pattern: str, forbidden: tuple[str, ...]) -> None:
    for name in (each for each in modules() if fnmatch(each, pattern)):
        assert [each for each in imports(name) if matches(each, forbidden)] == [], name


def test_imports_make_no_circle() -> None:
    graph = {name: imports(name) & modules().keys() - {name} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(error.args[1])}")


def test_a_driver_never_imports_another_driver() -> None:
    drivers = {entry.partition(":")[0] for entry in PLATFORMS.values()} & modules().keys()
    for driver in drivers:
        assert imports(driver) & drivers - {driver} == set(), driver
