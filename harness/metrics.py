"""The table of metrics: what each is called, its unit, which way is better, and how it is got.

The command line (`list metrics`), the report and the documentation all read this table.
Names and definitions follow METRICS; a method is part of a metric's name, and two methods are
never compared with each other.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "B", "count", "1/s", "B/s"]
Area = Literal[
    "startup", "memory", "disk", "portability", "rebuild", "efficiency", "channel", "isolation"
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``unit`` is SI; ``lower_is_better`` is None where neither way is."""

    name: str
    area: Area
    unit: Unit
    lower_is_better: bool | None
    headline: bool
    definition: str
    method: str


_TABLE = (
    Metric("startup.ready", "startup", "s", True, True,
           "From the request until the workload's readiness condition holds",
           "host CLOCK_MONOTONIC at the arrival of each milestone"),
    Metric("startup.response", "startup", "s", True, True,
           "From the request until the first successful answer over the network",
           "a request from the host through the bridge, sent when `ready` arrived"),
    Metric("startup.phase", "startup", "s", True, False,
           "Time between neighbouring milestones; a phase is named by the milestone it ends at",
           "differences of milestones; what cannot be attributed is `residual`"),
    Metric("startup.stopped", "startup", "s", True, False,
           "From the request to stop until no process, mount, cgroup or domain is left",
           "host CLOCK_MONOTONIC around the driver's teardown"),
    Metric("startup.stop_phase", "startup", "s", True, False,
           "What a machine's stop is made of: phase `end` until the guest has ended, `libvirt` for "
           "the clean-up after it, `destroy` for waiting where it had to be ended by force",
           "host CLOCK_MONOTONIC; the phases and `residual` sum to startup.stopped"),
    Metric("startup.cpu", "startup", "s", True, False,
           "Host CPU time used up to `ready` by every process that serves the instance",
           "the instance's cgroup, else its processes' CPU clocks; phases user and "
           "system, and daemon for the share of an engine's daemons"),
    Metric("memory.pss", "memory", "B", True, True,
           "Proportional set size of every host process that serves the instance: shim, conmon, "
           "sentry and gofer too, daemons apart; where `ready` is the end of the workload, of what "
           "is left without it",
           "sum of /proc/PID/smaps_rollup at the settled point"),
    Metric("memory.cgroup", "memory", "B", True, False,
           "What the instance's cgroup is charged; phases anon, file, kernel and peak",
           "memory controller, cgroup v1 or v2, at the settled point"),
    Metric("memory.guest_used", "memory", "B", True, False,
           "Memory in use as seen from inside a virtual machine",
           "MemTotal minus MemAvailable, asked of the agent at the settled point"),
    Metric("memory.overhead", "memory", "B", True, False,
           "What the host pays beyond the instance's own use: PSS minus guest_used for a VM, "
           "PSS of the helper processes for a container",
           "derived from memory.pss and memory.guest_used of the same trial"),
    Metric("memory.daemon", "memory", "B", True, False,
           "Proportional set size of the engine's daemons: one fixed cost, whatever the number of "
           "instances, and not part of memory.pss",
           "sum of /proc/PID/smaps_rollup at the settled point"),
    Metric("memory.host_delta", "memory", "B", True, False,
           "Fall of the host's MemAvailable from before the start to the settled point",
           "/proc/meminfo of the host; other load on the host is part of it"),
    Metric("memory.marginal", "memory", "B", True, True,
           "What one more running instance costs the host",
           "slope of MemAvailable over running instances (Theil-Sen), with an interval from the "
           "slopes of its stretches; withheld where it is not surely above 0"),
    Metric("memory.available", "memory", "B", None, False,
           "Host MemAvailable with `instances` instances running: the raw data of memory.marginal",
           "/proc/meminfo of the host at the settled point"),
    Metric("memory.drift", "memory", "B/s", None, False,
           "How far host MemAvailable moved by itself before the first instance of a series; a "
           "`memory.marginal` that is no more than this in the time of a step is withheld",
           "/proc/meminfo of the host: highest less lowest of the last second, waited for until "
           "that is 1 MiB or ten seconds are over"),
    Metric("memory.merged", "memory", "B", None, False,
           "Memory that KSM saves the whole host with `instances` instances running; no row where "
           "it does not run",
           "pages_sharing of /sys/kernel/mm/ksm, after two full scans or a minute"),
    Metric("density.ready", "startup", "s", True, False,
           "From the request until the last of `instances` instances is ready, beside the others",
           "host CLOCK_MONOTONIC, as startup.ready; one start for each number of instances"),
    Metric("storm.ready", "startup", "s", True, False,
           "From the intended start of an instance until it is ready, with `instances` starting "
           "in the same storm; phase: `burst`, all due at once, or the rate of Poisson arrivals",
           "host CLOCK_MONOTONIC; intended starts are fixed beforehand, so a late generator or "
           "queue hides no delay"),
    Metric("storm.late", "startup", "s", None, False,
           "From the intended start of an instance to its request: what the generator of the "
           "storm adds, a part of storm.ready",
           "host CLOCK_MONOTONIC; the starter of each instance waits until its start is due (for a "
           "machine and a Docker container a thread of its own)"),
    Metric("storm.rate", "startup", "1/s", False, False,
           "Starts per second and core: a burst's instances over the time until the last of them "
           "is ready and the CPUs of the host; none where one failed",
           "host CLOCK_MONOTONIC; CPUs by sched_getaffinity(2)"),
    Metric("memory.minimum", "memory", "B", True, True,
           "The smallest guest memory, or container limit, with which the workload still gets "
           "ready; phase too_little: the largest with which no start got ready",
           "bisection over fresh starts, two of at most three alike for each size"),
    Metric("disk.image_apparent", "disk", "B", True, False,
           "Length of the files the platform needs of the image",
           "st_size; phase names the packing"),
    Metric("disk.image_allocated", "disk", "B", True, True,
           "Disk space the platform needs for the image",
           "st_blocks; phase names the packing"),
    Metric("disk.image_shared", "disk", "B", None, False,
           "Part of the image's files that lies in blocks which other files use too (reflinks); "
           "no row where the file system does not tell",
           "extents with FIEMAP_EXTENT_SHARED; phase names the packing"),
    Metric("disk.image_virtual", "disk", "B", None, False,
           "Size of the disk that the guest sees",
           "qemu-img info; phase names the packing"),
    Metric("disk.instance_growth", "disk", "B", True, True,
           "Bytes that one trial adds in its upper layer, overlay or copy of a disk; a phase is "
           "what a workload asks for by printing `@disk PHASE`",
           "st_blocks of the instance's files at the settled point, or when the line arrives"),
    Metric("disk.instance_apparent", "disk", "B", True, False,
           "Length of the files that the instance has to itself",
           "st_size of the instance's files at the settled point"),
    Metric("disk.instance_shared", "disk", "B", None, False,
           "Part of the instance's files that lies in blocks of other files too, such as a disk "
           "copied by reflink; no row where the file system does not tell",
           "extents with FIEMAP_EXTENT_SHARED at the settled point"),
    Metric("disk.marginal", "disk", "B", True, False,
           "What one more running instance takes on the host's disk",
           "slope of disk.occupied over running instances (Theil-Sen)"),
    Metric("disk.occupied", "disk", "B", None, False,
           "What the image, once, and `instances` running instances take together, an engine's "
           "store with all that it keeps: the raw data of disk.marginal",
           "st_blocks at the settled point, less what the instances share by FIEMAP"),
    Metric("disk.reclaimed", "disk", "B", False, False,
           "Bytes free again once the instance is stopped and deleted, an engine's layers too; "
           "seen on the whole file system, so what others write or delete meanwhile is part of "
           "it, and too small where it frees in the background (btrfs, XFS)",
           "fall of used blocks of the file system, statvfs before the stop and after the delete"),
    Metric("portability.first", "portability", "B", True, True,
           "Bytes to move to a host that has nothing so that it can start the workload",
           "bytes an HTTP server sent for every file of the packing; phase names the packing"),
    Metric("rebuild.seconds", "rebuild", "s", True, False,
           "From the order to rebuild after a change until the new image can be started on this "
           "host; phase names the change, the way and what was made",
           "host CLOCK_MONOTONIC around buildah, or around dpkg and mke2fs or debugfs; the base, "
           "the packages and the last build are cached; compression and sending come after it"),
    Metric("rebuild.bytes", "rebuild", "B", True, False,
           "What a rebuild writes: layers that the image before it has not, uncompressed, or the "
           "disk (its allocated bytes, or its changed 64 KiB blocks where it is updated)",
           "the manifest's sizes of the layers with new digests; st_blocks; comparison of blocks"),
    Metric("rebuild.shipped", "rebuild", "B", True, False,
           "What a host that has the image before the change must be sent; phase names the packing",
           "blobs with digests that the old image has not, layers compressed as a registry gets "
           "them, config and manifest too; or files that hold the disk or its changed 64 KiB "
           "blocks"),
    Metric("portability.first_app", "portability", "B", True, False,
           "The same for the image with a small application on it, as the moves of a run count it",
           "bodies in the logs of the registry or HTTP server; phase names the packing"),
    Metric("portability.shared_base", "portability", "B", True, False,
           "Bytes to move to a host that has another application on the same base",
           "bodies in the logs of the registry or HTTP server; phase names the packing"),
    Metric("portability.update", "portability", "B", True, False,
           "Bytes to move to a host that has an earlier release: one of its files has changed",
           "bodies in the logs of the registry or HTTP server; phase names the packing"),
    Metric("portability.first_link", "portability", "B", True, False,
           "Bytes that the link carried to a host that has nothing"
           ", with the headers of every packet",
           "the link's token bucket; phase: PACKING@LINK"),
    Metric("portability.shared_base_link", "portability", "B", True, False,
           "Bytes that the link carried to a host that has another application on the same base"
           ", with the headers of every packet",
           "the link's token bucket; phase: PACKING@LINK"),
    Metric("portability.update_link", "portability", "B", True, False,
           "Bytes that the link carried to a host that has an earlier release"
           ", with the headers of every packet",
           "the link's token bucket; phase: PACKING@LINK"),
    Metric("portability.first_seconds", "portability", "s", True, False,
           "From the first request to `ready` on a host that has nothing",
           "host CLOCK_MONOTONIC over a shaped link; phase: PACKING@LINK, and with /transfer, "
           "/unpack and /start its parts"),
    Metric("portability.shared_base_seconds", "portability", "s", True, False,
           "From the first request to `ready` on a host that has another application on the base",
           "host CLOCK_MONOTONIC over a shaped link; phase: PACKING@LINK, and with /transfer, "
           "/unpack and /start its parts"),
    Metric("portability.update_seconds", "portability", "s", True, False,
           "From the first request to `ready` on a host that has an earlier release",
           "host CLOCK_MONOTONIC over a shaped link; phase: PACKING@LINK, and with /transfer, "
           "/unpack and /start its parts"),
    Metric("portability.start_read", "portability", "B", True, False,
           "Bytes of the unpacked image that a cold start brings into memory, read-ahead included; "
           "phase `whole`: all that it has",
           "mincore(2) over its files before and after a start"),
    Metric("isolation.calls", "isolation", "count", None, False,
           "System calls, of those asked for, that the instance's kernel carries out",
           "each number called once with arguments that no call takes; neither EPERM, EACCES nor "
           "ENOSYS, and not killed for it"),
    Metric("isolation.latency", "isolation", "s", True, False,
           "Echo round trip of a victim while a hog runs beside it: the interference; phase "
           "HOG/p50 and HOG/p99, with `before` and `after` for nothing beside it",
           "one echo each 2 ms, stamped by the host; those that a slow answer kept back are "
           "counted with what they would have waited"),
    Metric("efficiency.throughput", "efficiency", "1/s", False, False,
           "Pieces of work a second; phase: what is counted, where a workload has several",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.bandwidth", "efficiency", "B/s", False, False,
           "Bytes a second; phase: what is counted, where a workload has several",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.latency_mean", "efficiency", "s", True, False,
           "Mean time that one piece of work takes",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.latency_p50", "efficiency", "s", True, False,
           "Median time that one piece of work takes",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.latency_p95", "efficiency", "s", True, False,
           "95th percentile of the time that one piece of work takes",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.latency_p99", "efficiency", "s", True, False,
           "99th percentile of the time that one piece of work takes",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.latency_p999", "efficiency", "s", True, False,
           "99.9th percentile of the time that one piece of work takes",
           "as the tool or the load generator prints it, by its own clock"),
    Metric("efficiency.duration", "efficiency", "s", None, False,
           "How long the work took; phase `tool`: as the tool says it",
           "host CLOCK_MONOTONIC: from `exec` (from `ready`, where that comes before the work) to "
           "the workload's end, or the load generator's whole run"),
    Metric("efficiency.cpu", "efficiency", "s", True, False,
           "Host CPU time that all that serves the instance used during the work",
           "the account of startup.cpu, read before and after the work"),
    Metric("efficiency.per_cpu_second", "efficiency", "1/s", False, False,
           "Pieces of work for each second of host CPU time: efficiency.throughput × "
           "efficiency.duration ÷ efficiency.cpu, with the tool's duration where it says it; the "
           "CPU time holds the tool's own start, which weighs less the longer it works",
           "the tool's figure over the host's account"),
    Metric("efficiency.bytes_per_cpu_second", "efficiency", "B/s", False, False,
           "The same of efficiency.bandwidth",
           "the tool's figure over the host's account"),
    Metric("channel.round_trip", "channel", "s", None, False,
           "Median round trip of one byte between host and agent; half of it is the measurement "
           "error of a milestone, and is never subtracted",
           "echo after `ready`, stamped by the host"),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _TABLE}

_IMAGE_SIZES = ("disk.image_", "portability.first")


def is_image_size(metric: str) -> bool:
    """Whether a figure is read from an image's files, so that nothing in a trial can change it."""
    known = METRICS.get(metric)
    return metric.startswith(_IMAGE_SIZES) and known is not None and known.unit == "B"


PHASE_WORDS: tuple[tuple[str, str, str], ...] = (
    ("created", "vm", "libvirt and QEMU"),
    ("created", "", "driver or engine"),
    ("started", "", "the engine's runtime"),
    ("loader", "", "firmware"),
    ("kernel", "loader", "boot loader"),
    ("kernel", "", "QEMU and firmware until the kernel's first byte"),
    ("initramfs", "", "kernel"),
    ("system", "", "initramfs"),
    ("init", "vm-restore", "until the restored guest answers"),
    ("init", "system", "systemd until the unit"),
    ("init", "vm", "kernel and initramfs until the agent"),
    ("init", "", "sandbox until the agent"),
    ("exec", "vm-restore", "agent"),
    ("exec", "vm", "agent: modules, root and network"),
    ("exec", "", "agent"),
    ("ready", "", "the workload"),
    ("residual", "", "not attributed"),
    ("response", "", "first answer over the network"),
)
"""What happens in a phase of a start: its name, where the words hold, and the words.

A phase is named by the milestone it ends at, and what leads there differs: «where» is a kind, a
platform or a milestone that the start has; empty holds everywhere. The first row that fits counts.
"""


def describe_phase(phase: str, traits: Collection[str]) -> str:
    """What happens in ``phase`` of a start with these ``traits``: kind, platform, milestones.

    An unknown phase has no words: an empty string.
    """
    found = (
        words
        for name, where, words in PHASE_WORDS
        if name == phase and (not where or where in traits)
    )
    return next(found, "")
