"""The words of METRICS as plain frozen data, shared by the measuring and the analysing half."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SCHEMA_VERSION = 1
"""Version of the result folder (manifest, journal, samples). History: 1, first release."""

Kind = Literal["process", "container", "sandbox", "vm"]
CacheState = Literal["warm", "cold"]

MILESTONES = (
    "request", "created", "started", "loader", "kernel", "initramfs", "system", "init", "exec",
    "ready", "response", "stopped",
)  # fmt: skip
"""Every milestone, in order. Containers have no ``kernel``; few workloads have ``response``.

``started`` is for engines that stand above a runtime: ``created`` is then the engine's word, and
``started`` is when its runtime has built the sandbox. A machine that starts from its disk has
three more, each the first word of the next one in charge: ``loader`` of the boot loader,
``initramfs`` of the distribution's initramfs, ``system`` just before systemd takes over.
"""

STARTUP_MILESTONES = MILESTONES[: MILESTONES.index("ready") + 1]
OPTIONAL_MILESTONES = ("started", "loader", "kernel", "initramfs", "system")
RESIDUAL = "residual"
NO_ACCELERATOR = "none"
UNKNOWN_ACCELERATOR = "unknown"
"""Of what runs on something that cannot be told from here."""

AA_SUFFIX = "#2"
"""A platform entered a second time, as the A/A arm of a run, is named ``namespace#2``."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one metric, in the unit of the metrics table (s, B, count)."""

    metric: str
    value: float
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything one trial left behind: a line of the journal.

    ``status`` is ``ok`` or ``failed``; a failed trial has ``error`` (one line), perhaps ``hint``,
    and no headline measurement. ``marks`` are validity marks, words such as ``emulated`` or
    ``cache-not-warm``. ``milestones`` are host CLOCK_MONOTONIC nanoseconds. ``details`` holds
    evidence in JSON types (residency, steal, KSM state, log file names).
    ``block`` counts from 0; warm-up trials have ``warmup`` true and are left out of statistics.
    """

    block: int
    trial: int
    order: int
    platform: str
    kind: Kind
    accelerator: str
    image: str
    workload: str
    cache: CacheState
    instances: int
    warmup: bool
    started_at: str
    status: Literal["ok", "failed"]
    milestones: Mapping[str, int] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    marks: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    details: Mapping[str, object] = field(default_factory=dict)


SAMPLE_COLUMNS = (
    "run_id",
    "host",
    "block",
    "trial",
    "order",
    "platform",
    "kind",
    "accelerator",
    "image",
    "workload",
    "cache",
    "instances",
    "metric",
    "phase",
    "value",
    "unit",
    "warmup",
    "marks",
    "started_at",
)
"""Columns of samples.parquet, in order (METRICS, «Tidy samples»)."""


def choose_accelerator(before: str, now: str) -> str:
    """What several instances of one trial ran on: an answer that names it stays, whatever a later
    one could not tell."""
    return now if before in (NO_ACCELERATOR, UNKNOWN_ACCELERATOR) else before


def base_platform(platform: str) -> str:
    """The platform behind an A/A arm: ``namespace`` for ``namespace#2``."""
    return platform.removesuffix(AA_SUFFIX)


def build_phases(milestones: Mapping[str, int]) -> dict[str, float]:
    """Split a start into phases, in seconds, that sum to ``ready - request`` exactly.

    ``milestones`` are nanoseconds by name. A phase is named by the milestone it ends at. Where a
    milestone that should lie between is missing or out of order, the span that covers the gap
    cannot be attributed and goes to ``residual``, which is always present. Those of
    OPTIONAL_MILESTONES may be absent as a whole: only some platforms have them.
    """
    absent = {name for name in OPTIONAL_MILESTONES if name not in milestones}
    expected = [name for name in STARTUP_MILESTONES if name not in absent]
    total_ns = milestones["ready"] - milestones["request"]
    phases: dict[str, float] = {}
    attributed_ns = 0
    last_ns, gap = milestones["request"], False
    for name in expected[1:]:
        stamp = milestones.get(name)
        if stamp is None or not last_ns <= stamp <= milestones["ready"]:
            gap = True
            continue
        if not gap:
            phases[name] = (stamp - last_ns) / 1e9
            attributed_ns += stamp - last_ns
        last_ns, gap = stamp, False
    phases[RESIDUAL] = (total_ns - attributed_ns) / 1e9
    return phases
