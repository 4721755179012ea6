"""Where Debian packages come from: the host's own Debian archives, else the public mirror.

Third-party entries of the host never get into an image. Formats: sources.list(5).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.process import run_command

DEFAULT_SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"

_COMPONENT = "main"
_ALIASES = ("stable", "oldstable", "testing", "unstable", "sid")
"""How sources may name a release besides its code name, which unstable has not."""
_HOST_SETTINGS = (
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Check-",
    "Acquire::Retries",
    "Acquire::Force",
)


@dataclass(frozen=True, slots=True)
class Archive:
    """One entry of apt's sources: where packages are, and which keyring signs them."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """The archives that packages are taken from, and Debian's code name for them."""

    suite: str
    archives: tuple[Archive, ...]


def find_sources(root: Path = Path("/")) -> Sources:
    """The Debian archives that this host itself uses, else the public mirror's stable suite."""
    release = _read_os_release(root)
    suite = release.get("VERSION_CODENAME", "")
    if release.get("ID") == "debian":
        archives = read_archives(root / "etc/apt")
        for name in filter(None, (suite, *_ALIASES)):
            chosen = select_debian(archives, name)
            if any(name in archive.suites for archive in chosen):
                return Sources(name, chosen)
    return Sources(DEFAULT_SUITE, build_default_archives(DEFAULT_SUITE))


def build_default_archives(suite: str) -> tuple[Archive, ...]:
    """The public mirror: the release, its updates and its security fixes."""
    mirror = "http://deb.debian.org"
    return (
        Archive((f"{mirror}/debian",), (suite, f"{suite}-updates"), (_COMPONENT,), str(KEYRING)),
        Archive(
            (f"{mirror}/debian-security",), (f"{suite}-security",), (_COMPONENT,), str(KEYRING)
        ),
    )


def read_archives(folder: Path) -> list[Archive]:
    """Every entry of ``sources.list`` and ``sources.list.d``, in both formats."""
    archives: list[Archive] = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
        archives.extend(parse(text))
    return archives


def parse_deb822(text: str) -> list[Archive]:
    """The entries of a ``.sources`` file; disabled ones and sources of source code are left out."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    archives = []
    for stanza in "\n".join(lines).split("\n\n"):
        fields = _parse_stanza(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        archives.append(
            Archive(
                uris=tuple(fields.get("uris", "").split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", ""),
                trusted=fields.get("trusted") == "yes",
                architectures=tuple(fields.get("architectures", "").split()),
            )
        )
    return archives


def parse_one_line(text: str) -> list[Archive]:
    """The entries of a ``sources.list``: ``deb [option=value …] uri suite component…``."""
    archives = []
    for line in text.splitlines():
        kind, _, rest = line.partition("#")[0].strip().partition(" ")
        options: dict[str, str] = {}
        if rest.lstrip().startswith("["):
            inside, _, rest = rest.partition("]")
            pairs = (word.partition("=") for word in inside.strip(" [").split())
            options = {key: value for key, _, value in pairs}
        words = rest.split()
        if kind == "deb" and len(words) >= 3:
            archives.append(
                Archive(
                    uris=(words[0],),
                    suites=(words[1],),
                    components=tuple(words[2:]),
                    signed_by=options.get("signed-by", ""),
                    trusted=options.get("trusted") == "yes",
                    architectures=tuple(options["arch"].split(",")) if "arch" in options else (),
                )
            )
    return archives


def select_debian(archives: Iterable[Archive], suite: str) -> tuple[Archive, ...]:
    """Those entries that are Debian's own, cut down to ``suite``, its updates and ``main``.

    A third party betrays itself by its suite, its component or its keyring; the mirror's address
    says nothing, as companies have mirrors of their own.
    """
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    chosen = []
    for archive in archives:
        suites = tuple(name for name in archive.suites if name in wanted)
        uris = tuple(uri for uri in archive.uris if not uri.startswith("cdrom:"))
        if suites and uris and _is_debian(archive):
            keyring = "" if archive.trusted else str(KEYRING) if KEYRING.exists() else ""
            chosen.append(Archive(uris, suites, (_COMPONENT,), keyring, archive.trusted))
    return tuple(chosen)


def format_sources(archives: Iterable[Archive]) -> str:
    """``archives`` as a ``.sources`` file (deb822)."""
    stanzas = []
    for archive in archives:
        lines = [
            "Types: deb",
            f"URIs: {' '.join(archive.uris)}",
            f"Suites: {' '.join(archive.suites)}",
            f"Components: {' '.join(archive.components)}",
        ]
        if archive.signed_by:
            lines.append(f"Signed-By: {archive.signed_by}")
        if archive.trusted:
            lines.append("Trusted: yes")
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)


def require_keyring(sources: Sources) -> None:
    """Raise HostError if the keyring that signs Debian's archives is not on this host."""
    needed = [archive for archive in sources.archives if archive.signed_by == str(KEYRING)]
    if needed and not KEYRING.exists():
        raise HostError(
            f"Debian's packages cannot be verified: {KEYRING} is missing",
            hint="install the package debian-archive-keyring",
        )


def read_host_settings() -> tuple[str, ...]:
    """The host's own settings for reaching its mirror (proxy, certificates), as apt options."""
    dump = run_command(["apt-config", "dump"], timeout=30).stdout
    own = tuple(line for line in dump.splitlines() if line.startswith(_HOST_SETTINGS))
    return ('Acquire::Retries "3";', *own)


def write_private_config(sources: Sources, folder: Path) -> Path:
    """An apt configuration that keeps all of apt's state in ``folder``; nothing of the host's.

    Returns the file for ``APT_CONFIG`` (apt.conf(5)). Needs no root.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / "apt" / name).mkdir(parents=True)
    listing = folder / "apt" / "debian.sources"
    listing.write_text(format_sources(sources.archives))
    status = folder / "apt" / "status"
    status.touch()
    lines = [
        f'APT::Architecture "{ARCHITECTURE}";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        f'Dir::State "{folder}/apt/state";',
        f'Dir::State::status "{status}";',
        f'Dir::Cache "{folder}/apt/cache";',
        f'Dir::Etc::sourcelist "{listing}";',
        'Dir::Etc::sourceparts "/dev/null";',
        'Dir::Etc::parts "/dev/null";',
        'Dir::Etc::main "/dev/null";',
        *read_host_settings(),
    ]
    config = folder / "apt" / "apt.conf"
    config.write_text("\n".join(lines) + "\n")
    return config


def find_reason(output: str) -> str:
    """The line in which apt, dpkg or mmdebstrap says most about what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for start in ("E: Failed to fetch", "dpkg: error", "E:", "Err:", ""):
        found = next((line for line in lines if line.startswith(start)), None)
        if found is not None:
            return found
    return "it printed nothing"


def _is_debian(archive: Archive) -> bool:
    keyring = Path(archive.signed_by).name
    return (
        _COMPONENT in archive.components
        and (not archive.signed_by or keyring.startswith("debian-archive"))
        and (not archive.architectures or ARCHITECTURE in archive.architectures)
    )


def _parse_stanza(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}".strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            name = key.strip().lower()
            fields[name] = value.strip()
    return fields


def _read_os_release(root: Path) -> dict[str, str]:
    try:
        text = (root / "etc/os-release").read_text()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value.strip("\"'") for key, _, value in pairs}
