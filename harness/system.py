"""The system packages the project needs, and which of them this host lacks.

The table is ``system_packages.toml``. Only the standard library is used: the set-up runs before
there is a virtual environment, and `doctor` when nothing is installed.
"""

import glob
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "system_packages.toml"
SYSTEMD = Path("/run/systemd/system")
APT_LISTS = "/var/lib/apt/lists/*_Packages*"
"""What `apt-get update` has fetched."""
ADMIN_PATH = "/usr/sbin:/sbin"
"""Folders that Debian leaves out of a user's PATH although mke2fs and ip live there."""

_ASK_S = 10.0
_INSTALL = {
    "apt": "apt-get install --no-install-recommends",
    "dnf": "dnf install",
    "pacman": "pacman -S",
}
_MANAGER_COMMANDS = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman"}


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """One package: ``names`` by package manager; it is there if every one of ``probes`` is.

    A name or a probe may be alternatives, as in Debian's own fields: ``a | b``. ``platforms`` are
    those left out without it; none means that nothing works without it.
    """

    purpose: str
    group: str
    probes: tuple[str, ...]
    platforms: tuple[str, ...]
    names: dict[str, str]


def read_packages() -> tuple[SystemPackage, ...]:
    """The whole table, in its order."""
    return parse_packages(TABLE.read_text())


def parse_packages(text: str) -> tuple[SystemPackage, ...]:
    """The table from its TOML text."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return tuple(
        SystemPackage(
            purpose=entry["purpose"],
            group=entry["group"],
            probes=tuple(entry["probes"]),
            platforms=tuple(entry.get("platforms", ())),
            names={
                manager: entry[manager].replace("{python}", python)
                for manager in _INSTALL
                if manager in entry
            },
        )
        for entry in tomllib.loads(text)["package"]
    )


def find_missing(packages: Iterable[SystemPackage]) -> list[SystemPackage]:
    """Those packages of which this host lacks a thing."""
    return [package for package in packages if find_lacking(package)]


def find_lacking(package: SystemPackage) -> list[str]:
    """Those probes of a package that find nothing on this host."""
    return [probe for probe in package.probes if not is_present(probe)]


def is_present(probe: str) -> bool:
    """Whether a probe (``command:ip``, ``file:/usr/… | file:/lib/…``) finds one of its things."""
    return any(map(_finds, split_alternatives(probe)))


def split_alternatives(text: str) -> list[str]:
    """``a | b`` as its parts."""
    return [part.strip() for part in text.split("|")]


def _finds(probe: str) -> bool:
    kind, _, name = probe.partition(":")
    if kind == "command":
        return find_command(name) is not None
    if kind == "module":
        return importlib.util.find_spec(name) is not None
    if kind == "header":
        return (Path(sysconfig.get_path("include")) / name).exists()
    if kind == "release":
        program, _, least = name.partition(" ")
        return any(_is_of_release(each, least) for each in glob.iglob(program))
    return any(glob.iglob(name))


def _is_of_release(program: str, least: str) -> bool:
    """Whether a program says (``--version``) that it is of this release or a newer one."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True,
                              errors="replace", timeout=_ASK_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found is not None and _parse_release(found[0]) >= _parse_release(least)


def _parse_release(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


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
    texts = [each.names[manager] for each in packages if manager in each.names]
    choices = [split_alternatives(each) for each in texts]
    doubtful = [name for names in choices if len(names) > 1 for name in names]
    known = read_known(doubtful) if manager == "apt" and doubtful else frozenset()
    return list(dict.fromkeys(choose_name(names, manager, known) for names in choices))


def choose_name(names: Sequence[str], manager: str, known: frozenset[str]) -> str:
    """The first of ``names`` that apt knows here, the last where it knows none.

    Other managers are not asked, as they would go to the network: their first name it is.
    """
    if manager != "apt":
        return names[0]
    return next((name for name in names if name in known), names[-1])


def read_known(names: Sequence[str]) -> frozenset[str]:
    """Those of ``names`` that apt's lists have on this host."""
    if shutil.which("apt-cache") is None:  # asked for what Debian calls it, on another system
        return frozenset()
    words = ["apt-cache", "show", "--no-all-versions", *names]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    lines = (line.partition(": ") for line in done.stdout.splitlines())
    return frozenset(value for name, _, value in lines if name == "Package")


def format_remedy(packages: Sequence[SystemPackage], manager: str | None, *, root: bool) -> str:
    """The one command that installs ``packages`` here, else what Debian calls them."""
    if manager is None:
        return f"install what Debian calls {' '.join(build_names(packages, 'apt'))}"
    sudo = "" if root else "sudo "
    command = f"{sudo}{_INSTALL[manager]} {' '.join(build_names(packages, manager))}"
    unread = manager == "apt" and not any(glob.iglob(APT_LISTS))
    return f"{sudo}apt-get update && {command}" if unread else command
