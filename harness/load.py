"""Load generators: started on the host against an instance's address, and watched themselves.

A figure is the instance's only as long as the generator could have done more: what CPU it used is
stored with each trial, and a trial in which it used nearly all that it may is marked.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError, TrialError
from harness.process import Timed, run_timed
from harness.workloads import Workload

SATURATED = 0.9
MARK = "generator-saturated"
"""Part of the CPUs that the generator may use, above which it may have been the limit."""

PACKAGES = {
    "wrk": "wrk",
    "redis-benchmark": "redis-tools",
    "iperf3": "iperf3",
    "pgbench": "postgresql",
}
"""What Debian calls the packages of the generators that the harness's own workloads use."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator did: what it printed by stream, and what it used."""

    command: tuple[str, ...]
    printed: Mapping[str, str]
    seconds: float
    cpu: float
    cpus: int

    @property
    def share(self) -> float:
        """CPU time of what it may use; its threads and this process's CPUs are the bounds."""
        return self.cpu / (self.seconds * self.cpus)

    def describe(self) -> dict[str, object]:
        """In JSON types, for a trial's details."""
        return {
            "command": list(self.command),
            "seconds": round(self.seconds, 6),
            "cpu": round(self.cpu, 6),
            "cpus": self.cpus,
            "share": round(self.share, 4),
        }


def build_load(workload: Workload, address: str) -> tuple[str, ...]:
    """The command line of a workload's generator against one instance."""
    known = {"{address}": address, "{port}": workload.port or ""}
    return tuple(_fill_in(word, known) for word in workload.load)


def _fill_in(word: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(name, value)
    return word


def require_generators(workloads: Sequence[Workload]) -> None:
    """Raise HostError for the first workload whose load command is not installed here."""
    for workload in workloads:
        if not workload.load or shutil.which(workload.load[0]) is not None:
            continue
        name = workload.load[0]
        package = PACKAGES.get(Path(name).name)
        remedy = f"install the package {package}" if package else "install it"
        raise HostError(
            f"{workload.name} cannot be loaded: its load generator {name} is not installed",
            hint=f"{remedy}, or leave the workload out",
        )


def run_load(workload: Workload, address: str | None, folder: Path) -> Load:
    """Load an instance until the generator ends; raises TrialError with what it said last.

    ``folder`` keeps what it prints, `load.log` and `load-errors.log`.
    """
    if address is None:
        raise TrialError("the instance has no network to be loaded over")
    command = build_load(workload, address)
    files = {"load": folder / "load.log", "load-errors": folder / "load-errors.log"}
    try:
        timed = run_timed(
            command, timeout=workload.timeout, output=files["load"], errors=files["load-errors"]
        )
    except HostError as error:
        raise TrialError(f"the load generator failed: {error.message}") from error
    printed = {name: path.read_text(errors="replace") for name, path in files.items()}
    if timed.returncode != 0:
        raise TrialError(_describe_failure(command[0], timed, printed))
    cpus = min(workload.load_threads, len(os.sched_getaffinity(0)))
    return Load(command, printed, timed.seconds, timed.cpu, cpus)


def _describe_failure(program: str, timed: Timed, printed: Mapping[str, str]) -> str:
    code = timed.returncode
    end = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    said = [line.strip() for name in ("load-errors", "load")
            for line in printed[name].splitlines()[::-1] if line.strip()]  # fmt: skip
    return f"the load generator {Path(program).name} {end}: {(said or ['it printed nothing'])[0]}"
