"""The images that the harness can build: what goes in, what stays out, as data.

Every image also gets the agent, its channel folder and the mount points, so that a guest and a
container find the same tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

EPOCH = 1_735_689_600
"""2025-01-01: no file of an image is younger, so that a build date cannot leak into a digest."""

AGENT = ".harness/agent"
CHANNEL_FOLDER = ".harness/run"

FOLDERS = {
    ".harness": 0o755,
    CHANNEL_FOLDER: 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
"""Folders of every image, with their modes; mount points first of all."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the harness's own: its C ``source`` text, compiled with musl.

    It is static unless ``shared``: then it is linked with the image's own libc, which is musl's.
    """

    source: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Closure:
    """Which files of an installed Debian stay: those of the packages ``roots`` and of what they
    depend on, but nothing of the packages ``without``, and no path that matches ``drop``.

    ``keep`` are patterns of files that installation makes and no package lists.
    """

    roots: tuple[str, ...]
    without: tuple[str, ...]
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build one image.

    An empty ``variant`` takes nothing of Debian's. ``keep`` and ``drop`` are patterns over paths
    without the leading slash, where ``*`` also crosses folders; ``drop`` spares folders.
    ``exclude`` and ``include`` are dpkg's path filters, which save unpacking; ``closure`` cuts down
    what is left. ``files`` are written last; ``{suite}`` in them is Debian's code name.
    ``programs`` are compiled, by their path.
    ``applets`` adds a symbolic link for each command that busybox knows. ``hooks`` are folders of
    hooks that come with mmdebstrap. ``space`` is the room on disk that a build needs, in bytes.
    """

    name: str
    summary: str
    variant: str
    space: int
    packages: tuple[str, ...] = ()
    keep: tuple[str, ...] = ("*",)
    drop: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    applets: bool = False
    hooks: tuple[str, ...] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)
    closure: Closure | None = None


_NAMES = {
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/resolv.conf": "",
    "etc/fstab": "",
}

_TINY_FILES = {
    **_NAMES,
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    ),
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'NAME="tiny"\nID=tiny\nID_LIKE=debian\nPRETTY_NAME="tiny (busybox)"\n',
}

_DEBIAN_FILES = {
    **_NAMES,
    "etc/machine-id": "",
    "etc/apt/sources.list": (
        "deb http://deb.debian.org/debian {suite} main\n"
        "deb http://deb.debian.org/debian {suite}-updates main\n"
        "deb http://deb.debian.org/debian-security {suite}-security main\n"
    ),
}

_DEBIAN_DROP = (
    "dev/*",
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list.d/*",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.wget-hsts",
    "run/*",
    "tmp/*",
    "usr/share/doc/*/changelog*",
    "usr/share/doc/*/NEWS*",
    "var/cache/*",
    "var/lib/apt/extended_states",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock*",
    "var/lib/dpkg/triggers/Lock",
    "var/log/*",
    "var/tmp/*",
)

_DOCS = tuple(
    f"/usr/share/{folder}/*"
    for folder in ("doc", "doc-base", "info", "linda", "lintian", "locale", "man", "groff")
)
_LICENCES = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")

_SLIM = Recipe(
    name="slim",
    summary="a minimal Debian with apt, without documentation",
    variant="minbase",
    space=600 << 20,
    # Without this stand-in, the merge of /bin into /usr brings in all of perl.
    packages=("usr-is-merged",),
    hooks=("merged-usr",),
    drop=_DEBIAN_DROP,
    exclude=_DOCS,
    include=_LICENCES,
    files=_DEBIAN_FILES,
)

_TINY = Recipe(
    name="tiny",
    summary="static busybox and the few files of /etc that programs look for",
    variant="extract",
    space=200 << 20,
    packages=("busybox-static",),
    keep=("bin/busybox", "usr/bin/busybox", "usr/share/doc/busybox-static/copyright"),
    files=_TINY_FILES,
    applets=True,
)

# Everything that Debian's installer puts on a disk when asked for nothing in particular.
_DEBIAN = Recipe(
    name="debian",
    summary="Debian's standard system",
    variant="standard",
    space=2 << 30,
    packages=("usr-is-merged",),
    hooks=("merged-usr",),
    drop=_DEBIAN_DROP,
    files=_DEBIAN_FILES,
)

# ---- the ladder of base images: two applications, from an empty root to a whole Debian ---------

_WEBSERVER = Path(__file__).with_name("webserver.c").read_text()
_WEB_FILES = {"srv/www/index.html": "<!doctype html><title>up</title><p>up\n"}
_WEB_PROGRAM = "usr/bin/webserver"

_APP_PACKAGES = ("python3-flask", "python3-waitress")
_APP_FILES = {
    "srv/app/app.py": (
        "from flask import Flask, render_template_string\n"
        "from waitress import serve\n\n"
        'PAGE = "<!doctype html><title>{{ state }}</title><p>{{ state }}"\n'
        "app = Flask(__name__)\n\n\n"
        '@app.get("/")\n'
        "def show() -> str:\n"
        '    return render_template_string(PAGE, state="up")\n\n\n'
        'serve(app, host="0.0.0.0", port=8080, threads=4)\n'
    ),
}
# What only installing and administering needs, whatever depends on it.
_ADMINISTRATION = (
    "adduser", "apt", "base-passwd", "bash", "coreutils", "dash", "debconf", "diffutils", "dpkg",
    "findutils", "grep", "init-system-helpers", "libc-bin", "login", "passwd", "perl-base", "sed",
    "sensible-utils", "tar", "ucf", "util-linux",
)  # fmt: skip
_APP_CLOSURE = Closure(
    roots=(*_APP_PACKAGES, "base-files", "media-types"),
    without=_ADMINISTRATION,
    drop=("usr/bin/py3*", "usr/bin/pydoc*", "usr/bin/pygettext*", "usr/share/lintian/*",
          "usr/share/python3/*", "etc/profile*", "etc/update-motd.d/*"),
    keep=("etc/group", "etc/nsswitch.conf", "etc/passwd"),
)  # fmt: skip


def _with_webserver(base: Recipe, name: str, summary: str, *, shared: bool = False) -> Recipe:
    return replace(
        base,
        name=name,
        summary=summary,
        files={**base.files, **_WEB_FILES},
        programs={_WEB_PROGRAM: Program(_WEBSERVER, shared)},
    )


def _with_app(base: Recipe, name: str, summary: str, closure: Closure | None = None) -> Recipe:
    return replace(
        base,
        name=name,
        summary=summary,
        space=base.space + (300 << 20),
        packages=(*base.packages, *_APP_PACKAGES),
        files={**base.files, **_APP_FILES},
        closure=closure,
    )


_EMPTY = Recipe(name="scratch", summary="nothing", variant="", space=32 << 20)
_MUSL = replace(
    _TINY,
    name="musl",
    packages=(*_TINY.packages, "musl"),
    keep=(*_TINY.keep, "lib/ld-musl-*", "usr/lib/ld-musl-*", "*/x86_64-linux-musl/libc.so",
          "usr/share/doc/musl/copyright"),
)  # fmt: skip

_LADDER = (
    _with_webserver(_EMPTY, "web-scratch", "a static web server and nothing else"),
    _with_webserver(_TINY, "web-tiny", "the web server on tiny"),
    _with_webserver(
        _MUSL, "web-musl", "the web server on musl and busybox, as in Alpine", shared=True
    ),
    _with_webserver(_SLIM, "web-slim", "the web server on slim"),
    _with_webserver(_DEBIAN, "web-debian", "the web server on Debian's standard system"),
    _with_app(
        replace(_SLIM, drop=()),
        "pyapp-distroless",
        "the Python application and only the files that it needs: no shell, no package manager",
        _APP_CLOSURE,
    ),
    _with_app(_SLIM, "pyapp-slim", "the Python application on slim"),
    _with_app(_DEBIAN, "pyapp-debian", "the Python application on Debian's standard system"),
)

# ---- what running work costs: tools that print a figure, and services that are loaded ------------

# Installing PostgreSQL makes a database with a number of its own: no two builds would be the same.
_DATABASES = ("etc/postgresql/*", "etc/ssl/certs/ssl-cert-snakeoil.pem",
              "etc/ssl/certs/????????.?", "etc/ssl/private/*", "var/lib/postgresql/*")  # fmt: skip


def _with_packages(name: str, summary: str, space: int, *packages: str) -> Recipe:
    return replace(
        _SLIM, name=name, summary=summary, space=space, packages=(*_SLIM.packages, *packages)
    )


_EFFICIENCY = (
    _with_packages(
        "bench",
        "slim plus sysbench, openssl, stress-ng, fio, iperf3 and python3",
        1200 << 20,
        *("sysbench", "openssl", "stress-ng", "fio", "iperf3", "python3"),
    ),
    _with_packages(
        "services", "slim plus nginx and Redis", 800 << 20, "nginx-light", "redis-server"
    ),
    replace(
        _with_packages("postgres", "slim plus PostgreSQL", 1800 << 20, "postgresql"),
        drop=(*_SLIM.drop, *_DATABASES),
    ),
)

_TABLE = (
    _TINY,
    _SLIM,
    replace(
        _SLIM,
        name="python",
        summary="slim plus python3 and its standard library",
        space=900 << 20,
        packages=(*_SLIM.packages, "python3"),
    ),
    *_LADDER,
    *_EFFICIENCY,
)

RECIPES = {recipe.name: recipe for recipe in _TABLE}
LADDER = frozenset(recipe.name for recipe in _LADDER)
"""Those that compare base images; the largest takes minutes to build."""

ON_REQUEST = LADDER | {recipe.name for recipe in _EFFICIENCY}
"""Those that are built only where a plan, or a user, asks for them by name."""
