"""Platforms with options: `docker+gvisor/host-net` and the like, parsed and named in one place.

A name is ``BASE[+RUNTIME][/OPTION]…``. Options that only say what the platform does anyway are
left out of its name, and the others stand in a fixed order: so one variant has one name.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Literal

from harness.errors import InputError
from harness.model import base_platform
from harness.units import format_size, parse_size

Network = Literal["none", "host", "bridge"]
KernelForm = Literal["elf", "bzimage"]
Firmware = Literal["bios", "uefi"]
DiskFormat = Literal["overlay", "raw", "qcow2", "squashfs", "erofs", "virtiofs"]
Sentry = Literal["systrap", "kvm", "ptrace"]
Upper = Literal["tmpfs", "disk"]
DiskCache = Literal["none", "writeback", "unsafe"]

READ_ONLY_DISKS = ("squashfs", "erofs", "virtiofs")
"""Roots that are never written: an instance writes to a layer above."""

_WORDS: Mapping[str, tuple[str, object]] = {
    "no-net": ("network", "none"),
    "host-net": ("network", "host"),
    "bridge-net": ("network", "bridge"),
    **{name: ("sentry", name) for name in ("systrap", "kvm", "ptrace")},
    "seccomp": ("seccomp", True),
    "no-seccomp": ("seccomp", False),
    "read-only": ("read_only", True),
    "no-limits": ("limits", False),
    "tuned": ("tuned", True),
    "elf": ("kernel", "elf"),
    "bzimage": ("kernel", "bzimage"),
    "bios": ("firmware", "bios"),
    "uefi": ("firmware", "uefi"),
    **{f"disk={name}": ("disk", name) for name in ("overlay", "raw", "qcow2", *READ_ONLY_DISKS)},
    "upper=tmpfs": ("upper", "tmpfs"),
    "upper=disk": ("upper", "disk"),
    **{f"cache={name}": ("disk_cache", name) for name in ("none", "writeback", "unsafe")},
    "discard": ("discard", True),
    "no-ksm": ("merge", False),
}
_VALUES = ("memory=", "cpus=")
OPTIONS = (*_WORDS, *_VALUES)
"""What may stand after a slash, in the order in which a name has them."""

RUNTIMES = ("crun", "runc", "gvisor")


@dataclass(frozen=True, slots=True)
class Options:
    """How a variant differs from its platform. None and the defaults: as the platform does it.

    ``memory`` (bytes) and ``cpus`` stand for the plan's; with ``limits`` off there are none.
    ``sentry`` is what gVisor traps system calls with; its release chooses where it is None.
    ``disk`` is what a guest's root is on, ``upper`` where a read-only one is written to. With
    ``discard`` the guest tells what it deletes, and the host has that space again. Without
    ``merge`` the host's KSM leaves the guest's memory alone.
    """

    runtime: str | None = None
    sentry: Sentry | None = None
    network: Network | None = None
    seccomp: bool | None = None
    read_only: bool = False
    limits: bool = True
    memory: int | None = None
    cpus: int | None = None
    tuned: bool = False
    kernel: KernelForm | None = None
    firmware: Firmware | None = None
    disk: DiskFormat | None = None
    upper: Upper | None = None
    disk_cache: DiskCache | None = None
    discard: bool = False
    merge: bool = True


@dataclass(frozen=True, slots=True)
class Traits:
    """What a base platform can be asked for.

    ``choices`` has the values of each option, the platform's own first: asking for that one makes
    no variant (None: there is no word for what it does by itself). With ``sizes`` memory and CPUs
    can be other ones than the plan's.
    """

    choices: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    sizes: bool = False


_NETWORKS = (None, "none", "host", "bridge")
_WRITTEN = {"read_only": (False, True)}
_LIMITS = {"limits": (True, False)}
_SENTRY = {"sentry": (None, "systrap", "kvm", "ptrace")}
_ENGINE = Traits(
    {
        "runtime": ("runc", "crun", "gvisor"),
        **_SENTRY,
        "network": _NETWORKS,
        "seccomp": (True, False),
        **_WRITTEN,
        **_LIMITS,
    },
    sizes=True,
)
_RUNTIME = Traits(
    {"network": _NETWORKS, "seccomp": (False, True), **_WRITTEN, **_LIMITS}, sizes=True
)
_LIGHT = Traits({"network": _NETWORKS[:3], **_LIMITS}, sizes=True)

_TUNED = {"tuned": (False, True)}
_CACHES = {"disk_cache": (None, "none", "writeback", "unsafe")}
_DISCARD = {"discard": (False, True)}
_MERGE = {"merge": (True, False)}
_WRITABLE_DISKS = ("overlay", "raw", "qcow2")
_MICROVM = {
    **_TUNED,
    **_CACHES,
    **_DISCARD,
    **_MERGE,
    "kernel": ("elf", "bzimage"),
    "disk": (*_WRITABLE_DISKS, "squashfs", "erofs"),
    "upper": ("tmpfs", "disk"),
}

TRAITS: dict[str, Traits] = {
    "bubblewrap": _LIGHT,
    "systemd-nspawn": _LIGHT,
    "lxc": Traits({"network": _NETWORKS, **_LIMITS}, sizes=True),
    "crun": _RUNTIME,
    "runc": _RUNTIME,
    "gvisor": Traits({"network": _NETWORKS, **_SENTRY, **_WRITTEN, **_LIMITS}, sizes=True),
    "podman": _ENGINE,
    "docker": _ENGINE,
    "vm-microvm": Traits(_MICROVM, sizes=True),
    "vm-direct": Traits({**_MICROVM, "disk": (*_WRITABLE_DISKS, *READ_ONLY_DISKS)}, sizes=True),
    "vm-disk": Traits(
        {
            **_TUNED,
            **_CACHES,
            **_DISCARD,
            **_MERGE,
            "firmware": ("bios", "uefi"),
            "disk": _WRITABLE_DISKS,
        },
        sizes=True,
    ),
    "vm-restore": Traits({**_TUNED, **_MERGE}, sizes=True),
}
"""Platforms with variants; every other platform has none."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A platform with its options; ``name`` is the one name that it has."""

    base: str
    options: Options = field(default_factory=Options)

    @property
    def name(self) -> str:
        return self.base + _format_options(self.options)

    @property
    def runtime(self) -> str | None:
        """The runtime of an engine, also where its default is meant; None for other platforms."""
        runtimes = TRAITS.get(self.base, Traits()).choices.get("runtime", ())
        return self.options.runtime or (str(runtimes[0]) if runtimes else None)


def _format_options(options: Options) -> str:
    parts = [f"+{options.runtime}"] if options.runtime else []
    for word, (key, value) in _WORDS.items():
        if getattr(options, key) == value and value != _DEFAULTS[key]:
            parts.append(f"/{word}")
    if options.memory is not None:
        parts.append(f"/memory={format_size(options.memory)}")
    if options.cpus is not None:
        parts.append(f"/cpus={options.cpus}")
    return "".join(parts)


def find_base(platform: str) -> str:
    """The base platform of any name, A/A arms and unknown options included: never raises."""
    return base_platform(platform).partition("/")[0].partition("+")[0]


_POINTS: Mapping[str, tuple[str, ...]] = {
    "network": ("network",),
    "read_only": ("storage",),
    "limits": ("memory", "cpus", "pids", "disk", "io"),
    "memory": ("memory",),
    "cpus": ("cpus",),
    "tuned": ("cpu-set",),
    "disk": ("storage",),
    "upper": ("storage",),
    "disk_cache": ("storage",),
}
"""Dimensions of the parity certificate that are the point of a variant with an option."""


def find_points(platform: str) -> frozenset[str]:
    """In which dimensions a platform is meant to differ, by its name: ``runc/memory=1GiB``.

    The baseline has the host's own network, since that is what a platform adds to it.
    """
    options = parse_variant(base_platform(platform)).options
    points = ["network"] if find_base(platform) == "process" else []
    for key, dimensions in _POINTS.items():
        if getattr(options, key) != _DEFAULTS[key]:
            points += dimensions
    return frozenset(points)


def parse_variant(name: str, platforms: Collection[str] | None = None) -> Variant:
    """The variant that ``name`` means; raises InputError that names what is wrong in it.

    Its base has to be one of ``platforms``, where these are given.
    """
    head, *words = name.split("/")
    base, plus, runtime = head.partition("+")
    if platforms is not None and base not in platforms:
        raise InputError(f"unknown platform {base!r}", hint=_suggest(base, platforms, "platforms"))
    values: dict[str, object] = {"runtime": runtime} if plus else {}
    for word in words:
        key, value = _parse_word(name, word)
        if key in values:
            raise InputError(f"platform {name!r} says its {key.replace('_', ' ')} twice")
        values[key] = value
    return build_variant(name, base, values)


def build_variant(name: str, base: str, values: Mapping[str, object]) -> Variant:
    """A checked variant of ``base``; ``name`` is what error messages call it."""
    options = Options(**values)  # type: ignore[arg-type]  # checked below, value by value
    traits = TRAITS.get(base, Traits())
    for key, default in _DEFAULTS.items():
        if key not in ("memory", "cpus") and getattr(options, key) != default:
            _require(name, base, key, getattr(options, key), traits.choices.get(key, ()))
    if (options.memory or options.cpus) and not traits.sizes:
        raise InputError(f"platform {name!r}: {base} takes no limits of its own")
    if not options.limits and (options.memory or options.cpus):
        raise InputError(f"platform {name!r} has limits and no limits", hint="say one of them")
    if options.sentry and base != "gvisor" and options.runtime != "gvisor":
        raise InputError(
            f"platform {name!r}: only gVisor has a platform of its own",
            hint=f"{base}+gvisor/{options.sentry}",
        )
    _require_layers(name, options)
    return Variant(base, _drop_defaults(options, traits))


def _require_layers(name: str, options: Options) -> None:
    """A layer to write in belongs to a read-only root; a shared folder has no disk's cache."""
    if options.upper and options.disk not in READ_ONLY_DISKS:
        raise InputError(
            f"platform {name!r}: an upper layer needs a root that is read-only",
            hint=f"add one of {', '.join(f'/disk={each}' for each in READ_ONLY_DISKS)}",
        )
    if options.disk_cache and options.disk == "virtiofs":
        raise InputError(f"platform {name!r}: virtiofs is no disk, so it has no cache mode")
    if options.discard and options.disk in READ_ONLY_DISKS and options.upper != "disk":
        raise InputError(
            f"platform {name!r}: it has no disk of its own to give space back from",
            hint="add /upper=disk, or leave /discard out",
        )


def _drop_defaults(options: Options, traits: Traits) -> Options:
    """Without what the platform does anyway."""
    kept = {
        key: getattr(options, key)
        for key in _DEFAULTS
        if key in ("memory", "cpus") or traits.choices.get(key, (None,))[0] != getattr(options, key)
    }
    return Options(**kept)


def _require(name: str, base: str, key: str, value: object, allowed: Collection[object]) -> None:
    if value in allowed:
        return
    what = _CALLED.get(key, key)
    if key == "limits" and not allowed:
        raise InputError(f"platform {name!r}: {base} takes no limits of its own")
    if not allowed:
        raise InputError(f"platform {name!r}: {base} has no choice of {what}")
    choices = ", ".join(str(each) for each in allowed if each is not None)
    raise InputError(
        f"platform {name!r}: {value!r} is no {what} of {base}", hint=f"one of {choices}"
    )


def _parse_word(name: str, word: str) -> tuple[str, object]:
    if word in _WORDS:
        return _WORDS[word]
    key, _, text = word.partition("=")
    if key == "memory" and text:
        return "memory", parse_size(text)
    if key == "cpus" and text.isdecimal() and 0 < int(text) <= 256:
        return "cpus", int(text)
    raise InputError(
        f"platform {name!r}: unknown option {word!r}", hint=_suggest(word, OPTIONS, "options")
    )


def _suggest(name: str, known: Collection[str], what: str) -> str:
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"the {what} are {', '.join(names)}"


_CALLED = {
    "read_only": "read-only",
    "disk_cache": "cache mode",
    "sentry": "platform",
    "tuned": "tuning",
}
_DEFAULTS: dict[str, object] = {each.name: each.default for each in fields(Options)}
