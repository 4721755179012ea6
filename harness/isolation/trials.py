"""One task on one platform after the other, and what each left behind.

A task that fails is an outcome too, with its evidence; the others go on.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import cgroup, lab
from harness.conditions import read_guest_processes
from harness.drivers.base import Driver, Instance, InstanceSpec
from harness.errors import TrialError
from harness.images.recipes import AGENT
from harness.isolation import containment, limits
from harness.isolation.evidence import parse_probe, read_host, read_outside
from harness.isolation.follow import Follower, build_host, build_look, find_end, wait_over
from harness.isolation.groups import read_files
from harness.isolation.kernel_log import start_log
from harness.isolation.listeners import start_listeners
from harness.isolation.machine import read_machine
from harness.isolation.model import IMAGE, TASKS, Hog, Limits, Reserve
from harness.isolation.quota import start_quota
from harness.isolation.reserve import find_breach, select_hogs
from harness.isolation.victim import ask_for
from harness.limits import (
    find_writing,
    limit_processes,
    limit_writing,
    read_least,
    read_quota,
)
from harness.model import NO_ACCELERATOR, Measurement, Outcome, choose_accelerator
from harness.plan import ScheduledTrial, Workload
from harness.runner import Bench, build_outcome, build_spec, describe_error, find_remedy, keep_trace

_PROBE_S = 120.0
_HOGS_S = 60.0
_AGENT = f"/{AGENT}"
_TUN = "/dev/net/tun"
_OWN_STORE = "the engine keeps what is written in a store of its own"
_RAW = "ext4-raw"
NO_GROUPS = "this host gives no control groups: nothing would hold a hog back"


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that the tasks share. ``seconds`` is how long each hog goes on."""

    bench: Bench
    limits: Limits
    reserve: Reserve
    seconds: float = 2.0


def build_workloads() -> tuple[Workload, ...]:
    """A workload for each task; what it runs is decided when it starts."""
    return tuple(Workload(task, IMAGE, ("true",), "exit", _PROBE_S, user="0:0") for task in TASKS)


def build_schedule(platforms: Sequence[str], tasks: Sequence[str]) -> list[ScheduledTrial]:
    """Every task on every platform, once; two numbers each, since some start two instances."""
    pairs = [(task, platform) for task in tasks for platform in platforms]
    return [
        ScheduledTrial(0, 2 * place, place, platform, task, warmup=False)
        for place, (task, platform) in enumerate(pairs)
    ]


def run_tasks(schedule: Sequence[ScheduledTrial], site: Site) -> Iterator[Outcome]:
    """Yield the outcome of each task as it ends."""
    for scheduled in schedule:
        yield run_task(scheduled, site)


def run_task(scheduled: ScheduledTrial, site: Site) -> Outcome:
    """One task; one that fails is an outcome too."""
    trial = _Trial(site, scheduled)
    outcome = build_outcome(scheduled, site.bench)
    try:
        trial.run()
    except Exception as error:
        outcome = replace(outcome, status="failed", error=describe_error(error),
                          hint=find_remedy(error))  # fmt: skip
        if logs := keep_trace(error, site.bench.logs, scheduled.trial):
            trial.details["logs"] = logs
        trial.rows.clear()
    return replace(outcome, accelerator=trial.accelerator,
                   measurements=tuple(trial.rows), marks=tuple(dict.fromkeys(trial.marks)),
                   details=trial.details)  # fmt: skip


class _Trial:
    """One task in progress."""

    def __init__(self, site: Site, scheduled: ScheduledTrial) -> None:
        self.site, self.scheduled, self.bench = site, scheduled, site.bench
        self.driver: Driver = site.bench.drivers[scheduled.platform]
        self.details: dict[str, object] = {}
        self.marks: list[str] = []
        self.rows: list[Measurement] = []
        self.refused: dict[str, str] = {}
        self.accelerator = NO_ACCELERATOR

    def run(self) -> None:
        if self.scheduled.workload == "probe":
            self._probe()
        elif self.bench.tree is None:
            raise TrialError(NO_GROUPS, hint=cgroup.explain_missing())
        elif self.scheduled.workload == "limits":
            self._try_limits()
        else:
            self._try_neighbours()

    # ---- an instance -------------------------------------------------------------------------

    def _build_spec(self, words: Sequence[str], ready: str, second: bool = False) -> InstanceSpec:
        number = self.scheduled.trial + int(second)
        spec = build_spec(replace(self.scheduled, trial=number), self.bench)
        if self._has_network():
            spec = replace(spec, address=lab.build_address(number), gateway=lab.GATEWAY,
                           bridge=lab.BRIDGE)  # fmt: skip
        asked = self.site.limits
        engine = self.driver.sets_limits
        own = asked.processes if self.driver.kind == "vm" or engine else None
        rate = asked.write if engine else None
        return replace(spec, command=tuple(words), ready=ready, pids=own, io=rate)

    def _has_network(self) -> bool:
        """Whether an instance can have a link to the bridge: a guest's needs a tap."""
        tap = self.driver.kind != "vm" or os.access(_TUN, os.R_OK | os.W_OK)
        return self.driver.no_network is None and tap

    @contextlib.contextmanager
    def _started(
        self, spec: InstanceSpec, follower: Follower | None = None, quota: int | None = None
    ) -> Iterator[Instance]:
        """The instance, limited and ready; it, its groups and its folder are gone afterwards."""
        with contextlib.ExitStack() as stack:
            spec.folder.mkdir(parents=True)
            stack.callback(shutil.rmtree, spec.folder, ignore_errors=True)
            if quota is not None:
                self._set_quota(spec.folder, quota, stack)
            spec = self._limit(spec)
            stack.callback(self._remove_groups, spec.cgroups)
            instance = stack.enter_context(self.driver.start_instance(spec))
            self._note(instance)
            if follower is not None:
                follower.look = build_look(spec.cgroups)
                instance.listen(follower.take)
            instance.wait_ready()
            self._note(instance)
            yield instance

    def _limit(self, spec: InstanceSpec) -> InstanceSpec:
        if self.bench.tree is None:
            return spec
        spec = replace(spec, cgroups=self.bench.tree.start(spec.name))
        if not limit_processes(spec.cgroups, self.site.limits.processes):
            self.refused["processes"] = "this host has no pids controller for the harness"
        return spec

    def _set_quota(self, folder: Path, size: int, stack: contextlib.ExitStack) -> None:
        if self.driver.kind == "vm":
            self.refused["disk"] = "a machine's quota is the size of its disk, set with its image"
        elif self.driver.daemon is not None:  # which would not see a mount made after its start
            self.refused["disk"] = _OWN_STORE
        elif reason := stack.enter_context(start_quota(folder, size)):
            self.refused["disk"] = reason

    def _note(self, instance: Instance) -> None:
        """What it runs on: a machine knows at once, a sandbox when it is ready."""
        self.accelerator = choose_accelerator(self.accelerator, instance.accelerator)
        if instance.accelerator == "tcg":
            self.marks.append("emulated")

    def _remove_groups(self, groups: Sequence[Path]) -> None:
        cgroup.kill_processes(groups)
        if left := cgroup.remove(groups):
            self.marks.append("left-behind")
            self.details["left"] = left

    # ---- the probe ---------------------------------------------------------------------------

    def _probe(self) -> None:
        with start_listeners(self.bench.scratch) as listeners:
            targets = [target for target, _ in listeners.values()]
            spec = self._build_spec((_AGENT, "--probe", *targets), "exit")
            with self._started(spec) as instance:
                wait_over(instance, _PROBE_S)
                evidence = parse_probe(instance.channel.output.decode(errors="replace"))
                processes = instance.processes()
                outside = read_outside(processes.inside, processes.proc)
        self.details["isolation"] = {
            "evidence": evidence,
            "host": read_host(),
            "outside": outside,
            "targets": {name: list(each) for name, each in listeners.items()},
        }
        answered = evidence["calls"]
        assert isinstance(answered, dict)
        count = sum(int(answered[word][0]) for word in ("answered", "waited"))
        self.rows.append(Measurement("isolation.calls", count))

    # ---- limits ------------------------------------------------------------------------------

    def _try_limits(self) -> None:
        asked, cpus = self.site.limits, _count_cpus()
        hogs = limits.build_hogs(asked, cpus)
        chosen, kept_back = select_hogs(hogs, self.site.reserve, self.bench.scratch)
        seen: dict[str, limits.Seen] = {}
        files: list[str] = []
        while left := [hog for hog in chosen if hog.kind not in seen]:
            found, shown = self._try_some(left)
            seen |= found
            files += shown
        findings = [
            limits.judge(hog, asked, self._complete(seen, kept_back, hog), self.driver.kind, cpus)
            for hog in hogs
        ]
        self.details["limits"] = {
            "findings": [asdict(each) for each in findings],
            "files": list(dict.fromkeys(files)),
            "host_cpus": cpus,
        }

    def _complete(
        self, seen: Mapping[str, limits.Seen], kept_back: Mapping[str, str], hog: Hog
    ) -> limits.Seen:
        """What was seen of a limit, and why it was not set or not tried."""
        found = seen.get(hog.kind, limits.Seen(None, None, None))
        refused, kept = self.refused.get(hog.kind), kept_back.get(hog.kind)
        return replace(found, refused=refused, kept_back=kept)

    def _try_some(self, hogs: Sequence[Hog]) -> tuple[dict[str, limits.Seen], list[str]]:
        """Hogs in a fresh instance, for as long as it lives; what was seen of those that began."""
        asked, follower = self.site.limits, Follower(build_look(()))
        spec = self._build_spec(build_hog_words(hogs), "output:begun")
        with start_log() as log, self._started(spec, follower, quota=asked.disk) as instance:
            groups = self._find_groups(instance)
            self._check_quota(instance, spec)
            places = [self.bench.scratch, spec.folder]
            if not self.driver.sets_limits:
                self.refused |= limit_writing(groups, places, asked.write)
            outside = self._read_limits(groups, instance, spec) | self._read_disk(spec)
            wait_over(instance, _HOGS_S + sum(hog.seconds for hog in hogs))
            gone, files = find_end(instance, follower), read_files(groups)
            last, words = follower.look(), log.read_about(spec.name)
        found = {}
        for hog in hogs:
            if views := follower.views.get(hog.kind):
                report = follower.reports.get(hog.kind)
                host = build_host(views, last, words, ended=report is None)
                said = (gone, tuple(words)) if report is None else (None, ())
                found[hog.kind] = limits.Seen(
                    report, host, outside.get(hog.kind), gone=said[0], log=said[1]
                )
        return found, files

    def _find_groups(self, instance: Instance) -> list[Path]:
        return list(dict.fromkeys([*instance.cgroups, *self._parents(instance)]))

    def _parents(self, instance: Instance) -> list[Path]:
        name = build_spec(self.scheduled, self.bench).name
        return [each for folder in instance.cgroups for each in (folder, *folder.parents)
                if each.name == name]  # fmt: skip

    def _read_limits(
        self, groups: Sequence[Path], instance: Instance, spec: InstanceSpec
    ) -> dict[str, float | None]:
        """The limits as the host has them; a guest's memory and CPUs are its QEMU's, and its
        processes are limited in its own kernel."""
        found: dict[str, float | None] = {
            "cpu": read_quota(groups),
            "memory": cgroup.read_memory_limit(groups),
            "processes": read_least(groups, ("pids.max",)),
            "write": find_writing(groups),
        }
        if self.driver.kind == "vm":
            found |= read_machine(instance)
            inside = read_guest_processes(instance, spec).value
            found["processes"] = inside if isinstance(inside, int) else None
            if found["processes"] is None:
                self.refused["processes"] = "the guest's kernel has no group for it"
        return found

    def _read_disk(self, spec: InstanceSpec) -> dict[str, float | None]:
        """The size of the file system that is the quota, or of the disk that a guest has."""
        if self.driver.kind == "vm":
            disk = spec.image.packings[_RAW]
            has_it = self.driver.packed(spec.image)[0].packing == _RAW
            return {"disk": float(disk.virtual or disk.apparent) if has_it else None}
        if "disk" in self.refused:
            return {}
        found = os.statvfs(spec.folder)
        return {"disk": float(found.f_blocks * found.f_frsize)}

    def _check_quota(self, instance: Instance, spec: InstanceSpec) -> None:
        """A store of an engine's own lies elsewhere: the quota on the folder is then none."""
        files = instance.files()
        if "disk" not in self.refused and (
            not files or not all(path.is_relative_to(spec.folder) for path in files)
        ):
            self.refused["disk"] = _OWN_STORE

    # ---- containment -------------------------------------------------------------------------

    def _try_neighbours(self) -> None:
        site = self.site
        hogs = containment.build_hogs(site.limits, _count_cpus(), site.seconds)
        chosen, refused = select_hogs(hogs, site.reserve, self.bench.scratch)
        if breach := self._find_breach():
            chosen, refused = [], {hog.kind: breach for hog in hogs}
        fates: dict[str, dict[str, object]] = {}
        trips: dict[str, list[float]] = {}
        quiet = self._build_spec(("sh", "-c", "echo up; exec sleep 3600"), "output:up")
        with self._started(quiet) as victim:
            trips[containment.BEFORE] = ask_for(victim, site.seconds)
            while left := [hog for hog in chosen if hog.kind not in fates]:
                begun, breach = self._run_hogs(left, victim, trips)
                fates |= begun
                if breach:
                    refused |= {hog.kind: breach for hog in left if hog.kind not in begun}
                    break
            trips[containment.AFTER] = ask_for(victim, site.seconds)
        fates |= {hog.kind: containment.build_refusal(hog, refused[hog.kind])
                  for hog in hogs if hog.kind in refused}  # fmt: skip
        self.details["containment"] = {
            "hogs": {hog.kind: fates[hog.kind] for hog in hogs},
            "trips": {name: len(each) for name, each in trips.items()},
            "most": {name: max(each) for name, each in trips.items() if each},
        }
        self.rows += containment.build_rows(trips)
        if containment.is_noisy(trips):
            self.marks.append(containment.MARK)

    def _run_hogs(
        self, hogs: Sequence[Hog], victim: Instance, trips: dict[str, list[float]]
    ) -> tuple[dict[str, dict[str, object]], str | None]:
        """Hogs in a fresh instance, for as long as it lives; the fates of those that began, and
        what of the host's reserve they took, if the harness ended them for it."""
        spec = self._build_spec(build_hog_words(hogs), "output:begun", second=True)
        watch = containment.Watch(Follower(build_look(())), trips)
        limit = _HOGS_S + sum(hog.seconds for hog in hogs)
        quota = self.site.limits.disk
        with start_log() as log, self._started(spec, watch.follower, quota=quota) as hog:
            breach = containment.watch_hog(hog, victim, watch, limit, self._find_breach)
            if breach:
                cgroup.kill_processes(hog.cgroups)
            gone = f"the harness ended it: {breach}" if breach else find_end(hog, watch.follower)
            words = log.read_about(spec.name)
            return containment.build_fates(hogs, watch.follower, gone, words), breach

    def _find_breach(self) -> str | None:
        return find_breach(self.site.reserve, self.bench.scratch)


def build_hog_words(hogs: Sequence[Hog]) -> tuple[str, ...]:
    """The agent's command line for some hogs, one after the other."""
    return (_AGENT, "--hog", *(hog.word for hog in hogs))


def _count_cpus() -> int:
    return len(os.sched_getaffinity(0))
