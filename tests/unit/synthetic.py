"""Result folders made of plausible invented figures, for tests of all that comes after a run."""

import datetime
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

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

Value = TypeVar("Value")

_MIB = 1 << 20
_START = datetime.datetime(2025, 3, 14, 9, 26, 53, tzinfo=datetime.UTC)

KINDS: Mapping[str, Kind] = {
    "process": "process",
    "namespace": "container",
    "crun": "container",
    "gvisor": "sandbox",
    "vm-direct": "vm",
    "vm-microvm": "vm",
    "vm-disk": "vm",
    "vm-restore": "vm",
}

MACHINES = (
    "vm-direct", "vm-direct/tuned", "vm-direct/disk=erofs/upper=tmpfs", "vm-microvm",
    "vm-microvm/tuned", "vm-disk", "vm-disk/uefi", "vm-restore",
)  # fmt: skip
"""Virtual machines in all their variety; each starts about as its base does."""

STARTS: Mapping[str, Mapping[str, float]] = {
    "process": {"created": 0.0004, "init": 0.0003, "exec": 0.0002, "ready": 0.0005},
    "namespace": {"created": 0.0011, "init": 0.0007, "exec": 0.0002, "ready": 0.0006},
    "crun": {"created": 0.0061, "init": 0.0017, "exec": 0.0002, "ready": 0.0007},
    "gvisor": {"created": 0.0700, "init": 0.0380, "exec": 0.0010, "ready": 0.0030},
    "vm-direct": {"created": 0.36, "kernel": 0.21, "init": 1.62, "exec": 0.09, "ready": 0.011},
    "vm-microvm": {"created": 0.33, "kernel": 0.10, "init": 1.05, "exec": 0.08, "ready": 0.011},
    "vm-disk": {
        "created": 0.38,
        "loader": 0.51,
        "kernel": 0.22,
        "initramfs": 4.1,
        "system": 2.4,
        "init": 7.6,
        "exec": 0.11,
        "ready": 0.012,
    },
    "vm-restore": {"created": 0.35, "init": 0.31, "exec": 0.004, "ready": 0.011},
}
"""Seconds from milestone to milestone, before noise."""

MEMORY: Mapping[str, tuple[float, float]] = {
    "process": (0.35, 0.0),
    "namespace": (0.41, 0.06),
    "crun": (0.45, 0.1),
    "gvisor": (21.0, 20.0),
    "vm-direct": (204.0, 168.0),
    "vm-microvm": (171.0, 138.0),
    "vm-disk": (340.0, 180.0),
    "vm-restore": (190.0, 150.0),
}
"""MiB of PSS, and of it what is overhead."""

IMAGE = {"tree": 16.4, "oci-gzip": 7.1, "oci-zstd": 6.4, "ext4-raw": 76.0, "qcow2": 19.2,
         "disk-raw": 980.0, "disk-qcow2": 138.0, "disk-raw-zstd": 118.0, "snapshot": 92.0,
         "erofs": 9.1,
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
    hardware: Collection[str] = ()
    """Machines that run on KVM whatever ``accelerator`` says."""
    told: bool = False
    """Whether machines tell of tunings, proofs, extra packages, their stop and their own view."""

    def find_accelerator(self, platform: str) -> str:
        if self.find_kind(platform) != "vm":
            return "none"
        return "kvm" if platform in self.hardware else self.accelerator

    def find_kind(self, platform: str) -> Kind:
        return self.kinds.get(platform) or KINDS.get(find_base(platform), "container")

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


READY = {"noop": "exit", "sysbench-cpu": "exit", "httpd": "tcp:8080"}
"""When a workload is ready, as a real plan has it in its manifest."""


def write_with_readiness(folder: Path, plan: Synthetic, daemons: Mapping[str, float]) -> Path:
    """A run whose manifest says when each workload is ready; ``daemons`` are the bytes of those
    platforms' engines."""
    manifest = build_manifest(plan)
    words = [{"name": name, "ready": READY[name]} for name in plan.workloads]
    manifest["plan"] = {**cast(dict[str, object], manifest["plan"]), "workloads": words}
    with Store.create(folder, manifest) as store:
        for each in build_outcomes(plan):
            size = daemons.get(base_platform(each.platform))
            more = () if size is None else (Measurement("memory.daemon", size),)
            store.append(replace(each, measurements=(*each.measurements, *more)))
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
    kind = plan.find_kind(platform)
    accelerator = plan.find_accelerator(platform)
    failed = (arm, workload) in plan.failing or trial in plan.failed_trials
    marks = plan.marks.get(trial, ()) + (("emulated",) if accelerator == "tcg" else ())
    milestones = _build_milestones(chance, plan.spread, platform, workload)
    rows = [] if failed else _build_rows(chance, platform, kind, workload, milestones)
    if plan.told and kind == "vm" and not failed:
        rows += _build_stop(chance, milestones, trial)
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
        details=_build_details(plan, platform, trial, failed),
    )


def _build_details(plan: Synthetic, platform: str, trial: int, failed: bool) -> dict[str, object]:
    if failed:
        return {"logs": [f"logs/trial-{trial}/console.log"]}
    if not plan.told or find_base(platform) != "vm-disk":
        return {}
    stamps = {"kernel": 4.2, "initrd": 2.5, "userspace": 8.0 + trial / 1000, "finish": 14.7}
    return {"seen_by_guest": {"systemd": {"timestamps": stamps, "blame": [["1.2s", "x.service"]]}}}


def _build_stop(
    chance: random.Random, milestones: Mapping[str, int], trial: int
) -> list[Measurement]:
    """A stop whose phases sum to the row `startup.stopped`; every fifth was by force."""
    total = (milestones["ready"] - milestones["request"]) / 1e9 * 0.3
    parts = {"end": total * 0.4, "libvirt": total * chance.uniform(0.1, 0.2)}
    if trial % 5 == 0:
        parts["destroy"] = total * 0.3
    parts["residual"] = total - sum(parts.values())
    return [Measurement("startup.stop_phase", value, name) for name, value in parts.items()]


def find_base(platform: str) -> str:
    return base_platform(platform).partition("/")[0]


def _build_milestones(
    chance: random.Random, spread: float, platform: str, workload: str
) -> dict[str, int]:
    now = 1_000_000_000_000
    milestones = {"request": now}
    for name, seconds in _find(STARTS, platform).items():
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
    return rows + _build_memory(chance, platform, kind, workload) + _build_sizes(platform, kind)


def _build_memory(
    chance: random.Random, platform: str, kind: Kind, workload: str
) -> list[Measurement]:
    pss, overhead = _find(MEMORY, platform)
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


def _find(table: Mapping[str, Value], platform: str) -> Value:
    known = table.get(platform) or table.get(find_base(platform))
    return known or table["namespace"]


def _build_sizes(platform: str, kind: Kind) -> list[Measurement]:
    used: str = "tree"
    travelling: tuple[str, ...] = ("oci-gzip", "oci-zstd")
    if kind == "vm":
        used, travelling = ("ext4-raw", ("qcow2", "raw-zstd"))
    if find_base(platform) == "vm-disk":
        used, travelling = ("disk-raw", ("disk-qcow2", "disk-raw-zstd"))
    if "erofs" in platform:
        used, travelling = ("erofs", ("erofs",))
    if platform == "vm-restore":
        used, travelling = ("snapshot", ("snapshot",))
    sizes = {name: round(IMAGE[name] * _MIB) for name in (used, *travelling)}
    rows = []
    for name in dict.fromkeys((used, *travelling)):
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
        "platforms": {
            name: {"kind": plan.find_kind(name), **_build_start(plan, name)}
            for name in plan.platforms
        },
        "channel": {
            name: {"median_round_trip": 4e-4 if name.startswith("vm") else 3e-5, "count": 15}
            for name in plan.arms
        },
        "noise": ["frequency scaling cannot be read on this host"],
        "left_out": [],
    }


def _build_start(plan: Synthetic, platform: str) -> dict[str, object]:
    """What a machine's driver says of its start; nothing for others, and where machines are mum."""
    if not plan.told or plan.find_kind(platform) != "vm":
        return {}
    name = plan.find_accelerator(platform)
    proofs = {
        "kvm": "KVM booted the guest kernel in 0.4 s",
        "tcg": "KVM did not boot the guest kernel within 20 s",
    }
    start: dict[str, object] = {"accelerator": name, "accelerator_reason": proofs[name]}
    if platform.endswith("/tuned"):
        start["tuning"] = build_tuning()
    if find_base(platform) == "vm-disk":
        start["system"] = {
            "packages": [
                {"name": f"package-{number}", "version": f"1.{number}-2", "bytes": 90_000 * number}
                for number in range(1, 48)
            ],
            "bytes": 101_520_000,
            "changed": ["/etc/fstab", "/etc/machine-id", "/sbin/init"],
        }
    return {"start": start}


def build_tuning() -> list[dict[str, object]]:
    return [
        {"item": "cpu-model", "setting": "host-passthrough", "applied": True, "why_not": None,
         "reason": "The guest may use every instruction that the host's processor has."},
        {"item": "huge-pages", "setting": "2 MiB", "applied": False,
         "why_not": "the host has no huge pages",
         "reason": "Fewer misses in the TLB when the guest's memory is walked twice."},
    ]  # fmt: skip
