"""The one door to the Docker SDK: a daemon's address, its errors in one line, images in and out."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, HostError, TrialError
from harness.images.model import Image
from harness.images.oci import write_archive

DEFAULT_HOST = "unix:///var/run/docker.sock"
LABEL = "harness.run"
_CALL_S = 60
_ASK_S = 5


def find_host(given: str | None) -> str:
    """The daemon's address: as given, else ``DOCKER_HOST``, else the usual socket."""
    return given or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def is_named(given: str | None) -> bool:
    """Whether somebody said which daemon it is to be."""
    return bool(given or os.environ.get("DOCKER_HOST"))


def find_daemon_fault(host: str) -> tuple[str, str] | None:
    """Why no daemon answers at ``host``, and the remedy; None if one does.

    A run has a network of its own, and its instances' channel is a folder of this host: so a
    daemon that is reached by TCP or SSH is of no use.
    """
    path = host.removeprefix("unix://")
    if path == host or not path.startswith("/"):
        return (
            f"the Docker daemon at {host} cannot be used: a run reaches a Unix socket only",
            "name it as unix:///PATH, or let a run start its own daemon: --start-engines",
        )
    if fault := _find_socket_fault(path):
        return fault
    try:
        with open_api(host, timeout=_ASK_S) as api:
            api.ping()
    except HarnessError as error:
        return error.message, "start the daemon, or let a run start its own: --start-engines"
    return None


def _find_socket_fault(path: str) -> tuple[str, str] | None:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    except PermissionError:
        return (
            f"this user may not use {path}",
            "become a member of the group docker, or run the harness as root",
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return (
            f"no Docker daemon answers at {path} ({reason})",
            "start it, or let a run start its own: --start-engines",
        )
    return None


def find_runtime_fault(host: str, runtime: str) -> str | None:
    """Why a running daemon cannot use a runtime by this name, and the remedy; None if it can."""
    try:
        with open_api(host, timeout=_ASK_S) as api:
            known = api.info()["Runtimes"]
    except HarnessError as error:
        return error.message
    if runtime in known:
        return None
    return (
        f"the Docker daemon at {host} knows no runtime {runtime}: "
        "add it to the daemon's configuration"
    )


def read_cgroup_driver(host: str) -> str:
    """Who makes the groups of a daemon's containers: ``cgroupfs`` or ``systemd``."""
    with open_api(host, timeout=_ASK_S) as api:
        return str(api.info()["CgroupDriver"])


@contextlib.contextmanager
def open_api(host: str, timeout: int = _CALL_S) -> Iterator[Any]:
    """A client with a connection that is kept; raises HostError where the SDK has no answer."""
    import docker

    with translated(HostError):
        api = docker.APIClient(base_url=host, timeout=timeout)
    try:
        with translated(HostError):
            yield api
    finally:
        api.close()


@contextlib.contextmanager
def translated(kind: type[HarnessError] = TrialError) -> Iterator[None]:
    """The SDK's errors as one line of the harness's own."""
    import requests
    from docker import errors

    try:
        yield
    except errors.APIError as error:
        raise kind(f"Docker: {_describe(error)}", hint=_advise(error)) from error
    except (errors.DockerException, requests.RequestException) as error:
        raise kind(f"the Docker daemon does not answer: {_find_cause(error)}") from error


def _describe(error: Any) -> str:
    text = str(error.explanation or error).strip()
    return " ".join(text.split())[:300]


def _advise(error: Any) -> str | None:
    if error.status_code == 409:
        return "the other container is left as it is; rename or remove it"
    if "runtime" in _describe(error).lower() and error.status_code == 400:
        return "add the runtime to the daemon's configuration, or use --start-engines"
    return None


def _find_cause(error: BaseException) -> str:
    """The innermost reason: the SDK wraps what the socket said several times."""
    text = str(error)
    return " ".join(text.split())[-160:]


# ---- images ----------------------------------------------------------------------------------


def build_reference(image: Image, run_id: str) -> str:
    """The name under which a run loads an image; it says whose it is."""
    return f"harness/{image.name}:{run_id or 'none'}"


def load_image(api: Any, image: Image, run_id: str, folder: Path) -> None:
    """Load an image's OCI layout into the daemon, under the run's own name."""
    archive = folder / f"{image.name}.tar"
    reference = build_reference(image, run_id)
    write_archive(image.packings["oci-gzip"].path, reference, archive)
    try:
        with archive.open("rb") as file:
            for answer in api.load_image(file):
                if "error" in answer:
                    raise HostError(f"Docker cannot load {image.name}: {answer['error']}")
    finally:
        archive.unlink()


def remove_run(host: str, run_id: str) -> list[str]:
    """Remove a run's containers and image names from a daemon; a line for each thing.

    Its label and its names decide: nothing else is touched.
    """
    said = []
    try:
        with open_api(host, timeout=_ASK_S) as api:
            for each in api.containers(all=True, filters={"label": f"{LABEL}={run_id}"}):
                api.remove_container(each["Id"], force=True, v=True)
                said.append(f"removed container {each['Id'][:12]}")
            for image in api.images(filters={"reference": f"harness/*:{run_id}"}):
                for name in image["RepoTags"] or ():
                    if name.startswith("harness/") and name.endswith(f":{run_id}"):
                        api.remove_image(name)
                        said.append(f"removed image {name}")
    except HarnessError as error:
        said.append(f"could not remove containers of {run_id}: {error.message}")
    return said


# ---- the end of a container, as an event -----------------------------------------------------


@dataclass(slots=True)
class EndWatch:
    """``wake`` becomes readable when the container has died or the daemon has gone."""

    wake: int


@contextlib.contextmanager
def start_end_watch(host: str, name: str) -> Iterator[EndWatch]:
    """Follow the daemon's event stream for one container, from before it exists.

    The daemon takes the name in its filter for the beginning of one: it is compared once more.
    """
    read_end, write_end = os.pipe()
    watch = EndWatch(read_end)
    with open_api(host) as api:
        filters = {"type": "container", "event": "die", "container": name}
        stream = api.events(decode=True, filters=filters)

        def follow() -> None:
            with contextlib.suppress(Exception):
                for event in stream:
                    if event["Actor"]["Attributes"].get("name") == name:
                        break
            with contextlib.suppress(OSError):
                os.write(write_end, b"e")

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield watch
        finally:
            with contextlib.suppress(Exception):
                stream.close()
            thread.join(timeout=2)
            os.close(read_end)
            os.close(write_end)
