"""Workloads: a command in an image and when it is ready, described in TOML that users can copy.

The files beside this one are the workloads that come with the harness.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import UnsetType

from harness.drivers import PLATFORMS
from harness.errors import InputError
from harness.figures import AREA, DURATION, Figure, Stream, find_fault, list_names
from harness.inputs import Origin, build_error, convert_keys, read_toml, suggest
from harness.marks import MARKS
from harness.probes.request import parse_request
from harness.units import parse_duration
from harness.workloads.keys import FigureKeys as FigureKeys
from harness.workloads.keys import WorkloadKeys as WorkloadKeys

FOLDER = Path(__file__).parent
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""Names of workloads become parts of file names, `pyperf/PLATFORM.WORKLOAD.json`."""

FIGURE_EXAMPLE = (
    'write [[figures]] and below it name = "throughput", unit = "1/s", regex = "did (.+) a second"'
)


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
    load: tuple[str, ...] = ()
    load_threads: int = 1
    figures: tuple[Figure, ...] = ()
    brings: tuple[str, ...] = ()

    @property
    def brought(self) -> frozenset[str]:
        """The marks that its work itself brings about."""
        return frozenset((*self.brings, *(("throttled",) if self.figures else ())))

    @property
    def network(self) -> bool:
        """Whether its instances need an address on the lab's bridge."""
        return self.request is not None or self.ready.startswith("tcp:") or bool(self.load)

    @property
    def port(self) -> str | None:
        """The port whose accepting makes it ready."""
        kind, _, value = self.ready.partition(":")
        return value if kind == "tcp" else None


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
        hint = FIGURE_EXAMPLE if key == "figures" else None
        raise build_error(WorkloadKeys, key, Origin(source), reason, hint)
    for platform in keys.skip:
        if platform not in PLATFORMS:
            reason = f"unknown platform {platform!r}"
            hint = suggest(platform, PLATFORMS, "platforms")
            raise build_error(WorkloadKeys, "skip", Origin(source), reason, hint)
    for mark in keys.brings:
        if mark not in MARKS:
            hint = suggest(mark, MARKS, "marks")
            reason = f"unknown mark {mark!r}"
            raise build_error(WorkloadKeys, "brings", Origin(source), reason, hint)
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
        load=keys.load,
        load_threads=keys.load_threads,
        figures=build_figures(keys),
        brings=keys.brings,
    )


def build_figures(keys: WorkloadKeys) -> tuple[Figure, ...]:
    """The figures of a workload as they are read; their names are not checked here."""
    usual: Stream = "load" if keys.load else "output"
    return tuple(
        Figure(
            metric=AREA + each.name,
            unit=each.unit,
            stream=usual if isinstance(each.stream, UnsetType) else each.stream,
            phase="tool" if each.name == DURATION else each.of,
            json=each.json,
            csv=each.csv,
            regex=each.regex,
        )
        for each in keys.figures
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
    if keys.load and (reason := _find_load_fault(keys)):
        faults.append(("load", reason))
    if reason := _find_figure_fault(keys):
        faults.append(("figures", reason))
    return faults


def _find_load_fault(keys: WorkloadKeys) -> str | None:
    if keys.ready == "exit":
        return 'nothing can be loaded: with ready = "exit" the workload has ended'
    if not keys.load[0] or any("\0" in word for word in keys.load):
        return "the command is empty or has a NUL byte"
    if any("{port}" in word for word in keys.load) and not keys.ready.startswith("tcp:"):
        return "`{port}` is that of a ready condition tcp:PORT, and there is none"
    return None if keys.figures else "nothing of it is read: there are no `figures`"


def _find_figure_fault(keys: WorkloadKeys) -> str | None:
    """What is wrong with the first figure that could never be read."""
    known = list_names()
    seen: set[tuple[str, str]] = set()
    for place, figure in enumerate(build_figures(keys), 1):
        name = figure.metric.removeprefix(AREA)
        if name not in known:
            return f"{name!r} of number {place} is no figure: {suggest(name, known, 'figures')}"
        if fault := find_fault(figure):
            return f"{fault[0]} of number {place}: {fault[1]}"
        if figure.stream.startswith("load") and not keys.load:
            return f"stream of number {place}: there is no `load` that could print it"
        if (figure.metric, figure.phase) in seen:
            return f"number {place} is another {name}: say what each is `of`"
        seen.add((figure.metric, figure.phase))
    return None


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
