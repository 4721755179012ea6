"""The images that the harness can build: what goes in, what stays out, as data.

Every image also gets the agent, its channel folder and the mount points, so that a guest and a
container find the same tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
class Recipe:
    """How to build one image.

    ``keep`` and ``drop`` are patterns over paths without the leading slash, where ``*`` also
    crosses folders; ``drop`` spares folders. ``exclude`` and ``include`` are dpkg's path filters,
    which save unpacking. ``files`` are written last; ``{suite}`` in them is Debian's code name.
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

_TABLE = (
    Recipe(
        name="tiny",
        summary="static busybox and the few files of /etc that programs look for",
        variant="extract",
        space=200 << 20,
        packages=("busybox-static",),
        keep=("bin/busybox", "usr/bin/busybox", "usr/share/doc/busybox-static/copyright"),
        files=_TINY_FILES,
        applets=True,
    ),
    _SLIM,
    replace(
        _SLIM,
        name="python",
        summary="slim plus python3 and its standard library",
        space=900 << 20,
        packages=(*_SLIM.packages, "python3"),
    ),
)

RECIPES = {recipe.name: recipe for recipe in _TABLE}
