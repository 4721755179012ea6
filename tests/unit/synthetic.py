"""Result folders made of plausible invented figures, for tests of all that comes after a run."""

import datetime
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.model import (
    AA_SUFFIX,
    CacheState,
    Kind,
    Measurement,
    Outcome,
    base_platform,
    build_phases,
)
from harness.store import Store, write_samples

_MIB = 1 << 20
_START = datetime.datetime(2025, 3, 14, 9, 26, 53, tzinfo=datetime.UTC)

KINDS: Mapping[str, Kind] = {
    "process": "process",
    "namespace": "container",
    "crun": "container",
    "gvisor": "sandbox",
    "vm-direct": "vm",
    "vm-microvm": "vm",
}

STARTS: Mapping[str, Mapping[str, float]] = {
    "process": {"created": 0.0004, "init": 0.0003, "exec": 0.0002, "ready": 0.0005},
    "namespace": {"created": 0.0011, "init": 0.0007, "exec": 0.0002, "ready": 0.0006},
    "crun": {"created": 0.0061, "init": 0.0017, "exec": 0.0002, "ready": 0.0007},
    "gvisor": {"created": 0.0700, "init": 0.0380, "exec": 0.0010, "ready": 0.0030},
    "vm-direct": {"created": 0.36, "kernel": 0.21, "init": 1.62, "exec": 0.09, "ready": 0.011},
    "vm-microvm": {"created": 0.33, "kernel": 0.10, "init": 1.05, "exec": 0.08, "ready": 0.011},
}
"""Seconds from milestone to milestone, before noise."""

MEMORY: Mapping[str, tuple[float, float]] = {
    "process": (0.35, 0.0),
    "namespace": (0.41, 0.06),
    "crun": (0.45, 0.1),
    "gvisor": (21.0, 20.0),
    "vm-direct": (204.0, 168.0),
    "vm-microvm": (171.0, 138.0),
}
"""MiB of PSS, and of it what is overhead."""

IMAGE = {"tree": 16.4, "oci-gzip": 7.1, "oci-zstd": 6.4, "ext4-raw": 76.0, "qcow2": 19.2,
         "raw-zstd": 16.9}  # fmt: skip
"""MiB of an image by packing, a guest's kernel included."""


@dataclass(frozen=True)
class Synthetic:
    """What to invent. ``failing`` are (platform, workload) pairs whose every trial fails."""

    platforms: Sequence[str] = ("process", "namespace", "vm-direct", "vm-microvm")
    aa: Sequence[str] = ("namespace",)
    workloads: Sequence[str] = ("noop", "httpd")
    blocks: int = 10
    seed: int = 1
    cache: CacheState = "warm"
    accelerator: str = "tcg"
    failing: Collection[tuple[str, str]] = ()
    failed_trials: Collection[int] = ()
    marks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    leave_out: Collection[str] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    spread: float = 0.03

    @property
    def arms(self) -> list[str]:
        return [*self.platforms, *(name + AA_SUFFIX for name in self.aa)]


def write_run(folder: Path, plan: Synthetic | None = None) -> Path:
    """A whole result folder: manifest, journal, samples."""
    plan = plan or Synthetic()
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in build_outcomes(plan):
            store.append(outcome)
    write_samples(folder)
    return folder


def build_outcomes(plan: Synthetic) -> Iterator[Outcome]:
    """One warm-up block, then ``plan.blocks``, each in an order of its own."""
    chance = random.Random(plan.seed)
    trial = 0
    for block in range(plan.blocks + 1):
        arms = [(arm, workload) for arm in plan.arms for workload in plan.workloads]
        chance.shuffle(arms)
        for order, (arm, workload) in enumerate(arms):
            yield _build_outcome(plan, chance, block, trial, order, arm, workload)
            trial += 1


def _build_outcome(
    plan: Synthetic,
    chance: random.Random,
    block: int,
    trial: int,
    order: int,
    arm: str,
    workload: str,
) -> Outcome:
    platform = base_platform(arm)
    kind = plan.kinds.get(platform) or KINDS.get(platform, "container")
    accelerator = plan.accelerator if kind == "vm" else "none"
    failed = (arm, workload) in plan.failing or trial in plan.failed_trials
    marks = plan.marks.get(trial, ()) + (("emulated",) if accelerator == "tcg" else ())
    milestones = _build_milestones(chance, plan.spread, platform, workload)
    rows = [] if failed else _build_rows(chance, platform, kind, workload, milestones)
    return Outcome(
        block=block,
        trial=trial,
        order=order,
        platform=arm,
        kind=kind,
        accelerator=accelerator,
        image="tiny",
        workload=workload,
        cache=plan.cache,
        instances=1,
        warmup=block == 0,
        started_at=(_START + datetime.timedelta(seconds=1.9 * trial)).isoformat(),
        status="failed" if failed else "ok",
        milestones={"request": 0} if failed else milestones,
        measurements=tuple(row for row in rows if row.metric not in plan.leave_out),
        marks=marks,
        error=f"{workload} on {arm} was not ready within 60 s" if failed else None,
        hint="raise `timeout` in the workload, or read the log" if failed else None,
        details={"logs": [f"logs/trial-{trial}/console.log"]} if failed else {},
    )


def _build_milestones(
    chance: random.Random, spread: float, platform: str, workload: str
) -> dict[str, int]:
    now = 1_000_000_000_000
    milestones = {"request": now}
    for name, seconds in STARTS.get(platform, STARTS["namespace"]).items():
        extra = 0.0021 if workload == "httpd" and name == "ready" else 0.0
        now += round((seconds + extra) * chance.lognormvariate(0, spread) * 1e9)
        milestones[name] = now
    if workload == "httpd":
        milestones["response"] = now + round(0.0013 * chance.lognormvariate(0, 0.1) * 1e9)
    return milestones


def _build_rows(
    chance: random.Random,
    platform: str,
    kind: Kind,
    workload: str,
    milestones: Mapping[str, int],
) -> list[Measurement]:
    total = (milestones["ready"] - milestones["request"]) / 1e9
    rows = [Measurement("startup.ready", total)]
    phases = build_phases(milestones)
    if "response" in milestones:
        rows.append(
            Measurement("startup.response", (milestones["response"] - milestones["request"]) / 1e9)
        )
        phases["response"] = (milestones["response"] - milestones["ready"]) / 1e9
    rows += [Measurement("startup.phase", value, name) for name, value in phases.items()]
    rows += [
        Measurement("startup.cpu", total * 0.8),
        Measurement("startup.cpu", total * 0.6, "user"),
        Measurement("startup.cpu", total * 0.2, "system"),
        Measurement("startup.stopped", total * 0.3),
        Measurement("channel.round_trip", 4e-4 if kind == "vm" else 3e-5),
    ]
    return rows + _build_memory(chance, platform, kind, workload) + _build_sizes(kind)


def _build_memory(
    chance: random.Random, platform: str, kind: Kind, workload: str
) -> list[Measurement]:
    pss, overhead = MEMORY.get(platform, MEMORY["namespace"])
    pss *= chance.lognormvariate(0, 0.01) * (1.05 if workload == "httpd" else 1.0)
    rows = [
        Measurement("memory.pss", pss * _MIB),
        Measurement("memory.overhead", overhead * _MIB),
        Measurement("memory.cgroup", pss * 1.08 * _MIB),
        Measurement("memory.cgroup", pss * 0.7 * _MIB, "anon"),
        Measurement("memory.cgroup", pss * 0.3 * _MIB, "file"),
        Measurement("memory.cgroup", pss * 0.08 * _MIB, "kernel"),
        Measurement("memory.cgroup", pss * 1.2 * _MIB, "peak"),
        Measurement("memory.host_delta", (pss + chance.gauss(0, 2)) * _MIB),
    ]
    if kind == "vm":
        rows.append(Measurement("memory.guest_used", (pss - overhead) * _MIB))
    return rows


def _build_sizes(kind: Kind) -> list[Measurement]:
    used, travelling = ("tree", ("oci-gzip", "oci-zstd"))
    if kind == "vm":
        used, travelling = ("ext4-raw", ("qcow2", "raw-zstd"))
    sizes = {name: round(IMAGE[name] * _MIB) for name in (used, *travelling)}
    rows = []
    for name in (used, *travelling):
        rows.append(Measurement("disk.image_apparent", sizes[name] + 512, name))
        rows.append(Measurement("disk.image_allocated", sizes[name], name))
    if kind == "vm":
        rows.append(Measurement("disk.image_virtual", 512 * _MIB, used))
    rows += [Measurement("portability.first", sizes[name], name) for name in travelling]
    return [
        *rows,
        Measurement("portability.first", min(sizes[name] for name in travelling)),
        Measurement("disk.image_apparent", sizes[used] + 512),
        Measurement("disk.image_allocated", sizes[used]),
        Measurement("disk.instance_growth", 196_608 if kind == "vm" else 0),
        Measurement("disk.reclaimed", 200_704 if kind == "vm" else 4096),
    ]


def build_series(per_instance: float, steps: int) -> list[Outcome]:
    """A density series on a host with 20 GB available, with a little noise."""
    first = next(build_outcomes(Synthetic(workloads=("noop",))))
    return [
        replace(
            first,
            trial=1000 + number,
            block=0,
            platform="vm-direct",
            kind="vm",
            accelerator="tcg" if number else "none",
            instances=number,
            warmup=False,
            measurements=(
                Measurement("memory.available", 20e9 - per_instance * number + 1e5 * (number % 3)),
            ),
        )
        for number in range(steps)
    ]


def build_manifest(plan: Synthetic) -> dict[str, object]:
    """A manifest with every key a report may use."""
    return {
        "run_id": "20250314-092653-a1b2",
        "created_at": _START.isoformat(),
        "harness_version": "0.1.0",
        "command": ["python", "-m", "harness", "run", "--blocks", str(plan.blocks), "--seed", "1"],
        "plan": {
            "platforms": list(plan.platforms),
            "workloads": list(plan.workloads),
            "blocks": plan.blocks,
            "seed": plan.seed,
            "cache": plan.cache,
            "aa": list(plan.aa),
            "settle": 0.2,
        },
        "host": {
            "name": "bench-1",
            "cpu": "AMD EPYC 7763 64-Core Processor",
            "cores": 2,
            "memory": 24 << 30,
            "kernel": "6.18.5",
            "os": "Debian GNU/Linux 12 (bookworm)",
            "virtualized": "kvm",
        },
        "tools": {"qemu": "7.2.22", "libvirt": "9.0.0", "python": "3.11.2"},
        "images": {
            "tiny": {
                "digest": "sha256:" + "5f" * 32,
                "packings": {
                    name: {"apparent": round(size * _MIB), "allocated": round(size * _MIB)}
                    for name, size in IMAGE.items()
                },
            }
        },
        "guest_kernel": {"release": "6.1.0-42-cloud-amd64", "digest": "sha256:" + "c4" * 32},
        "accelerator": {
            "name": plan.accelerator,
            "proof": None,
            "reason": "KVM did not boot the guest kernel within 20 s",
        },
        "platforms": {name: {"kind": KINDS.get(name, "container")} for name in plan.platforms},
        "channel": {
            name: {"median_round_trip": 4e-4 if name.startswith("vm") else 3e-5, "count": 15}
            for name in plan.arms
        },
        "noise": ["frequency scaling cannot be read on this host"],
        "left_out": [],
    }
