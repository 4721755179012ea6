"""`run --image SOURCE --ready …`: a workload that is made of an image itself, in one line."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from harness.errors import InputError
from harness.images.catalog import find_imported, import_image, list_names, name_source
from harness.images.model import Image
from harness.workloads import Workload, find_ready_fault, parse_workload

KEYS = ("ready", "request", "command")
"""The options that describe the image's own workload."""

_TIMEOUT = 60.0


def take_own_options(options: dict[str, object]) -> dict[str, str]:
    """Remove the options of an image's own workload from ``options`` and return them."""
    own = {key: str(options.pop(key)) for key in KEYS if key in options}
    if not own:
        return {}
    if "workloads" in options:
        raise InputError(
            f"--{next(iter(own))} describes the image's own workload, and --workload names another",
            hint="leave one of them out",
        )
    if "images" not in options or "ready" not in own:
        missing = "--ready" if "images" in options else "--image"
        raise InputError(
            f"--{next(iter(own))} needs {missing}",
            hint="as in --image docker://nginx:alpine --ready tcp:80",
        )
    return own


def require_sources(
    images: Sequence[str], say: Callable[[str], None], *, dry: bool
) -> tuple[str, ...]:
    """The names of the images that were asked for by name or source; sources are imported first.

    What was imported once is used again. With ``dry`` nothing is imported: raises InputError.
    """
    return tuple(each if _is_name(each) else _require_source(each, say, dry) for each in images)


def build_own_workloads(
    own: Mapping[str, str], images: Sequence[str], *, source: str = "the command line"
) -> tuple[Workload, ...]:
    """One workload for each image, named after it, as the options describe it."""
    if fault := find_ready_fault(own["ready"]):
        raise InputError(f"--ready: {fault}", hint="as in --ready tcp:80")
    return tuple(_build_own(own, image, source) for image in images)


def _build_own(own: Mapping[str, str], image: str, source: str) -> Workload:
    document: dict[str, object] = {
        "name": re.sub(r"[^a-z0-9_-]", "-", image),
        "image": image,
        "ready": own["ready"],
    }
    if "request" in own:
        document["request"] = build_request(own["request"], own["ready"])
    if "command" in own:
        document["command"] = split_command(own["command"])
    return parse_workload(document, source, _TIMEOUT)


def build_request(text: str, ready: str) -> str:
    """The address to ask: ``/path`` is at the port of ``ready``."""
    if text.startswith("/") and ready.startswith("tcp:"):
        return f"http://:{ready.removeprefix('tcp:')}{text}"
    if text.startswith("/"):
        raise InputError(
            f"--request {text}: there is no port to ask at",
            hint="say --ready tcp:PORT, or the whole address: --request http://:8080/",
        )
    return text


def split_command(text: str) -> list[str]:
    """The words of a command, quoted as in a shell."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--command: {error}: {text}", hint="close the quotation") from None
    if not words:
        raise InputError("--command is empty", hint="leave it out to run the image's own command")
    return words


def _is_name(text: str) -> bool:
    return text in list_names() or re.fullmatch(r"[a-z0-9][a-z0-9._-]*", text) is not None


def _require_source(source: str, say: Callable[[str], None], dry: bool) -> str:
    found: Image | None = find_imported(source)
    if found is not None:
        say(f"{source} is {found.name} here; `images import` brings in what it is now")
        return found.name
    name = name_source(source)
    if dry:
        raise InputError(
            f"{source} is not imported yet, and --dry-run makes nothing",
            hint=f"images import {source} --name {name}",
        )
    return import_image(source, name, say).name
