"""The registry and the HTTP server of a move: started in the server's network, and their logs."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, TrialError
from harness.moves.link import Host
from harness.probes.request import request_first_answer
from harness.process import run_command, start_service
from harness.starter import read_clock

REGISTRY_PORT = 5000
FILES_PORT = 8000
_START_S = 20.0
_NANOSECONDS = 1_000_000_000
_PUSH_S = 300.0
_SOURCE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Service:
    """A running server: its process, and its log with what it has sent."""

    name: str
    pid: int
    log: Path
    parse: Callable[[str], int]

    def read_sent(self) -> int:
        """Body bytes of all answers to GET so far, as the server itself has logged them."""
        return self.parse(self.log.read_text(errors="replace"))

    def find_fault(self) -> str | None:
        """That the server has ended, if it has."""
        with contextlib.suppress(OSError):
            if Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return None
        return f"the {self.name} has ended"


def build_registry_config(root: Path, address: str) -> str:
    """The registry's configuration; JSON is YAML."""
    document = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root)}},
        "http": {"addr": f"{address}:{REGISTRY_PORT}", "secret": "of one run"},
    }
    return json.dumps(document)


@contextlib.contextmanager
def start_registry(host: Host, folder: Path) -> Iterator[Service]:
    """A registry in ``host``'s network that keeps its blobs in the new folder ``folder``."""
    folder.mkdir()
    config, log = folder / "config.yml", folder / "registry.log"
    config.write_text(build_registry_config(folder / "blobs", host.address))
    argv = host.wrap(["docker-registry", "serve", config])
    with start_service(argv, log, os.environ) as pid:
        service = Service("registry", pid, log, parse_registry_log)
        _wait_until_up(host, REGISTRY_PORT, "/v2/", service)
        yield service


@contextlib.contextmanager
def start_files(host: Host, root: Path, folder: Path) -> Iterator[Service]:
    """An HTTP server for the files below ``root``; its log stands in the new folder ``folder``."""
    folder.mkdir()
    log = folder / "files.log"
    (root / "up").touch()
    program = [sys.executable, "-m", "harness.moves.server"]
    argv = host.wrap([*program, root, host.address, str(FILES_PORT)])
    environment = {**os.environ, "PYTHONPATH": str(_SOURCE)}
    with start_service(argv, log, environment) as pid:
        service = Service("HTTP server", pid, log, parse_files_log)
        _wait_until_up(host, FILES_PORT, "/up", service)
        yield service


def _wait_until_up(host: Host, port: int, path: str, service: Service) -> None:
    deadline = read_clock() + int(_START_S * _NANOSECONDS)
    try:
        with host.enter():
            request_first_answer(host.address, port, path, deadline)
    except TrialError as error:
        lines = service.log.read_text(errors="replace").splitlines()
        reason = lines[-1] if lines else error.message
        raise HostError(f"the {service.name} does not start: {reason}") from error


def parse_registry_log(text: str) -> int:
    """Body bytes of every answer to a GET that the registry completed."""
    found = 0
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            completed = entry.get("msg", "").startswith("response completed")
            if completed and entry.get("http.request.method") == "GET":
                found += int(entry.get("http.response.written", 0))
    return found


def parse_files_log(text: str) -> int:
    """Body bytes of every answer that the HTTP server sent."""
    lines = (line.split(" ", 2) for line in text.splitlines())
    return sum(int(words[1]) for words in lines if len(words) == 3 and words[1].isdigit())


# ---- skopeo ----------------------------------------------------------------------------------


def build_reference(host: Host, tag: str) -> str:
    return f"docker://{host.address}:{REGISTRY_PORT}/site:{tag}"


def build_skopeo_environment(home: Path) -> dict[str, str]:
    """Keep what skopeo remembers of blobs in ``home``: else it would go to the host's /var, and
    one move would know what another one has seen.

    The first variable is how containers/storage tells its children that root is no root.
    """
    return {
        "_CONTAINERS_ROOTLESS_UID": "1",
        "XDG_DATA_HOME": str(home),
        "TMPDIR": str(home.parent),
    }


def push_layout(host: Host, layout: Path, tag: str, home: Path) -> None:
    """Push an OCI layout to the registry, in the server's own network: nothing is shaped there."""
    target = build_reference(host, tag)
    source = f"oci:{layout}:latest"
    argv = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", source, target]
    run_command(host.wrap(argv), timeout=_PUSH_S, env=build_skopeo_environment(home))


def pull_layout(
    client: Host, server: Host, tag: str, layout: Path, home: Path, wait: float
) -> None:
    """Pull into an OCI layout, over the link; blobs that are there are not fetched again."""
    target = f"oci:{layout}:latest"
    source = build_reference(server, tag)
    argv = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", source, target]
    environment = build_skopeo_environment(home)
    done = run_command(client.wrap(argv), timeout=wait, env=environment, check=False)
    if done.returncode != 0:
        raise TrialError(f"skopeo could not pull: {find_skopeo_reason(done.stderr)}")


def find_skopeo_reason(text: str) -> str:
    """Why skopeo failed: the message of the last line that it logged."""
    lines = text.strip().splitlines() or ["it said nothing"]
    found = re.search(r'msg="(.*)"$', lines[-1])
    return found[1].replace('\\"', '"') if found else lines[-1]
