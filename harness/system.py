"""The system packages the project needs, and which of them this host lacks.

The table is ``system_packages.toml``. Only the standard library is used: the set-up runs before
there is a virtual environment, and `doctor` when nothing is installed.
"""

import glob
import importlib.util
import shutil
import sysconfig
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "system_packages.toml"
SYSTEMD = Path("/run/systemd/system")
ADMIN_PATH = "/usr/sbin:/sbin"
"""Folders that Debian leaves out of a user's PATH although mke2fs and ip live there."""

_INSTALL = {
    "apt": "apt-get install --no-install-recommends",
    "dnf": "dnf install",
    "pacman": "pacman -S",
}
_MANAGER_COMMANDS = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman"}


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """One package: ``names`` by package manager, ``probes`` any of which shows that it is there.

    ``platforms`` are those left out without it; none means that nothing works without it.
    A ``service`` is one that systemd starts as soon as it is installed.
    """

    purpose: str
    group: str
    probes: tuple[str, ...]
    platforms: tuple[str, ...]
    names: dict[str, str]
    service: bool = False


def read_packages() -> tuple[SystemPackage, ...]:
    """The whole table, in its order."""
    return parse_packages(TABLE.read_text())


def parse_packages(text: str) -> tuple[SystemPackage, ...]:
    """The table from its TOML text."""
    return tuple(
        SystemPackage(
            purpose=entry["purpose"],
            group=entry["group"],
            probes=tuple(entry["probes"]),
            platforms=tuple(entry.get("platforms", ())),
            names={manager: entry[manager] for manager in _INSTALL if manager in entry},
            service=entry.get("service", False),
        )
        for entry in tomllib.loads(text)["package"]
    )


def find_missing(packages: Iterable[SystemPackage]) -> list[SystemPackage]:
    """Those packages that no probe finds on this host."""
    return [package for package in packages if not any(map(is_present, package.probes))]


def is_present(probe: str) -> bool:
    """Whether one probe (``command:ip``, ``file:/usr/…``, ``module:venv``) finds its thing."""
    kind, _, name = probe.partition(":")
    if kind == "command":
        return find_command(name) is not None
    if kind == "module":
        return importlib.util.find_spec(name) is not None
    if kind == "header":
        return (Path(sysconfig.get_path("include")) / name).exists()
    return any(glob.iglob(name))


def find_command(name: str) -> str | None:
    """The path of a program, looked for where administrators' tools are too."""
    return shutil.which(name) or shutil.which(name, path=ADMIN_PATH)


def find_manager() -> str | None:
    """The package manager of this host: ``apt``, ``dnf``, ``pacman`` or None."""
    managers = (name for name, command in _MANAGER_COMMANDS.items() if shutil.which(command))
    return next(managers, None)


def starts_services() -> bool:
    """Whether installing a package with a service would start it here: systemd runs."""
    return SYSTEMD.is_dir()


def build_names(packages: Iterable[SystemPackage], manager: str) -> list[str]:
    """What a package manager calls ``packages``; those it does not have are left out."""
    return list(dict.fromkeys(each.names[manager] for each in packages if manager in each.names))


def format_remedy(packages: Sequence[SystemPackage], manager: str | None, *, root: bool) -> str:
    """The one command that installs ``packages`` here, else what Debian calls them."""
    if manager is None:
        return f"install what Debian calls {' '.join(build_names(packages, 'apt'))}"
    command = f"{_INSTALL[manager]} {' '.join(build_names(packages, manager))}"
    return command if root else f"sudo {command}"
