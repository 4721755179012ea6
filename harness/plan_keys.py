"""The keys of a plan file, with their defaults and meanings; the reference page reads them."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.model import CacheState
from harness.precision import MOST_BLOCKS

DEFAULT_PLATFORMS = (
    "process", "namespace", "crun", "runc", "gvisor", "podman", "docker", "vm-direct", "vm-microvm",
    "vm-restore",
)  # fmt: skip


class VariantKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One platform with options, in words; it gets the name that says the same."""

    platform: Annotated[str, Meta(description="The platform that is varied", examples=["docker"])]
    runtime: Annotated[
        Literal["crun", "runc", "gvisor"] | UnsetType,
        Meta(description="Runtime under Docker and Podman: `docker+gvisor`", examples=["gvisor"]),
    ] = UNSET
    network: Annotated[
        Literal["none", "host", "bridge"] | UnsetType,
        Meta(
            description="`/no-net`, `/host-net`, `/bridge-net`. Default: the lab's bridge for "
            "workloads that need a network, loopback only for others",
            examples=["host"],
        ),
    ] = UNSET
    seccomp: Annotated[
        bool | UnsetType,
        Meta(
            description="Whether system calls are filtered: `/seccomp`, `/no-seccomp`. Default: "
            "Docker and Podman filter, the runtimes alone do not",
            examples=[False],
        ),
    ] = UNSET
    sentry: Annotated[
        Literal["systrap", "kvm", "ptrace"] | UnsetType,
        Meta(
            description="What gVisor traps system calls with, its platform: `/systrap`, `/kvm`, "
            "`/ptrace`. Default: what the installed release chooses",
            examples=["systrap"],
        ),
    ] = UNSET
    read_only: Annotated[
        bool, Meta(description="A root that cannot be written: `/read-only`", examples=[True])
    ] = False
    limits: Annotated[bool, Meta(description="Without limits: `/no-limits`", examples=[False])] = (
        True
    )
    memory: Annotated[
        str | UnsetType,
        Meta(description="Another memory limit than the plan's: `/memory=1GiB`", examples=["1GiB"]),
    ] = UNSET
    cpus: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="Another number of CPUs than the plan's, which 0 stands for: `/cpus=2`",
            examples=[2],
        ),
    ] = 0
    tuned: Annotated[
        bool,
        Meta(
            description="A virtual machine tuned as far as this host allows, instead of what "
            "libvirt gives when asked for little: `/tuned`",
            examples=[True],
        ),
    ] = False
    kernel: Annotated[
        Literal["elf", "bzimage"] | UnsetType,
        Meta(description="The form of a directly booted kernel: `/bzimage`", examples=["bzimage"]),
    ] = UNSET
    firmware: Annotated[
        Literal["bios", "uefi"] | UnsetType,
        Meta(description="What a machine starts its disk with: `/uefi`", examples=["uefi"]),
    ] = UNSET
    disk: Annotated[
        Literal["overlay", "raw", "qcow2", "squashfs", "erofs", "virtiofs"] | UnsetType,
        Meta(
            description="What a guest's root is on: an overlay on a shared base, a raw or qcow2 "
            "disk of its own, a shared read-only squashfs or erofs, or a folder of the host by "
            "virtiofs: `/disk=erofs`",
            examples=["erofs"],
        ),
    ] = UNSET
    upper: Annotated[
        Literal["tmpfs", "disk"] | UnsetType,
        Meta(
            description="Where a guest with a read-only root writes: memory, or a disk of its "
            "own: `/upper=disk`",
            examples=["disk"],
        ),
    ] = UNSET
    disk_cache: Annotated[
        Literal["none", "writeback", "unsafe"] | UnsetType,
        Meta(
            description="How QEMU uses the host's page cache for disks: `/cache=none`. Default: "
            "QEMU's own (writeback), and `none` when tuned",
            examples=["none"],
        ),
    ] = UNSET
    discard: Annotated[
        bool,
        Meta(
            description="A guest's disk is told what is deleted, and the host has that space "
            "again: `/discard`",
            examples=[True],
        ),
    ] = False
    merge: Annotated[
        bool,
        Meta(
            description="Whether a guest's memory is offered to the host's KSM; without: `/no-ksm`."
            " It matters only where ksmd runs, which the harness never switches",
            examples=[False],
        ),
    ] = True


class PlanKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a plan file, with their defaults."""

    platforms: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="The platforms to compare",
            examples=[["process", "namespace", "vm-direct"]],
        ),
    ] = DEFAULT_PLATFORMS
    variants: Annotated[
        tuple[VariantKeys, ...],
        Meta(
            description="Further platforms, each a table of [options](#variants); a name such as "
            "`runc/host-net` among the platforms says the same",
            examples=[[{"platform": "docker", "runtime": "gvisor"}]],
        ),
    ] = ()
    workloads: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Names of workloads, or paths of workload files; `noop@slim` is `noop` in "
            "that image",
            examples=[["noop", "./mine.toml"]],
        ),
    ] = ("noop", "httpd")
    images: Annotated[
        tuple[str, ...],
        Meta(
            description="Run every workload in these images instead of its own; with more than "
            "one, a workload is called `noop@slim`",
            examples=[["slim"]],
        ),
    ] = ()
    blocks: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Measured trials of each combination; with `precision` it is the most that "
            f"are run, {MOST_BLOCKS} unless stated",
            examples=[10],
        ),
    ] = 10
    warmup: Annotated[
        int,
        Meta(ge=0, le=100, description="Blocks before them that do not count", examples=[1]),
    ] = 1
    seed: Annotated[
        int | UnsetType,
        Meta(
            description="Decides the order of trials, 0 or more; stored with the run. Default: "
            "drawn anew",
            examples=[1],
        ),
    ] = UNSET
    cache: Annotated[
        CacheState,
        Meta(
            description="State of the page cache before a trial: `warm` or `cold`",
            examples=["warm"],
        ),
    ] = "warm"
    aa: Annotated[
        tuple[str, ...] | UnsetType,
        Meta(
            description="Platforms entered twice, to show the noise. Default: the first container "
            "and the first virtual machine that run here",
            examples=[["namespace", "vm-direct"]],
        ),
    ] = UNSET
    settle: Annotated[
        str,
        Meta(description="From `ready` to the reading of memory and disk", examples=["200ms"]),
    ] = "200ms"
    density: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Virtual machines to start at once for `memory.marginal` and "
            "`disk.marginal`, and eight times as many containers; 0 leaves it out",
            examples=[3],
        ),
    ] = 3
    density_load: Annotated[
        tuple[Literal["idle", "loaded"], ...],
        Meta(
            min_length=1,
            description="What the instances of such a series do: nothing once their workload is "
            "ready (`idle`), or the workload `steady`, in the same image (`loaded`)",
            examples=[["idle", "loaded"]],
        ),
    ] = ("idle",)
    density_time: Annotated[
        str | UnsetType,
        Meta(
            description="Time after which such a series starts no further instance. Default: none",
            examples=["2m"],
        ),
    ] = UNSET
    density_pressure: Annotated[
        str,
        Meta(
            description="Such a series ends where tasks waited for memory for more than this share "
            "of the last ten seconds (PSI)",
            examples=["10%"],
        ),
    ] = "10%"
    reserve: Annotated[
        str | UnsetType,
        Meta(
            description="Memory of the host that is left free: no trial or storm begins and no "
            "series goes on that could take of it. Default: 1 GiB, or an eighth of it all if that "
            "is less",
            examples=["1GiB"],
        ),
    ] = UNSET
    reserve_pids: Annotated[
        int | UnsetType,
        Meta(
            description="Process ids that are left free in the same way. Default: 2000, or an "
            "eighth of them all if that is less",
            examples=[2000],
        ),
    ] = UNSET
    reserve_disk: Annotated[
        str | UnsetType,
        Meta(
            description="Free space of the cache's disk that is left in the same way. Default: "
            "1 GiB, or an eighth of the disk if that is less",
            examples=["1GiB"],
        ),
    ] = UNSET
    storm: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="After the trials, start so many instances of each platform at once, and "
            "measure what that does to each start; 0 leaves it out",
            examples=[16],
        ),
    ] = 0
    storm_rates: Annotated[
        tuple[str, ...],
        Meta(
            description="Start as many also one by one at these rates, by a Poisson process that "
            "does not wait for the last to be ready (open loop)",
            examples=[["2/s"]],
        ),
    ] = ()
    storm_repeats: Annotated[
        int,
        Meta(
            ge=1,
            le=1000,
            description="How often each storm is run; an interval takes 6 or more",
            examples=[6],
        ),
    ] = 6
    minimum: Annotated[
        bool,
        Meta(
            description="After the trials, search for `memory.minimum`: the smallest memory of "
            "each platform with a limit, by some twenty starts of each workload",
            examples=[True],
        ),
    ] = False
    moves: Annotated[
        bool,
        Meta(
            description="After the trials, move the image with a small application to a host that "
            "lacks it, over a shaped link: bytes and seconds to `ready` of `namespace`, "
            "`vm-direct` and `vm-disk`",
            examples=[True],
        ),
    ] = False
    bandwidths: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Bandwidths of that link",
            examples=[["100Mbit", "1Gbit"]],
        ),
    ] = ("100Mbit", "1Gbit")
    delay: Annotated[
        str,
        Meta(
            description="How long the link holds each packet back, each way; needs a kernel with "
            "netem",
            examples=["5ms"],
        ),
    ] = "0s"
    repeats: Annotated[
        int,
        Meta(ge=1, le=1000, description="How often each move is measured", examples=[3]),
    ] = 3
    memory: Annotated[
        str,
        Meta(
            description="Memory of a guest, and limit of a container; 64MiB or more",
            examples=["256MiB"],
        ),
    ] = "256MiB"
    cpus: Annotated[
        int,
        Meta(ge=1, le=256, description="CPUs of a guest, limit of a container", examples=[1]),
    ] = 1
    pids: Annotated[
        int,
        Meta(
            ge=0,
            le=4_194_304,
            description="The most processes and threads of an instance: of a container's group, "
            "and of a group inside a guest; 8 or more, 0 is no limit",
            examples=[256],
        ),
    ] = 0
    disk: Annotated[
        str | UnsetType,
        Meta(
            description="The most that an instance may write to its root: the size of a file "
            "system of its own, or of the disk of `/upper=disk`; 16MiB or more. Docker, Podman and "
            "other machines cannot have it. Default: no limit",
            examples=["64MiB"],
        ),
    ] = UNSET
    io: Annotated[
        str | UnsetType,
        Meta(
            description="The most that an instance may write to the host's disk in a second: by "
            "its control group, and by QEMU for a guest; 64KiB or more. Default: no limit",
            examples=["16MiB"],
        ),
    ] = UNSET
    differ: Annotated[
        tuple[str, ...],
        Meta(
            description="[Dimensions](#the-parity-certificate) in which platforms may differ and "
            "still have a ratio",
            examples=[["memory", "network"]],
        ),
    ] = ()
    timeout: Annotated[
        str,
        Meta(
            description="The longest wait for `ready` where the workload states none",
            examples=["60s"],
        ),
    ] = "60s"
    precision: Annotated[
        str | UnsetType,
        Meta(
            description="Go on in whole blocks until the 95 % interval of every headline ratio, "
            "from the middle to either end, is no wider than this share. Default: none",
            examples=["2%"],
        ),
    ] = UNSET
    budget: Annotated[
        str | UnsetType,
        Meta(
            description="Time after which nothing new is begun: no block, density series, search, "
            "move or storm. Default: none",
            examples=["10m"],
        ),
    ] = UNSET
    accelerator: Annotated[
        Literal["auto", "kvm", "tcg"],
        Meta(
            description="How guests run: `kvm`, `tcg`, or `auto`: KVM if it was proved",
            examples=["auto"],
        ),
    ] = "auto"
    connection: Annotated[
        str | UnsetType,
        Meta(
            description="libvirt's address. Default: an embedded libvirt of the run's own",
            examples=["qemu:///system"],
        ),
    ] = UNSET
    start_engines: Annotated[
        bool,
        Meta(
            description="Measure Docker on a daemon of the run's own, unless `docker_host` names "
            "one that answers; it ends with the run",
            examples=[True],
        ),
    ] = False
    docker_host: Annotated[
        str | UnsetType,
        Meta(
            description="Address of the Docker daemon. Default: `DOCKER_HOST`, else its usual "
            "socket",
            examples=["unix:///run/docker.sock"],
        ),
    ] = UNSET
    allow_different_trees: Annotated[
        bool,
        Meta(
            description="Measure although an imported image shows different trees in containers "
            "and in guests; the report says so",
            examples=[True],
        ),
    ] = False
