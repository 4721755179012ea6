"""Whether each limit holds: what was asked, what the workload could take, and what the host saw.

A limit holds only where something went against it and was stopped; what never came near it is
``not reached``, what was never set is ``not set``, and what the host's reserve forbids is ``not
tried``, with the reason.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from harness.isolation.model import MIB, Hog, Limits, Report
from harness.model import Kind

Verdict = Literal["holds", "does not hold", "not reached", "not set", "not tried", "not told"]
KINDS = ("cpu", "write", "processes", "disk", "memory")
"""In the order in which they are tried: a sandbox may end with the last."""

CPU_TOLERANCE = 1.1
"""A quota is kept per period of 100 ms, so a second may see a little more than its share."""

RATE_TOLERANCE = 1.15
_NEAR = 0.75
_CPU_S = 1.0
_WRITE_S = 2
_LOG_MOST = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One limit on one platform. Amounts are in the limit's own unit: cores, bytes per second,
    processes or bytes; ``inside`` and ``outside`` are None where nothing could be seen there."""

    limit: str
    asked: float
    inside: float | None
    outside: float | None
    verdict: Verdict
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one limit once its hog has ended: its report (None if the instance ended
    with it), what happened on the host meanwhile, the limit as the host has it, why it was not set
    or not tried, how the instance ended, and what the kernel wrote of it."""

    report: Report | None
    host: Mapping[str, float] | None
    outside: float | None
    refused: str | None = None
    kept_back: str | None = None
    gone: str | None = None
    log: tuple[str, ...] = ()


def build_hogs(limits: Limits, cpus: int) -> tuple[Hog, ...]:
    """Hogs that go against every limit, each bounded at about twice of it."""
    return (
        Hog("cpu", cpus + 1, _CPU_S),
        Hog("write", max(1, _WRITE_S * limits.write // MIB)),
        Hog("processes", 2 * limits.processes),
        Hog("disk", 2 * limits.disk // MIB),
        Hog("memory", 2 * limits.memory // MIB),
    )


def judge(hog: Hog, limits: Limits, seen: Seen, kind: Kind, cpus: int) -> Finding:
    """The finding of one limit; ``cpus`` are the host's."""
    asked = find_asked(hog.kind, limits)
    inside = measure_inside(hog.kind, seen.report)
    verdict = (
        "not tried" if seen.kept_back
        else "not set" if seen.refused and hog.kind in ("write", "disk", "processes")
        else _judge_cpu(asked, inside, seen, kind, cpus) if hog.kind == "cpu"
        else _judge_rate(asked, inside, seen) if hog.kind == "write"
        else _judge_amount(hog, asked, inside, seen, kind)
    )  # fmt: skip
    return Finding(hog.kind, asked, inside, seen.outside, verdict, build_lines(hog, seen))


def find_asked(kind: str, limits: Limits) -> float:
    """The amount that was asked for a limit, in its own unit."""
    asked = {
        "cpu": limits.cpus, "write": limits.write, "processes": limits.processes,
        "disk": limits.disk, "memory": limits.memory,
    }  # fmt: skip
    return float(asked[kind])


def measure_inside(kind: str, report: Report | None) -> float | None:
    """What the workload got, in the limit's own unit."""
    if report is None:
        return None
    if kind == "cpu":
        return report.most / 1000 / max(report.seconds, 1e-3)
    if kind == "write":
        return report.most * MIB / max(report.seconds, 1e-3)
    return float(report.most if kind == "processes" else report.most * MIB)


def _judge_cpu(asked: float, inside: float | None, seen: Seen, kind: Kind, cpus: int) -> Verdict:
    """By the host's account, which no sandbox can distort; a guest's CPUs by the guest's own,
    since its QEMU also works for its devices."""
    host = seen.host
    share = inside
    if host and host["seconds"] > 0 and host["cpu_seconds"] > 0 and kind != "vm":
        share = host["cpu_seconds"] / host["seconds"]
    if share is None:
        return "not told"
    if share > CPU_TOLERANCE * asked:
        return "does not hold"
    stopped = kind == "vm" or bool(host and host["throttled"])
    return "holds" if stopped and cpus > asked else "not reached"


def _judge_rate(asked: float, inside: float | None, seen: Seen) -> Verdict:
    if inside is None or (seen.report and seen.report.most == 0):
        return "not told"  # a file system may refuse to go past the page cache
    if inside > RATE_TOLERANCE * asked:
        return "does not hold"
    return "holds" if inside > asked / 2 else "not reached"


def _judge_amount(hog: Hog, asked: float, inside: float | None, seen: Seen, kind: Kind) -> Verdict:
    if inside is None:
        counter = {"memory": "kills", "processes": "refused_forks"}.get(hog.kind, "")
        return "holds" if seen.host and seen.host.get(counter) else "not told"
    if inside > asked:
        return "does not hold"
    # a guest's kernel, which is small, may have stopped it far below by a limit of its own
    own = hog.kind == "processes" and kind == "vm" and inside < _NEAR * asked
    return "not reached" if own or (seen.report and seen.report.end == "bound") else "holds"


def build_lines(hog: Hog, seen: Seen) -> tuple[str, ...]:
    """The raw words behind a finding."""
    lines = [f"asked the agent: {hog.word}"]
    if seen.report:
        lines.append(f"inside: {asdict(seen.report)}")
    if seen.gone:
        lines.append(f"the instance ended: {seen.gone}")
    lines += [f"kernel log: {line}" for line in seen.log[:_LOG_MOST]]
    if seen.host:
        lines.append("outside: " + ", ".join(f"{key} {each:g}" for key, each in seen.host.items()))
    if seen.kept_back:
        lines.append(f"not tried: {seen.kept_back}")
    if seen.refused:
        lines.append(f"not set: {seen.refused}")
    return tuple(lines)
