"""dpkg's database, read from its text: which packages are installed and what they depend on.

Formats: deb-control(5); the lists of files are ``var/lib/dpkg/info/NAME[:ARCH].list``.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

STATUS = "var/lib/dpkg/status"
STANZAS = "var/lib/dpkg/status.d"
"""Where a root without dpkg keeps one stanza per package, for those who look what is inside."""

_INSTALLED = "install ok installed"
_RELATION = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package. Each of ``depends`` is a choice: any one of its names will do."""

    name: str
    version: str
    architecture: str
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]
    stanza: str


def parse_status(text: str) -> dict[str, Package]:
    """Every installed package of a ``status`` file, by name."""
    stanzas = (stanza.strip() for stanza in text.split("\n\n"))
    packages = (_parse_package(stanza) for stanza in stanzas if stanza)
    return {package.name: package for package in packages if package is not None}


def count_installed(text: str) -> int:
    """How many packages a ``status`` file says are installed."""
    return sum(line.strip() == f"Status: {_INSTALLED}" for line in text.splitlines())


def find_closure(
    roots: Sequence[str], packages: Mapping[str, Package], without: Collection[str]
) -> tuple[str, ...]:
    """``roots`` and all that they depend on, by name, never entering those in ``without``.

    Of a choice, the first alternative that is installed counts, or the package that provides one.
    A dependency that is not installed at all is passed over: dpkg has seen to those that matter.
    """
    providers = {name: each.name for each in packages.values() for name in each.provides}
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        found.add(name)
        for choice in packages[name].depends:
            chosen = _choose(choice, packages, providers)
            if chosen is not None:
                waiting.append(chosen)
    return tuple(sorted(found))


def list_files(package: Package) -> tuple[str, str]:
    """The two paths of which one holds the list of the package's files."""
    folder = "var/lib/dpkg/info"
    return (
        f"{folder}/{package.name}.list",
        f"{folder}/{package.name}:{package.architecture}.list",
    )


def _choose(
    choice: Sequence[str], packages: Mapping[str, Package], providers: Mapping[str, str]
) -> str | None:
    for name in choice:
        if name in packages:
            return name
    return next((providers[name] for name in choice if name in providers), None)


def _parse_package(stanza: str) -> Package | None:
    fields = _parse_fields(stanza)
    if fields.get("Status") != _INSTALLED or "Package" not in fields:
        return None
    relations = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
    return Package(
        name=fields["Package"],
        version=fields.get("Version", ""),
        architecture=fields.get("Architecture", ""),
        depends=tuple(_walk_choices(relations)),
        provides=tuple(name for each in _walk_choices(fields.get("Provides", "")) for name in each),
        stanza=stanza,
    )


def _walk_choices(relations: str) -> Iterator[tuple[str, ...]]:
    """The names of ``a (>= 1) | b, c:any``, choice by choice, without versions."""
    for relation in relations.split(","):
        found = (_RELATION.match(each) for each in relation.split("|"))
        names = tuple(match[1] for match in found if match)
        if names:
            yield names


def _parse_fields(stanza: str) -> dict[str, str]:
    """The fields of a stanza that stand on one line, as all of these do."""
    pairs = (line.partition(":") for line in stanza.splitlines() if not line[:1].isspace())
    return {key: value.strip() for key, _, value in pairs}
