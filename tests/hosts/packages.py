"""Which Debian package each file of a root is from, and why that package may be counted on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import system

_MERGED = ("/bin", "/sbin", "/lib", "/lib64")
_GENERATED = ("/usr/local/", "/usr/lib/locale/", "/usr/share/mime/")
"""What is below /usr and in no package: it is made there."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that was used, of a package that nothing in the list brings."""

    path: str
    package: str
    """Empty where no package has it."""
    executed: bool


@dataclass(frozen=True, slots=True)
class Installed:
    """A package of dpkg's list."""

    name: str
    certain: str
    """The rule by which it is in every Debian: ``essential``, ``required`` or nothing."""
    needs: tuple[tuple[str, ...], ...]
    """What it depends on, each as alternatives."""
    provides: tuple[str, ...]


def find_outside(trace: str, root: Path, given: Sequence[str], target: str = "run") -> list[Stray]:
    """What a command used in ``root`` beyond the list of system packages.

    ``trace`` has lines ``exec PATH`` and ``open PATH``; ``given`` names packages that whoever made
    the root has put there. Files outside /usr, /bin, /sbin and /lib are the command's own.
    """
    owners = read_owners(root)
    rules = find_rules(read_installed(root), list_names(root, target), given)
    strays = []
    for line in trace.splitlines():
        kind, _, path = line.partition(" ")
        name = normalise(path)
        if not name.startswith("/usr/") or name.startswith(_GENERATED):
            continue
        package = find_owner(name, owners)
        if package in rules or (not package and kind == "open"):
            continue
        strays.append(Stray(name, package, kind == "exec"))
    return strays


def list_names(root: Path, target: str) -> list[str]:
    """What apt calls the packages that a target of the Makefile installs, each alternative."""
    groups = ("run",) if target == "run" else ("run", "test")
    found = []
    for package in system.read_packages():
        if package.group in groups and "apt" in package.names:
            found += system.split_alternatives(package.names["apt"])
    versions = {path.name.removeprefix("python") for path in root.glob("usr/lib/python3.*")}
    return [*found, *(f"python{each}-{kind}" for each in versions for kind in ("venv", "dev"))]


def find_rules(
    installed: Mapping[str, Installed], listed: Iterable[str], given: Iterable[str]
) -> dict[str, str]:
    """Why each package may be counted on, by name; a package without a rule is not in it."""
    providers: dict[str, list[str]] = {}
    for package in installed.values():
        for name in (package.name, *package.provides):
            providers.setdefault(name, []).append(package.name)
    rules = {each.name: each.certain for each in installed.values() if each.certain}
    rules |= {name: "given" for name in given if name in installed}
    rules |= {name: "listed" for name in listed if name in installed}
    waiting = list(rules)
    while waiting:
        parent = waiting.pop()
        for alternatives in installed[parent].needs:
            for name in (each for one in alternatives for each in providers.get(one, ())):
                if name not in rules:
                    rules[name] = f"a dependency of {parent}"
                    waiting.append(name)
    return rules


def read_installed(root: Path) -> dict[str, Installed]:
    """dpkg's list of the root, by name."""
    text = (root / "var/lib/dpkg/status").read_text()
    stanzas = map(_parse_stanza, text.split("\n\n"))
    found = [each for each in stanzas if each.get("Status", "").endswith(" installed")]
    return {each["Package"]: _describe(each) for each in found}


def read_owners(root: Path) -> dict[str, str]:
    """The package of each file that dpkg has in the root."""
    owners = {}
    for path in (root / "var/lib/dpkg/info").glob("*.list"):
        package = path.stem.partition(":")[0]
        for line in path.read_text().splitlines():
            owners[normalise(line)] = package
    return owners


def normalise(path: str) -> str:
    """The path of a file since /bin, /sbin and /lib are links into /usr."""
    return f"/usr{path}" if path.startswith(tuple(f"{each}/" for each in _MERGED)) else path


def find_owner(path: str, owners: Mapping[str, str]) -> str:
    """The package of a file, or of the module that a compiled file is made of; else nothing."""
    folder, _, name = path.rpartition("/")
    if folder.endswith("/__pycache__"):
        path = f"{folder.removesuffix('/__pycache__')}/{name.partition('.')[0]}.py"
    return owners.get(path, "")


def _parse_stanza(text: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in text.splitlines() if line[:1].strip())
    return {name: value for name, _, value in pairs}


def _describe(fields: Mapping[str, str]) -> Installed:
    essential = "essential" if fields.get("Essential") == "yes" else ""
    required = "required" if fields.get("Priority") == "required" else ""
    needs = [*_split(fields.get("Pre-Depends", "")), *_split(fields.get("Depends", ""))]
    provides = tuple(name for names in _split(fields.get("Provides", "")) for name in names)
    return Installed(fields["Package"], essential or required, tuple(needs), provides)


def _split(field: str) -> Iterator[tuple[str, ...]]:
    """`a (>= 1) | b:any, c` as names."""
    for part in filter(None, (each.strip() for each in field.split(","))):
        yield tuple(one.split()[0].partition(":")[0] for one in part.split("|"))
