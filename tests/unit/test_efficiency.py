"""What running work costs, in the report; and what ended a workload before its time."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.efficiency import EMULATED, NO_NETWORK, build_efficiency, find_ratios
from harness.analysis.report import render_report
from harness.analysis.results import Results, load_results
from harness.analysis.tables import Table
from harness.cgroup import read_oom_kills
from harness.drivers.base import InstanceSpec
from harness.errors import TrialError
from harness.model import Measurement, Outcome
from harness.probes.endings import Evidence, explain_end, find_guest_kill
from harness.runner import Notes
from harness.store import Store, write_samples
from harness.workloads import read_workload
from tests.unit.fakes import SPEC
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes

PLAN = Synthetic(blocks=6, workloads=("noop",))
SPEEDS = {"process": 1000.0, "namespace": 980.0, "vm-direct": 200.0}
WORKLOADS = [{"name": "noop", "figures": [{"metric": "efficiency.throughput"}], "load": []}]


def work(outcome: Outcome) -> Outcome:
    """The trial with figures; a block drifts, so that only ratios within blocks are exact."""
    speed = SPEEDS.get(outcome.platform.split("#")[0], 500.0) * (1 + outcome.block / 10)
    rows = (
        Measurement("efficiency.throughput", speed),
        Measurement("efficiency.latency_p99", 1 / speed),
        Measurement("efficiency.per_cpu_second", speed / 2),
        Measurement("efficiency.bandwidth", speed * 2**20, "read"),
        Measurement("efficiency.duration", 1.0),
        Measurement("efficiency.cpu", 2.0),
    )
    return replace(outcome, measurements=(*outcome.measurements, *rows))


def build_run(folder: Path, change: object = work, **manifest: object) -> Results:
    with Store.create(folder, {**build_manifest(PLAN), **manifest}) as store:
        for outcome in build_outcomes(PLAN):
            store.append(change(outcome))  # type: ignore[operator]
    write_samples(folder)
    return load_results(folder)


def find_row(table: Table, platform: str, figure: str) -> list[tuple[str, str]]:
    (row,) = [
        each for each in table.rows if each.platform == platform and each.cells[1].text == figure
    ]
    return [(cell.text, cell.note) for cell in row.cells]


def test_ratios_are_to_process_in_the_same_block(tmp_path: Path) -> None:
    ratios = find_ratios(build_run(tmp_path / "r"))
    for platform, speed in SPEEDS.items():
        if platform != "process":
            ratio = ratios[platform, "noop", "efficiency.throughput", ""]
            assert ratio.median == pytest.approx(speed / 1000)
            assert ratio.low == pytest.approx(ratio.high), "drift cancels within a block"
            read = ratios[platform, "noop", "efficiency.bandwidth", "read"]
            assert read.median == pytest.approx(speed / 1000)
    assert not [key for key in ratios if key[0] == "process"]


def test_the_table_has_figure_ratio_and_cpu_account(tmp_path: Path) -> None:
    table = build_efficiency(build_run(tmp_path / "r"))
    assert table is not None
    row = find_row(table, "namespace", "throughput")
    assert row[2][0] == "1.32 k/s" and row[3][0] == "0.980 ×"
    assert row[4][0] == "662 /s" and row[5][0] == "0.980 ×"
    assert find_row(table, "process", "throughput")[3] == ("reference", "")
    assert find_row(table, "namespace", "bandwidth, read")[2][0] == "1.29 GiB/s"
    figures = {row.cells[1].text for row in table.rows}
    assert figures == {"throughput", "latency p99", "bandwidth, read"}


def test_an_emulated_machine_is_labelled_in_its_row_and_in_every_ratio(tmp_path: Path) -> None:
    results = build_run(tmp_path / "r")
    assert results.is_emulated("vm-direct")
    table = build_efficiency(results)
    assert table is not None and EMULATED in table.note
    heads = {row.head for row in table.rows if row.platform == "vm-direct"}
    assert heads == {"`vm-direct`, emulated (TCG)"}
    ratios = [cell for row in table.rows if row.platform == "vm-direct"
              for cell in (row.cells[3], row.cells[5]) if "×" in cell.text]  # fmt: skip
    assert ratios and all("emulated" in cell.note and cell.tone == "doubt" for cell in ratios)


def test_no_figure_of_the_area_is_a_headline(tmp_path: Path) -> None:
    results = build_run(tmp_path / "r")
    assert not [metric for _, _, metric in results.ratios if metric.startswith("efficiency.")]
    (page,) = render_report(results.folder, ("md",))
    answer, _, rest = page.read_text().partition("## Startup")
    assert "## Efficiency" in rest and "k/s" not in answer
    assert "no guest clock is used, but for what a tool says of its work" in rest


def test_a_run_without_figures_says_nothing_of_them(tmp_path: Path) -> None:
    assert build_efficiency(build_run(tmp_path / "r", lambda outcome: outcome)) is None


def test_without_process_there_are_figures_and_no_ratio(tmp_path: Path) -> None:
    def only_over_the_bridge(outcome: Outcome) -> Outcome:
        return outcome if outcome.platform == "process" else work(outcome)

    plan = {**build_manifest(PLAN)["plan"], "workloads": [{**WORKLOADS[0], "load": ["wrk"]}]}  # type: ignore[dict-item]
    table = build_efficiency(build_run(tmp_path / "r", only_over_the_bridge, plan=plan))
    assert table is not None and NO_NETWORK in table.note
    assert find_row(table, "namespace", "throughput")[3] == ("–", "")


@pytest.mark.parametrize(
    ("ended_by", "text"),
    [
        ("memory-limit", "killed by its memory limit"),
        ("pids-limit", "stopped by its limit of processes"),
        ("disk-limit", "stopped by its disk quota"),
        ("timeout", "ended by its timeout"),
        (None, "failed"),
    ],
)
def test_work_that_a_limit_ended_is_an_outcome_of_its_own(
    ended_by: str | None, text: str, tmp_path: Path
) -> None:
    def fail(outcome: Outcome) -> Outcome:
        if outcome.platform != "namespace":
            return work(outcome)
        details = {"ended_by": ended_by} if ended_by else {}
        return replace(outcome, status="failed", error="so it is", measurements=(), details=details)

    plan = {**build_manifest(PLAN)["plan"], "workloads": WORKLOADS}  # type: ignore[dict-item]
    table = build_efficiency(build_run(tmp_path / "r", fail, plan=plan))
    assert table is not None
    assert find_row(table, "namespace", "–")[2] == (text, "so it is")


def test_a_mark_that_the_work_brings_about_is_kept_as_a_detail() -> None:
    notes = Notes(marks=["throttled", "outside-load", "throttled"])
    notes.drop_marks(read_workload("sysbench-cpu", folder=Path(), timeout=1).brought)
    assert (notes.marks, notes.details) == (["outside-load"], {"brought": ["throttled"]})
    notes = Notes(marks=["throttled"])
    notes.drop_marks(read_workload("noop", folder=Path(), timeout=1).brought)
    assert (notes.marks, notes.details) == (["throttled"], {})


# ---- what ended it -----------------------------------------------------------------------------

LATE = Evidence(late=True)
KILL = b"[    4.1] Out of memory: Killed process 93 (sysbench) total-vm:9kB, anon-rss:8kB\r\n"


def spec_in(folder: Path, **changes: object) -> InstanceSpec:
    return replace(SPEC, folder=folder, **changes)  # type: ignore[arg-type]


def test_a_container_killed_by_its_memory_limit_says_so(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    spec = spec_in(tmp_path, cgroups=(tmp_path,), memory=64 << 20)
    ending = explain_end(TrialError("ended with signal 9"), spec, "container", LATE)
    assert ending.by == "memory-limit"
    assert ending.error.message == (
        "the workload was killed by its memory limit of 64MiB: ended with signal 9"
    )


def test_a_guest_that_ran_out_of_memory_says_what_its_kernel_killed(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"@harness init\n" + KILL)
    ending = explain_end(TrialError("x"), spec_in(tmp_path, memory=128 << 20), "vm")
    assert ending.by == "memory-limit"
    assert ending.error.message == "the guest's kernel killed sysbench: out of its 128MiB: x"


def test_no_console_and_no_word_of_it_are_no_kill(tmp_path: Path) -> None:
    assert find_guest_kill(tmp_path / "console.log") is None
    (tmp_path / "console.log").write_bytes(b"\xff\x00 reboot\n")
    assert find_guest_kill(tmp_path / "console.log") is None


def test_what_an_engine_has_taken_away_is_in_the_kernel_s_log(tmp_path: Path) -> None:
    words = ["oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/harness-r1/harness-r1-7/instance"]
    ending = explain_end(TrialError("x"), spec_in(tmp_path), "sandbox", Evidence(log=words))
    assert ending.by == "memory-limit"


def test_kills_in_groups_that_are_gone_are_counted_by_the_one_above(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (tmp_path / "memory.events.local").write_text("low 0\noom 0\noom_kill 0\n")
    assert read_oom_kills([tmp_path]) == 1


ENDED = TrialError("the workload ended with 1 before it was ready")
FULL = Evidence(
    "28+0 records in\ndd: error writing '/x': No space left on device\n28+0 records out"
)
NO_FORK = Evidence("sh: can't fork: Resource temporarily unavailable\n")


def test_a_refused_fork_is_a_limit_of_the_plan_only_where_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "pids.events").write_text("max 36\n")
    spec = spec_in(tmp_path, cgroups=(tmp_path,), pids=64)
    ending = explain_end(ENDED, spec, "container")
    assert (ending.by, ending.error.hint) == ("pids-limit", "raise the plan's `pids`")
    assert ending.error.message == (
        "the workload met its limit of 64 processes and threads: "
        "the workload ended with 1 before it was ready"
    )
    assert explain_end(ENDED, replace(spec, pids=None), "container").error is ENDED
    other = TrialError("the figure throughput cannot be read")
    assert explain_end(other, spec, "container").error is other
    late = explain_end(ENDED, spec, "container", LATE)
    assert late.by == "timeout" and "raise the plan's `pids`" in str(late.error.hint)


def test_a_guest_s_refused_fork_is_told_by_its_kernel_or_the_workload(tmp_path: Path) -> None:
    spec = spec_in(tmp_path, pids=64)
    assert explain_end(ENDED, spec, "vm").by == ""
    assert explain_end(ENDED, spec, "container", NO_FORK).by == ""  # its group has not counted any
    assert explain_end(ENDED, spec, "vm", NO_FORK).by == "pids-limit"
    (tmp_path / "console.log").write_text("cgroup: fork rejected by pids controller in /instance")
    assert explain_end(ENDED, spec, "vm").by == "pids-limit"


@pytest.mark.parametrize(("kind", "quota"), [("container", "{}.ext4"), ("vm", "{}/upper.raw")])
def test_a_full_disk_is_the_quota_only_where_there_is_one(
    kind: str, quota: str, tmp_path: Path
) -> None:
    spec = spec_in(tmp_path / "t7", disk=32 << 20)
    spec.folder.mkdir()
    assert explain_end(ENDED, spec, kind, FULL).by == ""
    Path(quota.format(spec.folder)).touch()
    assert explain_end(ENDED, spec, kind).by == ""
    ending = explain_end(ENDED, spec, kind, FULL)
    assert (ending.by, ending.error.hint) == ("disk-limit", "raise the plan's `disk`")
    assert "32MiB (it printed: dd: error writing '/x': No space left" in ending.error.message


def test_a_workload_that_was_too_slow_was_ended_by_its_timeout(tmp_path: Path) -> None:
    ending = explain_end(TrialError("x"), spec_in(tmp_path, timeout=2), "container", LATE)
    assert (ending.by, ending.error.message) == (
        "timeout", "the workload was ended by its timeout of 2 s",
    )  # fmt: skip


def test_a_tool_that_the_image_lacks_is_named_with_the_image(tmp_path: Path) -> None:
    said = "the workload could not start: exec sysbench: No such file or directory"
    spec = spec_in(tmp_path)
    ending = explain_end(TrialError(said), spec, "container")
    assert ending.error.message == (
        f"the workload could not start: exec sysbench in the image {spec.image.name}: "
        "No such file or directory"
    )


def test_any_other_failure_stays_as_it_is(tmp_path: Path) -> None:
    error = TrialError("the guest's kernel panicked: no init")
    assert explain_end(error, spec_in(tmp_path), "vm").error is error
