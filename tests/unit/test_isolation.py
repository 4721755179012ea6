"""Isolation as values: records, latencies, verdicts, fates, and what the report says of them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness import cgroup
from harness.analysis.isolation import PROBES, build_matrix, has_own_kernel, unescape
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.analysis.walls import build_document
from harness.certificate import NONE, Condition
from harness.conditions import name_outer
from harness.errors import InputError, TrialError
from harness.isolation import containment, limits, reserve
from harness.isolation.evidence import parse_probe
from harness.isolation.follow import Follower, View, build_host, parse_report
from harness.isolation.groups import (
    count_refused_forks,
    is_unlimited,
    read_files,
)
from harness.isolation.machine import parse_machine
from harness.isolation.model import MIB, Hog, Limits, Report, Reserve
from harness.isolation.quota import start_quota
from harness.isolation.trials import build_schedule
from harness.isolation.victim import INTERVAL_S, fill_omitted, find_percentiles
from harness.limits import limit_processes, limit_writing, parse_rates, read_least, read_quota
from harness.model import Kind, Measurement, Outcome
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest

PROBE = r"""kernel release 6.1.0
kernel version #1\x20SMP
kernel boot b-1
kernel log EPERM 0
namespace pid pid:[2]
namespace net net:[1]
status CapEff 00000000a80425fb
status NoNewPrivs 1
status Seccomp 0
process 1 agent
process 7 two\x20words
processes 2 ok
sysctls 0 972
device /dev/null c 1:3 ok
device /dev/vda b 254:0 EPERM
socket /.harness/run/channel
sockets 1
mount / overlay rw
mount /proc/sys proc ro
interface lo
unix-sockets 2 0
reach tcp:127.0.0.1:9 ok wordA
reach abstract:x ok other
call-left-out 169 reboot could-stop-the-host
calls answered 300 0-14,16-20
calls EPERM 9 103
calls EACCES 0 -
calls ENOSYS 20 134
calls waited 1 3
calls killed 0 -
end
"""


def build_evidence(text: str = PROBE) -> dict[str, object]:
    return {
        "evidence": parse_probe(text),
        "host": {"release": "6.1.0", "boot": "b-1",
                 "namespaces": {"pid": "pid:[1]", "net": "net:[1]"}},
        "outside": [{"name": "agent", "Seccomp": "0"}],
        "targets": {"host-loopback": ["tcp:127.0.0.1:9", "wordA"],
                    "host-abstract": ["abstract:x", "mine"]},
    }  # fmt: skip


# ---- records ---------------------------------------------------------------------------------


def test_a_probe_that_was_cut_short_is_no_evidence() -> None:
    assert parse_probe(PROBE)["counts"]
    for broken in (PROBE.removesuffix("end\n"), "", "end\n"):
        with pytest.raises(TrialError, match="end too early"):
            parse_probe(broken)


@pytest.mark.parametrize(
    ("probe", "text", "note"),
    [
        ("kernel", "the host's", "`6.1.0`"),
        ("kernel log", "not readable", "`EPERM`"),
        ("namespaces", "1 of 2 its own", "shared: net"),
        ("capabilities in effect", "14", "`a80425fb`"),
        ("seccomp", "no filter", "on the host: no filter"),
        ("no_new_privs", "set", ""),
        ("processes seen", "2", "`agent`, `two words`"),
        ("sysctls that can be written", "0 of 972", ""),
        ("devices", "1 of 2 opened", "no disk"),
        ("mounts that can be written", "1 of 2", ""),
        ("services of the host reached", "1 of 2", "loopback"),
        ("system calls carried out", "301 of 330", "by the host's kernel; denied 9"),
    ],
)
def test_a_cell_says_what_its_records_say(probe: str, text: str, note: str) -> None:
    cell = PROBES[probe](build_evidence())
    assert (cell.text, cell.note) == (text, note)


def test_another_boot_is_another_kernel_and_shares_no_namespace() -> None:
    machine = [{"name": "qemu-system-x86", "Seccomp": "2"}]
    other = build_evidence(PROBE.replace("boot b-1", "boot b-2")) | {"outside": machine}
    assert has_own_kernel(other) and not has_own_kernel(build_evidence())
    assert PROBES["namespaces"](other).text == "its own kernel's"
    silent = build_evidence(PROBE.replace("boot b-1", "boot -")) | {"outside": []}
    assert has_own_kernel(silent)


def test_an_engine_that_shows_a_boot_id_of_its_own_does_not_have_a_kernel_of_its_own() -> None:
    nspawn = build_evidence(PROBE.replace("boot b-1", "boot b-2"))
    assert not has_own_kernel(nspawn)
    assert PROBES["namespaces"](nspawn).text == "1 of 2 its own"


def test_a_word_is_read_as_the_agent_wrote_it() -> None:
    assert unescape(r"a\x20b\x5c") == "a b\\"
    assert unescape(r"\xc3\xa9") == "é"


# ---- latency ---------------------------------------------------------------------------------


def test_a_slow_answer_counts_for_those_that_it_kept_back() -> None:
    assert fill_omitted([INTERVAL_S / 2]) == [INTERVAL_S / 2]
    filled = fill_omitted([10 * INTERVAL_S])
    assert len(filled) == 10 and filled[0] == 10 * INTERVAL_S
    quick, slow = [1e-4] * 199, [1.0]
    assert find_percentiles(quick + slow)["p99"] == pytest.approx(1e-4)
    assert find_percentiles(fill_omitted(quick + slow))["p99"] > 0.9


def test_few_round_trips_have_no_p99() -> None:
    assert find_percentiles([1.0] * 99) == {}
    assert [row.phase for row in containment.build_rows({"cpu": [1e-4] * 100})] == [
        "cpu/p50", "cpu/p99",
    ]  # fmt: skip


def test_a_victim_that_was_unsteady_alone_is_noisy() -> None:
    steady, wild = [1e-4] * 200, [1e-3] * 200
    assert not containment.is_noisy({"before": steady, "after": steady, "cpu": wild})
    assert containment.is_noisy({"before": steady, "after": wild})
    assert not containment.is_noisy({"before": steady})


# ---- hogs ------------------------------------------------------------------------------------


def build_view(clock: int = 0, **changes: float) -> View:
    return replace(View(clock, 0.0, 0, 0, 0), **changes)  # type: ignore[arg-type]


def test_a_follower_takes_lines_in_pieces_and_looks_with_each() -> None:
    clocks = iter(range(0, 10_000_000_000, 1_000_000_000))
    follower = Follower(lambda: build_view(next(clocks), cpu=1.0))
    for piece in (b"begun c", b"pu\ndone cpu 900 bou", b"nd 1 1000\nbegun memory\n"):
        follower.take(piece)
    assert follower.reports == {"cpu": Report(900, "bound", 1, 1.0)}
    assert follower.current == "memory" and not follower.ended
    assert len(follower.views["cpu"]) == 2 and len(follower.views["memory"]) == 1
    follower.take(b"done memory x y\nend\n")
    assert "memory" not in follower.reports and follower.ended


def test_a_report_that_is_none_is_not_taken_for_one() -> None:
    assert parse_report(["memory", "12", "killed", "1", "5"]) == Report(12, "killed", 1, 0.005)
    for words in ("memory 12 killed 1", "memory -1 killed 1 5", "memory a killed 1 5"):
        assert parse_report(words.split()) is None


def test_counters_that_are_gone_with_their_group_are_taken_from_the_kernels_log() -> None:
    views, last = [build_view(cpu=1.0, throttled=7)], build_view(2_000_000_000, cpu=1.5)
    log = ["oom-kill:constraint=CONSTRAINT_MEMCG oom_memcg=/g", "cgroup: fork rejected by pids "
           "controller in /g"]  # fmt: skip
    host = build_host(views, last, log, ended=True)
    assert host == {"seconds": 2.0, "cpu_seconds": 0.5, "throttled": 0, "refused_forks": 1,
                    "kills": 1}  # fmt: skip
    assert build_host(views, last, log, ended=False) is None


@pytest.mark.parametrize(
    ("end", "words"),
    [("bound", "no limit stopped it"), ("killed", "want of memory"), ("EAGAIN", "with EAGAIN")],
)
def test_a_fate_is_told_in_words(end: str, words: str) -> None:
    assert words in containment.describe_fate(Hog("memory", 8), Report(4, end, 1, 1.0), None, None)


def test_an_instance_that_went_with_its_hog_has_its_cause_told() -> None:
    host = {"seconds": 1.0, "cpu_seconds": 0.0, "kills": 1, "refused_forks": 0}
    fate = containment.describe_fate(Hog("memory", 8), None, host, "it ended by itself")
    assert fate.startswith("its whole instance ended: the kernel killed")
    plain = containment.describe_fate(Hog("disk", 8), None, None, "it ended by itself")
    assert plain.endswith("it ended by itself")


# ---- verdicts --------------------------------------------------------------------------------

ASKED = Limits()
CPU = {"seconds": 1.0, "cpu_seconds": 1.0, "throttled": 5, "refused_forks": 0, "kills": 0}


def build_seen(most: int, end: str, seconds: float = 1.0, **host: float) -> limits.Seen:
    return limits.Seen(Report(most, end, 1, seconds), {**CPU, **host}, None)


@pytest.mark.parametrize(
    ("kind", "seen", "verdict"),
    [
        ("cpu", build_seen(1000, "bound"), "holds"),
        ("cpu", build_seen(2600, "bound"), "holds"),  # a sandbox's account; the host has 1.0
        ("cpu", build_seen(1900, "bound", cpu_seconds=1.9), "does not hold"),
        ("cpu", build_seen(500, "bound", cpu_seconds=0.5, throttled=0), "not reached"),
        ("memory", build_seen(127, "killed"), "holds"),
        ("memory", build_seen(120, "ENOMEM"), "holds"),
        ("memory", build_seen(256, "bound"), "does not hold"),
        ("memory", build_seen(100, "bound"), "not reached"),
        ("memory", limits.Seen(None, {**CPU, "kills": 1}, None), "holds"),
        ("memory", limits.Seen(None, CPU, None), "not told"),
        ("memory", limits.Seen(None, None, None, kept_back="reserve"), "not tried"),
        ("processes", build_seen(254, "EAGAIN"), "holds"),
        ("processes", build_seen(512, "bound"), "does not hold"),
        ("processes", limits.Seen(None, {**CPU, "refused_forks": 1}, None), "holds"),
        ("write", build_seen(32, "bound", 2.0), "holds"),
        ("write", build_seen(32, "bound", 0.1), "does not hold"),
        ("write", build_seen(32, "bound", 20.0), "not reached"),
        ("write", build_seen(0, "EINVAL"), "not told"),
        ("disk", build_seen(57, "ENOSPC"), "holds"),
        ("disk", build_seen(128, "bound"), "does not hold"),
        ("disk", replace(build_seen(128, "bound"), refused="none here"), "not set"),
    ],
)
def test_a_limit_holds_only_where_something_was_stopped_by_it(
    kind: str, seen: limits.Seen, verdict: str
) -> None:
    hog = next(each for each in limits.build_hogs(ASKED, 2) if each.kind == kind)
    assert limits.judge(hog, ASKED, seen, "container", 2).verdict == verdict


@pytest.mark.parametrize(
    ("kind", "inside", "verdict"),
    [("vm", 150, "not reached"), ("vm", 250, "holds"), ("container", 150, "holds")],
)
def test_a_guest_that_its_small_kernel_stops_has_not_reached_the_limit(
    kind: Kind, inside: int, verdict: str
) -> None:
    hog = next(each for each in limits.build_hogs(ASKED, 2) if each.kind == "processes")
    assert limits.judge(hog, ASKED, build_seen(inside, "EAGAIN"), kind, 2).verdict == verdict


def test_on_a_host_with_no_more_cpus_than_asked_a_quota_is_not_reached() -> None:
    hog = limits.build_hogs(ASKED, 1)[0]
    assert limits.judge(hog, ASKED, build_seen(1000, "bound"), "container", 1).verdict == (
        "not reached"
    )


def test_hogs_are_bounded_and_the_one_that_may_end_its_instance_comes_last() -> None:
    for hogs in (limits.build_hogs(ASKED, 2), containment.build_hogs(ASKED, 2, 1.0)):
        assert hogs[-1] == replace(hogs[-1], kind="memory", bound=256)
        assert all(0 < hog.bound <= 2 * ASKED.processes for hog in hogs)


@pytest.mark.parametrize(
    "words", ["-m size=131072k -smp 2,sockets=2", "-m 128 -smp 2", "-smp 2 -m 128M"]
)
def test_a_machines_cpus_and_memory_are_read_from_qemus_words(words: str) -> None:
    assert parse_machine(["qemu", *words.split()]) == {"cpu": 2.0, "memory": 128 * MIB}
    assert parse_machine(["qemu", "-m", "x"]) == {}


# ---- groups ----------------------------------------------------------------------------------


def write_group(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_processes_and_writing_are_limited_by_whichever_file_a_group_has(tmp_path: Path) -> None:
    two = write_group(tmp_path / "v2", {"pids.max": "max", "io.max": "", "memory.max": "max"})
    assert limit_processes([two], ASKED.processes)
    assert (two / "pids.max").read_text() == str(ASKED.processes)
    assert (two / "memory.max").read_text() == "max"  # a driver's to set
    assert limit_writing([two], [Path("/")], 100) in (
        {}, {"write": "what the instance writes is on no block device"},
    )  # fmt: skip
    bare = write_group(tmp_path / "bare", {})
    assert not limit_processes([bare], ASKED.processes)
    assert "write" in limit_writing([bare], [Path("/")], 100)
    assert "no block device" in limit_writing([two], [Path("/proc")], 100)["write"]


def test_the_least_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    outer = write_group(tmp_path / "harness-r1", {"pids.max": "64", "cpu.max": "50000 100000"})
    inner = write_group(outer / "b", {"pids.max": "max", "cpu.max": "max 100000",
                                      "pids.events": "max 3\n"})  # fmt: skip
    assert read_least([inner], ("pids.max",)) == 64
    assert read_quota([inner]) == 0.5
    assert count_refused_forks([outer]) == 3


def test_what_the_run_itself_is_limited_to_is_told_apart(tmp_path: Path) -> None:
    pod = write_group(tmp_path / "pod", {"pids.max": "5000", "cpu.max": "50000 100000",
                                         "memory.max": "1048576"})  # fmt: skip
    run = write_group(pod / "harness-r1", {"pids.max": "max"})
    inner = write_group(run / "harness-r1-7" / "libpod-1", {"pids.max": "max"})
    assert read_least([inner], ("pids.max",)) is None
    assert read_quota([inner]) is None
    assert cgroup.read_memory_limit([inner]) is None
    found = {"pids": Condition(NONE), "cpus": Condition(1.0, "quota"), "memory": Condition(4096)}
    assert name_outer(found, [inner]) == {
        "pids": Condition(NONE, "the run itself has 5000"),
        "cpus": Condition(1.0, "quota; the run itself has 0.5"),
        "memory": Condition(4096),
    }
    assert name_outer(found, []) == found


def test_a_file_without_a_limit_is_no_evidence_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.isolation.groups.cgroup.build_path", lambda _: "/g")
    group = write_group(tmp_path / "g", {"pids.max": "max", "memory.max": "4096", "pids.peak": "3"})
    assert read_files([group]) == ["/g/memory.max: 4096", "/g/pids.peak: 3"]
    assert is_unlimited("memory.limit_in_bytes", str(1 << 63))
    assert is_unlimited("cpu.cfs_quota_us", "-1") and not is_unlimited("pids.peak", "max")


def test_a_rate_is_read_as_both_versions_write_it() -> None:
    assert parse_rates("253:0 8388608\n7:0 4096\n") == [8388608, 4096]
    assert parse_rates("253:0 rbps=max wbps=8388608 riops=max wiops=max\n") == [8388608]
    assert parse_rates("") == []


# ---- the host's reserve ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hog", "kept", "thing"),
    [
        (Hog("memory", 256), Reserve(memory=1 << 50), "memory"),
        (Hog("processes", 512), Reserve(processes=1 << 40), "processes"),
        (Hog("disk", 128), Reserve(disk=1 << 60), "disk"),
        (Hog("write", 128), Reserve(disk=1 << 60), "disk"),
    ],
)
def test_a_hog_that_would_reach_into_the_reserve_is_not_started(
    hog: Hog, kept: Reserve, thing: str, tmp_path: Path
) -> None:
    chosen, refused = reserve.select_hogs([hog, Hog("cpu", 2)], kept, tmp_path)
    assert [each.kind for each in chosen] == ["cpu"]
    assert refused[hog.kind].startswith(f"the host's reserve of {thing} is ")
    assert reserve.find_breach(kept, tmp_path) is not None
    none = Reserve(0, 0, 0)
    assert reserve.select_hogs([hog], none, tmp_path)[1] == {}
    assert reserve.find_breach(none, tmp_path) is None


# ---- the report ------------------------------------------------------------------------------


def build_outcome(platform: str, kind: Kind, task: str, number: int) -> Outcome:
    return Outcome(
        block=0, trial=number, order=number, platform=platform, kind=kind, accelerator="none",
        image="tiny", workload=task, cache="warm", instances=1, warmup=False,
        started_at="2025-03-14T09:26:53+00:00", status="ok",
    )  # fmt: skip


def build_outcomes() -> list[Outcome]:
    findings = [
        asdict(limits.judge(hog, ASKED, build_seen(60, "ENOSPC"), "container", 2))
        for hog in limits.build_hogs(ASKED, 2)
    ]
    hog = {"word": "cpu:3:1000", "fate": "got 1.00 CPUs", "report": None, "host": None}
    latency = {"before/p99": 1e-3, "after/p99": 9e-3, "cpu/p50": 1e-4, "cpu/p99": 5e-3}
    rows = [Measurement("isolation.latency", value, phase) for phase, value in latency.items()]
    probe = build_outcome("namespace", "container", "probe", 0)
    return [
        replace(probe, details={"isolation": build_evidence()},
                measurements=(Measurement("isolation.calls", 301),)),
        replace(build_outcome("namespace", "container", "limits", 2),
                details={"limits": {"findings": findings, "files": ["/g/pids.max: 256"]}}),
        replace(build_outcome("namespace", "container", "containment", 4), marks=("noisy-victim",),
                measurements=tuple(rows), details={"containment": {"hogs": {"cpu": hog}}}),
        replace(build_outcome("gvisor", "sandbox", "probe", 6), status="failed", error="it broke"),
    ]  # fmt: skip


def write_run(folder: Path, outcomes: list[Outcome]) -> Path:
    manifest = build_manifest(Synthetic(("namespace", "gvisor"), (), ("probe",)))
    with Store.create(folder, manifest) as store:
        for outcome in outcomes:
            store.append(outcome)
    write_samples(folder)
    return folder


def test_the_report_has_the_matrix_and_its_evidence_behind_a_fold(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", build_outcomes())
    render_report(folder)
    html, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    html = html.replace("<wbr>", "")
    for page in (html, text):
        assert "What isolates each platform, seen from inside" in page
        assert "Whether limits hold" in page and "A hog beside a victim" in page
        assert "it broke" in page and "Startup" not in page
    fold = html[html.index("<summary>Raw evidence</summary>") :]
    assert '<details class="unprinted">\n<summary>Raw evidence</summary>' in html  # shut at first
    assert "pid:[2]" in fold and "/g/pids.max: 256" in fold
    assert "\n### Raw evidence\n" in text and "<details>" not in text
    assert "but it was noisy without one too" in text
    assert "noisy-victim" in text


def test_scripts_get_the_matrix_with_its_evidence(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", build_outcomes()))
    document = json.loads(json.dumps(build_document(results)))
    assert document["matrix"]["namespace"]["kernel"] == {"text": "the host's", "note": "`6.1.0`"}
    assert document["evidence"]["namespace"]["evidence"]["namespace"]["pid"] == ["pid:[2]"]
    assert document["limits"]["namespace"]["findings"][0]["limit"] == "cpu"
    assert document["containment"]["namespace"]["latency"]["cpu/p99"] == 5e-3
    assert document["failures"] == [
        {"platform": "gvisor", "task": "probe", "error": "it broke"},
    ]  # fmt: skip


def test_where_nothing_could_be_asked_there_is_no_matrix(tmp_path: Path) -> None:
    failed = [each for each in build_outcomes() if each.status == "failed"]
    folder = write_run(tmp_path / "r", failed)
    assert build_matrix(load_results(folder)) is None
    render_report(folder)
    assert "it broke" in (folder / "report.md").read_text()


# ---- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--platform", "namespce"], "namespace"),
        (["--memory", "1MiB"], "--memory: 1MiB is too little"),
        (["--memory", "much"], "--memory: "),
        (["--reserve-disk", "-1"], "--reserve-disk"),
        (["--seconds", "0"], "seconds"),
        (["--processes", "5"], "processes"),
        (["--out", "OUT"], "already holds a run"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    from harness.cli import run_words

    (tmp_path / "manifest.json").write_text("{}")
    typed = [str(tmp_path) if word == "OUT" else word for word in words]
    with pytest.raises(InputError) as error:
        run_words(["isolation", *typed])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_task_is_tried_once_on_every_platform() -> None:
    schedule = build_schedule(("a", "b"), ("probe", "limits"))
    assert [(each.platform, each.workload) for each in schedule] == [
        ("a", "probe"), ("b", "probe"), ("a", "limits"), ("b", "limits"),
    ]  # fmt: skip
    assert [each.trial for each in schedule] == [0, 2, 4, 6]


def test_a_quota_that_cannot_be_leaves_no_file_that_would_pass_for_one(tmp_path: Path) -> None:
    folder = tmp_path / "t7"
    folder.mkdir()
    with start_quota(folder, (1 << 63) - 1) as refused:
        assert refused is not None and refused.startswith("this host gives no file system of ")
        assert list(tmp_path.iterdir()) == [folder]
    with start_quota(folder, 4096) as refused:  # mke2fs takes no such size
        assert refused is not None
        assert list(tmp_path.iterdir()) == [folder]
