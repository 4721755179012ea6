"""Workloads: a command in an image and when it is ready, described in TOML that users can copy.

The files beside this one are the workloads that come with the harness.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.drivers import PLATFORMS
from harness.errors import InputError
from harness.inputs import Origin, build_error, convert_keys, read_toml, suggest
from harness.probes.request import parse_request
from harness.units import parse_duration

FOLDER = Path(__file__).parent
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Names of workloads become parts of file names, `pyperf/PLATFORM.WORKLOAD.json`."""


class WorkloadKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a workload file."""

    name: Annotated[
        str, Meta(description="What the workload is called in results and plots", examples=["mine"])
    ]
    description: Annotated[
        str, Meta(description="One line for `list workloads`", examples=["starts my service"])
    ] = ""
    image: Annotated[str, Meta(description="The image that the command runs in", examples=["tiny"])]
    command: Annotated[
        Annotated[tuple[str, ...], Meta(min_length=1)] | UnsetType,
        Meta(
            description="The command and its arguments; no shell unless it says so. Default: the "
            "imported image's own, entry point and command",
            examples=[["sh", "-c", "echo up"]],
        ),
    ] = UNSET
    ready: Annotated[
        str,
        Meta(
            description="When it is ready: `exit` (ended with 0), `output:TEXT` (printed TEXT) "
            "or `tcp:PORT` (the port accepts)",
            examples=["output:up"],
        ),
    ]
    request: Annotated[
        str | None,
        Meta(
            description="A GET from the host once it is ready; its first answer is `response`",
            examples=["http://:8080/"],
        ),
    ] = None
    timeout: Annotated[
        str | None,
        Meta(description="The longest wait for `ready`; default: the plan's", examples=["60s"]),
    ] = None
    environment: Annotated[
        dict[str, str],
        Meta(
            description="Environment variables of the command; they win over the imported image's",
            examples=[{"LANG": "C"}],
        ),
    ] = {}
    directory: Annotated[
        str | None,
        Meta(
            description="Working directory of the command. Default: the imported image's own, "
            "else `/`",
            examples=["/srv"],
        ),
    ] = None
    user: Annotated[
        str | None,
        Meta(
            description="Whom the command runs as: `name`, `uid`, `name:group` or `uid:gid`, as "
            "the image's own /etc/passwd and /etc/group have them. Default: the imported image's "
            "own, else root",
            examples=["www-data"],
        ),
    ] = None
    skip: Annotated[
        tuple[str, ...],
        Meta(description="Platforms that it is not run on", examples=[["process"]]),
    ] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload, checked. ``timeout`` in seconds; ``source`` is the file that errors name.

    Without a ``command`` it runs its image's own; see harness.launch for how the two go together.
    """

    name: str
    image: str
    command: tuple[str, ...]
    ready: str
    timeout: float
    request: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    description: str = ""
    source: str = ""
    directory: str | None = None
    user: str | None = None

    @property
    def network(self) -> bool:
        """Whether its instances need an address on the lab's bridge."""
        return self.request is not None or self.ready.startswith("tcp:")


class UnknownWorkloadError(InputError):
    """A name that is no workload: whoever wrote it down is named where it is caught."""


def list_workloads() -> list[str]:
    """The names of the workloads that come with the harness."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_workload(name: str, *, folder: Path, timeout: float) -> Workload:
    """The workload of a name or of a path (``./mine.toml``, relative to ``folder``).

    ``timeout`` holds where the file states none. Raises InputError.
    """
    if "/" in name or name.endswith(".toml"):
        path = folder / name
    elif name in list_workloads():
        path = FOLDER / f"{name}.toml"
    else:
        known = suggest(name, list_workloads(), "workloads")
        raise UnknownWorkloadError(
            f"unknown workload {name!r}", hint=f"{known}; for a file say ./{name}.toml"
        )
    return parse_workload(read_toml(path), str(path), timeout)


def parse_workload(document: dict[str, object], source: str, timeout: float) -> Workload:
    """A workload from the keys of its file; raises InputError that names ``source``."""
    if path_is_ours(source):
        source = Path(source).name
    keys = convert_keys(document, WorkloadKeys, {}, source)
    for key, reason in _find_faults(keys):
        raise build_error(WorkloadKeys, key, Origin(source), reason)
    for platform in keys.skip:
        if platform not in PLATFORMS:
            reason = f"unknown platform {platform!r}"
            hint = suggest(platform, PLATFORMS, "platforms")
            raise build_error(WorkloadKeys, "skip", Origin(source), reason, hint)
    return Workload(
        name=keys.name,
        image=keys.image,
        command=() if isinstance(keys.command, UnsetType) else keys.command,
        ready=keys.ready,
        timeout=_parse_timeout(keys.timeout, source) if keys.timeout is not None else timeout,
        request=keys.request,
        environment=dict(keys.environment),
        skip=keys.skip,
        description=keys.description,
        source=source,
        directory=keys.directory,
        user=keys.user,
    )


def path_is_ours(source: str) -> bool:
    """Whether a file is one of those that come with the harness: errors then name it shortly."""
    return Path(source).parent == FOLDER


def _find_faults(keys: WorkloadKeys) -> Sequence[tuple[str, str]]:
    """What the types cannot say: (key, reason) of each fault."""
    faults = []
    if not NAME.fullmatch(keys.name):
        faults.append(("name", f"{keys.name!r} is no name: use a-z, 0-9, '_' and '-'"))
    words = () if isinstance(keys.command, UnsetType) else keys.command
    if words[:1] == ("",) or any("\0" in word for word in words):
        faults.append(("command", "the command is empty or has a NUL byte"))
    if keys.directory is not None and not keys.directory.startswith("/"):
        faults.append(("directory", f"{keys.directory!r} does not begin with /"))
    if reason := find_ready_fault(keys.ready):
        faults.append(("ready", reason))
    if keys.request is not None and (reason := _find_request_fault(keys)):
        faults.append(("request", reason))
    for name, value in keys.environment.items():
        if not name or "=" in name or "\0" in name + value:
            faults.append(("environment", f"{name!r} is no environment variable"))
    return faults


def find_ready_fault(ready: str) -> str | None:
    """Why a readiness condition cannot be right; None if it can."""
    kind, _, value = ready.partition(":")
    if ready == "exit" or (kind == "output" and value and "\0" not in value):
        return None
    if kind != "tcp":
        return f"{ready!r} is no readiness condition: it is exit, output:TEXT or tcp:PORT"
    if value.isascii() and value.isdigit() and 1 <= int(value) <= 65535:
        return None
    return f"{value!r} is no port: it is a number from 1 to 65535"


def _find_request_fault(keys: WorkloadKeys) -> str | None:
    if keys.ready == "exit":
        return 'nothing can answer: with ready = "exit" the workload has ended'
    try:
        parse_request(keys.request or "")
    except (InputError, ValueError):
        return f"{keys.request!r} cannot be sent"
    return None


def _parse_timeout(text: str, source: str) -> float:
    try:
        seconds = parse_duration(text)
    except InputError as error:
        raise build_error(WorkloadKeys, "timeout", Origin(source), error.message) from None
    if seconds <= 0:
        raise build_error(WorkloadKeys, "timeout", Origin(source), "it must be longer than 0")
    return seconds
