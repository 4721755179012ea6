"""Debian systems on which nobody has installed anything yet, as folders.

Each is made once by mmdebstrap, from the archives and with the settings of this host, and kept in
the cache by its list of packages. What runs in one has mounts, processes and a root of its own
(pivot_root(2)), device files of its own, and this host's kernel and network. Nothing runs in the
kept folder itself, only in copies.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HostError
from harness.images import apt
from harness.images.rooted import build_rooted, run_rooted
from harness.images.workshop import move_into_place, start_work
from harness.paths import cache_dir
from harness.process import run_command

BARE = ("make", "ca-certificates")
"""What a host has on which the project's first command is typed."""

_VERSION = 1
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_SETTINGS = ("/etc/pip.conf", "/etc/resolv.conf", "/etc/hosts")
_KEPT = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
_TRUST = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_MAKE_S = 900.0

_ENTER = """
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
while read -r name kind major minor; do
    [ ! -e "/dev/$name" ] || mknod -m 666 "$root/dev/$name" "$kind" "$major" "$minor"
done <<END
null c 1 3
zero c 1 5
full c 1 7
random c 1 8
urandom c 1 9
tty c 5 0
kvm c 10 232
fuse c 10 229
net/tun c 10 200
loop-control c 10 237
END
ln -s /proc/self/fd "$root/dev/fd"
for name in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${name%:*}" "$root/dev/${name#*:}"; done
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --rbind "$1" "$root$2"; shift 2; done
shift
cd "$root"
pivot_root . .
umount -l .
cd /
exec "$@"
"""
"""ROOT [FROM TO]… -- COMMAND…: in namespaces of one's own, go into ROOT and run a command."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Debian: ``name`` is how people call it, ``suite`` how its archive does."""

    name: str
    suite: str


BOOKWORM = Release("Debian 12", "bookworm")
TRIXIE = Release("Debian 13", "trixie")
RELEASES = (BOOKWORM, TRIXIE)


def find_other_release() -> Release:
    """The release that this host is not."""
    return TRIXIE if apt.find_sources().suite == BOOKWORM.suite else BOOKWORM


def hosts_dir() -> Path:
    """The folder of the roots and disks of all test hosts."""
    return cache_dir() / "hosts"


def build_key(*parts: object) -> str:
    """What a kept root or disk depends on, in 12 digits."""
    return hashlib.sha256(json.dumps([_VERSION, *parts]).encode()).hexdigest()[:12]


def require_root(release: Release, packages: Sequence[str] = BARE) -> Path:
    """The folder of a system with just these packages, made if it is not there."""
    final = hosts_dir() / f"{release.suite}-{build_key(release.suite, sorted(packages))}"
    if final.is_dir():
        return final
    with start_work(hosts_dir(), print) as work:
        _unpack(release, packages, work, work / "root")
        move_into_place(work / "root", final)
    return final


def _unpack(release: Release, packages: Sequence[str], work: Path, out: Path) -> None:
    listing = work / "debian.sources"
    listing.write_text(apt.format_sources(build_archives(release)))
    settings = [f"--aptopt={line}" for line in apt.read_host_settings()]
    done = run_rooted(
        [
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            *(f"--include={','.join(packages)}", *settings, release.suite, str(out), str(listing)),
        ],
        timeout=_MAKE_S,
        check=False,
        env={"TMPDIR": str(work), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise HostError(f"{release.name} cannot be unpacked: {apt.find_reason(done.stderr)}")


def build_archives(release: Release) -> list[apt.Archive]:
    """This host's archives of Debian, with the suites of a release."""
    sources = apt.find_sources()
    return [
        replace(
            each, suites=tuple(name.replace(sources.suite, release.suite) for name in each.suites)
        )
        for each in sources.archives
    ]


def copy_root(root: Path, folder: Path) -> Path:
    """A copy of a root that may be changed, knowing what this host's network needs to be known."""
    run_command(["cp", "-a", "--reflink=auto", root, folder], timeout=300)
    for name in _SETTINGS:
        if Path(name).is_file():
            shutil.copyfile(name, folder / name[1:])
    if _CERTIFICATES.is_file():
        (folder / _CERTIFICATES.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_CERTIFICATES, folder / _CERTIFICATES.relative_to("/"))
    return folder


def build_entry(
    root: Path, argv: Sequence[str | Path], binds: Mapping[Path, str] | None = None
) -> list[str]:
    """The command line that runs ``argv`` as root of the system in ``root``.

    ``binds`` are further folders of this host, by where they are seen.
    """
    mounts = [str(word) for each in (binds or {}).items() for word in each]
    return build_rooted(["sh", "-c", _ENTER, "sh", root, *mounts, "--", *argv], root=True)


def build_environment() -> dict[str, str]:
    """What a login as root has, and how this host reaches its registries."""
    own = {key: value for key, value in os.environ.items() if key.lower() in _KEPT or key in _KEPT}
    trust = dict.fromkeys(_TRUST, str(_CERTIFICATES)) if _CERTIFICATES.is_file() else {}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "USER": "root", "TERM": "dumb", **own, **trust}


def run_in(
    root: Path,
    argv: Sequence[str | Path],
    *,
    timeout: float,
    binds: Mapping[Path, str] | None = None,
    folder: str = "/",
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run ``argv`` in a copy of a root; its exit code and all that it printed.

    ``log`` keeps the words as they come. Raises HostError after ``timeout`` seconds.
    """
    environment = {**build_environment(), **(env or {})}
    settings = [f"{key}={value}" for key, value in environment.items()]
    words = ["env", "-i", "-C", folder, *settings, *argv]
    out = log or root.parent / f"{root.name}.log"
    entry = build_entry(root, words, binds)
    done = run_command(
        ["sh", "-c", 'out=$1; shift; exec "$@" >"$out" 2>&1', "sh", out, *entry],
        timeout=timeout,
        check=False,
    )
    return done.returncode, out.read_text(errors="replace")
