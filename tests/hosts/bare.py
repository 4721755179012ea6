"""A visit to a bare root: the project's commands as a new user types them, on a new system."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.images.workshop import start_work
from harness.process import run_command
from tests.hosts.findings import Finding, read_findings
from tests.hosts.roots import Release, copy_root, hosts_dir, require_root, run_in

PROJECT = "/root/project"
FIRST_COMMAND = ("make", "run", "RUN=--quick")

_ROOT = Path(__file__).resolve().parents[2]
_COMMAND_S = 2400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command on a host ended with, printed, and took (seconds)."""

    code: int
    output: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Visit:
    """A fresh root with a clone of the project in it."""

    release: Release
    root: Path

    @property
    def host(self) -> str:
        return f"{self.release.name}, bare root"

    @property
    def project(self) -> Path:
        return self.root / PROJECT[1:]

    def type(self, *argv: str, timeout: float = _COMMAND_S, env: Mapping[str, str] = {}) -> Answer:
        """Run a command in the project's folder."""
        begun = time.monotonic()
        code, output = run_in(self.root, argv, timeout=timeout, folder=PROJECT, env=env)
        return Answer(code, output, time.monotonic() - begun)

    def read_findings(self) -> list[Finding]:
        """Of the newest run in the project's results."""
        return read_findings(self.host, find_newest(self.project / "results"))


@contextlib.contextmanager
def start_visit(release: Release) -> Iterator[Visit]:
    """A copy of a bare root with a clone of this checkout's last commit; gone on exit."""
    base = require_root(release)
    with start_work(hosts_dir() / "visits", print) as folder:
        visit = Visit(release, copy_root(base, folder / "root"))
        clone = ["git", "clone", "-q", "--no-hardlinks", str(_ROOT), str(visit.project)]
        run_command(clone, timeout=120)
        yield visit


def find_newest(results: Path) -> Path:
    """The folder of the run that began last: their names are times."""
    runs = [path.parent for path in results.glob("2*/manifest.json")]
    if not runs:
        raise HostError(f"there is no run in {results.name}")
    return max(runs, key=lambda path: path.name)
