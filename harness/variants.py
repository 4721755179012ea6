"""Platforms with options: `docker+gvisor/host-net` and the like, parsed and named in one place.

A name is ``BASE[+RUNTIME][/OPTION]…``. Options that only say what the platform does anyway are
left out of its name, and the others stand in a fixed order: so one variant has one name.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from harness.errors import InputError
from harness.model import base_platform
from harness.units import format_size, parse_size

Network = Literal["none", "host", "bridge"]

_NETWORKS: dict[str, Network] = {"no-net": "none", "host-net": "host", "bridge-net": "bridge"}
_SWITCHES = ("seccomp", "no-seccomp", "read-only", "no-limits")
_VALUES = ("memory=", "cpus=")
OPTIONS = (*_NETWORKS, *_SWITCHES, *_VALUES)
"""What may stand after a slash, in the order in which a name has them."""

RUNTIMES = ("crun", "runc", "gvisor")


@dataclass(frozen=True, slots=True)
class Options:
    """How a variant differs from its platform. None and the defaults: as the platform does it.

    ``memory`` (bytes) and ``cpus`` stand for the plan's; with ``limits`` off there are none.
    """

    runtime: str | None = None
    network: Network | None = None
    seccomp: bool | None = None
    read_only: bool = False
    limits: bool = True
    memory: int | None = None
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """What a base platform can be asked for, and what it does when it is not asked."""

    runtimes: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    seccomp: bool | None = None
    """Whether a system call filter is on by default; None: it cannot be chosen."""
    read_only: bool = False
    limits: bool = False


_ENGINE = Traits(
    runtimes=("runc", "crun", "gvisor"),
    networks=("none", "host", "bridge"),
    seccomp=True,
    read_only=True,
    limits=True,
)
_RUNTIME = Traits(networks=("none", "host", "bridge"), seccomp=False, read_only=True, limits=True)

_LIGHT = Traits(networks=("none", "host"), limits=True)

TRAITS: dict[str, Traits] = {
    "bubblewrap": _LIGHT,
    "systemd-nspawn": _LIGHT,
    "lxc": Traits(networks=("none", "host", "bridge"), limits=True),
    "crun": _RUNTIME,
    "runc": _RUNTIME,
    "gvisor": Traits(networks=("none", "host", "bridge"), read_only=True, limits=True),
    "podman": _ENGINE,
    "docker": _ENGINE,
}
"""Platforms with variants; every other platform has none. The first runtime is the default."""


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
        runtimes = TRAITS.get(self.base, Traits()).runtimes
        return self.options.runtime or (runtimes[0] if runtimes else None)


def _format_options(options: Options) -> str:
    parts = [f"+{options.runtime}"] if options.runtime else []
    parts += [f"/{word}" for word, network in _NETWORKS.items() if network == options.network]
    if options.seccomp is not None:
        parts.append("/seccomp" if options.seccomp else "/no-seccomp")
    if options.read_only:
        parts.append("/read-only")
    if not options.limits:
        parts.append("/no-limits")
    if options.memory is not None:
        parts.append(f"/memory={format_size(options.memory)}")
    if options.cpus is not None:
        parts.append(f"/cpus={options.cpus}")
    return "".join(parts)


def find_base(platform: str) -> str:
    """The base platform of any name, A/A arms and unknown options included: never raises."""
    return base_platform(platform).partition("/")[0].partition("+")[0]


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


def build_variant(name: str, base: str, values: dict[str, object]) -> Variant:
    """A checked variant of ``base``; ``name`` is what error messages call it."""
    options = Options(**values)  # type: ignore[arg-type]  # checked below, value by value
    traits = TRAITS.get(base, Traits())
    _require(name, base, "runtime", options.runtime, traits.runtimes)
    _require(name, base, "network", options.network, traits.networks)
    switches = (True, False) if traits.seccomp is not None else ()
    _require(name, base, "seccomp", options.seccomp, switches)
    _require(name, base, "read-only", options.read_only or None, (True,) * traits.read_only)
    limited = (not options.limits or None, options.memory, options.cpus)
    if any(each is not None for each in limited) and not traits.limits:
        raise InputError(f"platform {name!r}: {base} takes no limits of its own")
    if not options.limits and (options.memory or options.cpus):
        raise InputError(f"platform {name!r} has limits and no limits", hint="say one of them")
    return Variant(base, _drop_defaults(options, traits))


def _drop_defaults(options: Options, traits: Traits) -> Options:
    same_runtime = traits.runtimes[:1] == (options.runtime,)
    return Options(
        runtime=None if same_runtime else options.runtime,
        network=options.network,
        seccomp=None if options.seccomp == traits.seccomp else options.seccomp,
        read_only=options.read_only,
        limits=options.limits,
        memory=options.memory,
        cpus=options.cpus,
    )


def _require(name: str, base: str, what: str, value: object, allowed: Collection[object]) -> None:
    if value is None or value in allowed:
        return
    if not allowed:
        raise InputError(f"platform {name!r}: {base} has no choice of {what}")
    choices = ", ".join(map(str, allowed))
    raise InputError(
        f"platform {name!r}: {value!r} is no {what} of {base}", hint=f"one of {choices}"
    )


def _parse_word(name: str, word: str) -> tuple[str, object]:
    if word in _NETWORKS:
        return "network", _NETWORKS[word]
    if word in ("seccomp", "no-seccomp"):
        return "seccomp", word == "seccomp"
    if word == "read-only":
        return "read_only", True
    if word == "no-limits":
        return "limits", False
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
