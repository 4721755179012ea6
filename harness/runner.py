"""Run the trials of a schedule, one after the other, and yield what each left behind.

The runner knows drivers only by their interface and nothing of storage: it yields outcomes. A
trial that fails is an outcome too, with its evidence; the others go on.
"""

import contextlib
import datetime
import errno
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import cgroup, lab
from harness.certificate import KEY, Condition, build_document, parse_conditions
from harness.conditions import find_backing, read_conditions
from harness.drivers.base import Driver, Instance, InstanceSpec
from harness.errors import (
    SET_UP_HINT,
    HarnessError,
    TrialError,
    describe_import,
    describe_os_error,
    describe_unexpected,
)
from harness.ground import (
    check_kept,
    limit_instance_writing,
    made_folder,
    made_groups,
    note_refused,
    read_refused,
    set_cache,
)
from harness.images.model import Image
from harness.isolation.kernel_log import start_log
from harness.isolation.model import Reserve
from harness.launch import build_launch
from harness.model import (
    NO_ACCELERATOR,
    CacheState,
    Measurement,
    Outcome,
    base_platform,
    build_phases,
)
from harness.paths import format_outside
from harness.plan import ScheduledTrial, Workload
from harness.probes import disk, memory, noise, panic, request
from harness.probes.cpu import CpuAccount, open_account
from harness.probes.efficiency import WorkMeter
from harness.probes.endings import Evidence, explain_end, read_printed
from harness.room import require_room
from harness.starter import read_clock
from harness.variants import parse_variant

_NANOSECONDS = 1_000_000_000
_RESPONSE_S = 10.0
_ROUND_TRIPS = 15
_STOP_PHASES = {"ended": "end", "released": "libvirt", "destroyed": "destroy"}
_KEPT = ("*.log", "*.xml", "config.json")
"""What is kept of a failed trial's folder: what was printed, and what an instance was made from."""

TRACE = "traceback.log"
SEE_TRACE = f"a fault of the harness; the trial's {TRACE} shows where"
"""Beside these, of what nobody expected: where in the harness it happened."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that stays the same over a run. ``fixed`` are the rows of an image's own size,
    by (base platform, image); ``scratch`` is emptied by the lab when the run ends.
    """

    run_id: str
    drivers: Mapping[str, Driver]
    images: Mapping[str, Image]
    workloads: Mapping[str, Workload]
    fixed: Mapping[tuple[str, str], Sequence[Measurement]]
    scratch: Path
    logs: Path
    tree: cgroup.CgroupTree | None
    parity: Mapping[str, object] = field(default_factory=dict)
    """What was found when imported images were compared, for the manifest."""
    cache: CacheState = "warm"
    settle: float = 0.2
    memory: int = 256 << 20
    cpus: int = 1
    pids: int | None = None
    disk: int | None = None
    io: int | None = None
    reserve: Reserve = field(default_factory=Reserve)
    """What the host keeps however many instances run."""
    density_pressure: float = 0.10
    """Share of ten seconds for which tasks may have waited for memory while a series goes on."""
    remote: bool = False
    """Whether machines run on another host."""
    density_time: float | None = None
    """Seconds after which a density series starts no further instance."""
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class Notes:
    """What is gathered while a trial runs, so that a failed one keeps what it had."""

    milestones: dict[str, int] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    accelerator: str = NO_ACCELERATOR

    def drop_marks(self, brought: Collection[str]) -> None:
        """Take away the marks that the work itself brings about; the details still have them."""
        found = [mark for mark in dict.fromkeys(self.marks) if mark in brought]
        self.marks = [mark for mark in self.marks if mark not in brought]
        if found:
            self.details["brought"] = found


def run_schedule(schedule: Iterable[ScheduledTrial], bench: Bench) -> Iterator[Outcome]:
    """Yield the outcome of each trial as it ends."""
    for scheduled in schedule:
        yield run_trial(scheduled, bench)


def run_trial(scheduled: ScheduledTrial, bench: Bench) -> Outcome:
    """One fresh instance from start to teardown. Only an interrupt of the user gets out."""
    notes = Notes()
    trial = _Trial(
        platform=base_platform(scheduled.platform),
        driver=bench.drivers[base_platform(scheduled.platform)],
        workload=bench.workloads[scheduled.workload],
        spec=build_spec(scheduled, bench),
        bench=bench,
        notes=notes,
        number=scheduled.trial,
    )
    outcome = build_outcome(scheduled, bench)
    try:
        trial.measure()
    except Exception as error:
        notes.measurements.clear()
        notes.details["logs"] = [
            *_list_logs(notes.details), *keep_trace(error, bench.logs, scheduled.trial)
        ]  # fmt: skip
        outcome = replace(
            outcome, status="failed", error=describe_error(error), hint=find_remedy(error)
        )
    finally:
        shutil.rmtree(trial.spec.folder, ignore_errors=True)
    notes.drop_marks(trial.workload.brought)
    return replace(
        outcome,
        accelerator=notes.accelerator,
        milestones=notes.milestones,
        measurements=tuple(notes.measurements),
        marks=tuple(dict.fromkeys(notes.marks)),
        details=notes.details,
    )


def build_outcome(scheduled: ScheduledTrial, bench: Bench) -> Outcome:
    """The outcome of a trial that starts now, before anything is known of it."""
    return Outcome(
        block=scheduled.block,
        trial=scheduled.trial,
        order=scheduled.order,
        platform=scheduled.platform,
        kind=bench.drivers[base_platform(scheduled.platform)].kind,
        accelerator=NO_ACCELERATOR,
        image=bench.workloads[scheduled.workload].image,
        workload=scheduled.workload,
        cache=bench.cache,
        instances=1,
        warmup=scheduled.warmup,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(),
        status="ok",
    )


def build_spec(scheduled: ScheduledTrial, bench: Bench) -> InstanceSpec:
    """The instance of a scheduled trial as plain data; makes nothing."""
    workload = bench.workloads[scheduled.workload]
    image = bench.images[workload.image]
    launch = build_launch(workload, image)
    options = parse_variant(base_platform(scheduled.platform)).options
    wanted = options.network or ("bridge" if workload.network else "none")
    bridged = wanted == "bridge"
    return InstanceSpec(
        name=f"{cgroup.PREFIX}{bench.run_id}-{scheduled.trial}",
        folder=bench.scratch / f"t{scheduled.trial}",
        image=image,
        command=launch.command,
        environment=launch.environment,
        ready=workload.ready,
        memory=options.memory or bench.memory,
        cpus=options.cpus or bench.cpus,
        timeout=workload.timeout,
        address=lab.build_address(scheduled.trial) if bridged else None,
        gateway=lab.GATEWAY if bridged else None,
        bridge=lab.BRIDGE if bridged else None,
        host_network=wanted == "host",
        limits=options.limits,
        directory=launch.directory,
        user=launch.user,
        pids=bench.pids if options.limits else None,
        disk=bench.disk if options.limits else None,
        io=bench.io if options.limits else None,
    )


# ---- one trial -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Trial:
    """One trial in progress: `measure` prepares, starts, reads and stops one instance."""

    platform: str
    driver: Driver
    workload: Workload
    spec: InstanceSpec
    bench: Bench
    notes: Notes
    number: int
    ends: Mapping[str, int] = field(default_factory=dict)
    used: int | None = None
    told: bool = False
    """Whether all that serves the instance is known to be in the run's own process tree."""

    def measure(self) -> None:
        bench = self.bench
        require_room(
            self.spec, self.driver.kind, bench.reserve, bench.scratch, elsewhere=bench.remote
        )
        with made_folder(self.spec, self.driver) as refused:
            self._measure_in_folder(refused)

    def _measure_in_folder(self, refused: str) -> None:
        note_refused(self.notes.details, "disk", refused)
        left: list[str] = []
        try:
            with made_groups(self.spec, self.bench.tree, left) as self.spec:
                self._limit_writing()
                self._set_cache()
                before = noise.read_noise(read_clock())
                try:
                    self._start_and_stop()
                finally:
                    self._note_noise(before)
        except Exception:  # what it left may go with its file system
            self.notes.details["logs"] = keep_logs(self.spec.folder, self.bench.logs, self.number)
            raise
        self._note_stop(left)
        self._delete()
        self.notes.measurements += self.bench.fixed.get((self.platform, self.spec.image.name), ())

    def _set_cache(self) -> None:
        residency, marks = set_cache(self.driver, self.spec.image, self.bench.cache)
        self.notes.details["resident_share"] = round(residency.share, 6)
        self.notes.marks += marks

    def _note_noise(self, before: noise.Noise) -> None:
        """Mark what disturbed the trial, one that failed too: it may be why."""
        after = noise.read_noise(read_clock())
        self.notes.marks += noise.find_marks(before, after, told=self.told)
        self.notes.details["noise"] = noise.build_details(before, after, told=self.told)
        if panic.has_panicked(self.spec.folder):
            self.notes.marks.append(panic.MARK)
        if self.bench.cache == "warm":
            residency, marks = check_kept(self.driver, self.spec.image)
            self.notes.details["resident_share_after"] = round(residency.share, 6)
            self.notes.marks += marks

    def _start_and_stop(self) -> None:
        available = memory.read_available()
        account = open_account(self.spec.cgroups, self.driver.daemon)
        with start_log() as log, self.driver.start_instance(self.spec) as instance:
            self.notes.milestones = instance.milestones
            self.notes.accelerator = instance.accelerator
            if instance.accelerator == "tcg":
                self.notes.marks.append("emulated")
            meter = WorkMeter(self.workload, instance, account, self.spec)
            meter.watch()
            try:
                self._read_instance(instance, account, available, meter)
            except TrialError as error:
                words = log.read_about(self.spec.name)
                evidence = Evidence(read_printed(instance), words, late=meter.is_late())
                raise self._explain(error, evidence) from error
            self._note_evidence(instance)
            seen = instance.files() is not None and not find_backing(self.spec.folder).exists()
            self.used = disk.read_used(self.spec.folder) if seen else None
            self.notes.details["stop_requested"] = read_clock()
            instance.stop()
            self.ends = instance.ends

    def _limit_writing(self) -> None:
        reason = limit_instance_writing(self.spec, self.driver, self.bench.scratch)
        note_refused(self.notes.details, "io", reason)

    def _note_evidence(self, instance: Instance) -> None:
        """What the platform has to say of the trial, and the conditions that it ran under."""
        evidence = dict(instance.read_evidence())
        self.notes.accelerator = instance.accelerator  # a sandbox tells now
        own = parse_conditions(evidence.pop(KEY, {}))
        refused = read_refused(self.notes.details)
        found = read_conditions(self.driver.kind, instance, self.spec, own, refused)
        found = {**found, "cache": Condition(self.bench.cache)}
        self.notes.details |= {**evidence, KEY: build_document(found)}

    def _read_instance(
        self, instance: Instance, account: CpuAccount, available: int, meter: WorkMeter
    ) -> None:
        marks = disk.Marks(instance.files)
        instance.listen(marks.take)
        instance.wait_ready()
        cpu = account.read(instance)
        self._limit_writing()
        self._request_response(instance)
        self.bench.sleep(self.bench.settle)
        self.notes.measurements += build_start_rows(instance.milestones, cpu)
        self.notes.measurements += [*self._read_settled(instance, available), *marks.rows]
        self.notes.measurements += meter.measure()
        self.notes.marks += meter.marks
        self.notes.details.update(meter.details)

    def _explain(self, error: TrialError, seen: Evidence) -> TrialError:
        """The failure in the words of what ended the workload: a limit is an outcome of its own."""
        ending = explain_end(error, self.spec, self.driver.kind, seen)
        if ending.by:
            self.notes.details["ended_by"] = ending.by
        return ending.error

    def _request_response(self, instance: Instance) -> None:
        """Send the workload's request at once after ``ready``; the answer is a milestone."""
        if self.workload.request is None:
            return
        port, path = request.parse_request(self.workload.request)
        address = instance.address
        if address is None:
            raise TrialError("the instance has no network to be asked over")
        deadline = read_clock() + int(_RESPONSE_S * _NANOSECONDS)
        stamp = request.request_first_answer(address, port, path, deadline)
        instance.milestones["response"] = stamp

    def _read_settled(self, instance: Instance, available: int) -> list[Measurement]:
        """What is read at the settled point, then the channel's cost."""
        kind, cgroups = self.driver.kind, instance.cgroups
        used = memory.parse_guest_used(instance.ask("memory")) if kind == "vm" else None
        processes = instance.processes()
        here = processes.proc == Path("/proc") and not processes.elsewhere
        self.told = here and bool(processes.inside)
        rows = memory.read_ledger(kind, processes, cgroups, used, available)
        rows += memory.read_daemon(self.driver.daemon)
        files = instance.files()
        rows += [] if files is None else disk.read_instance(files)
        round_trip = statistics.median(instance.round_trips(_ROUND_TRIPS))
        rows.append(Measurement("channel.round_trip", round_trip))
        if throttled := cgroup.read_throttled(cgroups):
            self.notes.marks.append("throttled")
            self.notes.details["throttled"] = throttled
        return rows

    def _note_stop(self, left: Sequence[str]) -> None:
        stamp = read_clock()
        self.notes.milestones["stopped"] = stamp
        requested = self.notes.details.pop("stop_requested")
        assert isinstance(requested, int)
        self.notes.measurements += build_stop_rows(requested, stamp, self.ends)
        if left:
            self.notes.marks.append("left-behind")
            self.notes.details["left"] = list(left)

    def _delete(self) -> None:
        """Delete what the trial wrote and see what the file system got back since before the stop:
        some engines delete as they stop."""
        shutil.rmtree(self.spec.folder, ignore_errors=find_backing(self.spec.folder).exists())
        if self.used is not None:
            reclaimed = self.used - disk.read_used(self.bench.scratch)
            self.notes.measurements.append(Measurement("disk.reclaimed", reclaimed))


def build_start_rows(milestones: Mapping[str, int], cpu: Mapping[str, float]) -> list[Measurement]:
    """Headlines and phases of a start from its milestones (ns), and its CPU time by phase."""

    def seconds(first: str, last: str) -> float:
        return (milestones[last] - milestones[first]) / _NANOSECONDS

    rows = [Measurement("startup.ready", seconds("request", "ready"))]
    phases = build_phases(milestones)
    if "response" in milestones:
        rows.append(Measurement("startup.response", seconds("request", "response")))
        phases["response"] = seconds("ready", "response")
    rows += [Measurement("startup.phase", value, phase) for phase, value in phases.items()]
    rows += [Measurement("startup.cpu", value, phase) for phase, value in cpu.items()]
    return rows


def build_stop_rows(requested: int, stopped: int, ends: Mapping[str, int]) -> list[Measurement]:
    """The time to stop, and its phases where the instance ends in steps; stamps in ns.

    ``end`` is the instance's own, ``libvirt`` and ``destroy`` are what follows, and they sum with
    ``residual`` to the whole.
    """
    rows = [Measurement("startup.stopped", (stopped - requested) / _NANOSECONDS)]
    last = requested
    for name, phase in _STOP_PHASES.items():
        if name in ends:
            stamp = min(max(ends[name], last), stopped)
            rows.append(Measurement("startup.stop_phase", (stamp - last) / _NANOSECONDS, phase))
            last = stamp
    if ends:
        rest = (stopped - last) / _NANOSECONDS
        rows.append(Measurement("startup.stop_phase", rest, "residual"))
    return rows


# ---- failures --------------------------------------------------------------------------------


def is_expected(error: Exception) -> bool:
    """Whether it is a refusal that has words of its own, and no fault of the harness."""
    return isinstance(error, HarnessError | OSError | ImportError)


def describe_error(error: Exception) -> str:
    """One line that says what went wrong, with paths as they are outside the lab."""
    return format_outside(_describe(error))


def _describe(error: Exception) -> str:
    if isinstance(error, HarnessError):
        return error.message
    if isinstance(error, OSError):
        return describe_os_error(error)
    if isinstance(error, ImportError):
        return describe_import(error)
    return f"internal error: {describe_unexpected(error)}"


def find_remedy(error: Exception) -> str | None:
    """What mends it, where that is known."""
    if isinstance(error, HarnessError):
        return error.hint and format_outside(error.hint)
    if isinstance(error, ImportError):
        return SET_UP_HINT
    if not isinstance(error, OSError):
        return SEE_TRACE
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some space, or point HARNESS_CACHE at a larger disk" if full else None


def keep_trace(error: Exception, logs: Path, trial: int) -> list[str]:
    """Write down where an exception came from that nobody expected; the file's name."""
    if is_expected(error):
        return []
    target = logs / f"trial-{trial}"
    with contextlib.suppress(OSError):
        target.mkdir(parents=True, exist_ok=True)
        (target / TRACE).write_text("".join(traceback.format_exception(error)))
        return [f"logs/{target.name}/{TRACE}"]
    return []


def _list_logs(details: Mapping[str, object]) -> list[str]:
    """The names of the logs that a trial has kept so far."""
    found = details.get("logs")
    return [str(each) for each in found] if isinstance(found, list) else []


def keep_logs(source: Path, logs: Path, trial: int) -> list[str]:
    """Copy a failed trial's logs to the result folder; their names."""
    target = logs / f"trial-{trial}"
    kept: list[str] = []
    with contextlib.suppress(OSError):
        for path in sorted(each for kind in _KEPT for each in source.glob(kind)):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)
            kept.append(f"logs/{target.name}/{path.name}")
    return kept
