"""The runner's own logic, with a driver that follows a script."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.certificate import KEY, NONE, parse_conditions
from harness.density import run_density
from harness.drivers.base import InstanceSpec
from harness.ground import format_refused, read_refused
from harness.images.model import Image
from harness.model import Measurement, Outcome
from harness.plan import ScheduledTrial
from harness.runner import Bench, build_start_rows, run_schedule
from harness.workloads import Workload
from tests.unit.fakes import FakeDriver

NOOP = Workload("noop", "tiny", ("true",), "exit", 5.0)


def build_bench(folder: Path, driver: FakeDriver) -> Bench:
    scratch = folder / "scratch"
    scratch.mkdir()
    return Bench(
        run_id="r",
        drivers={driver.name: driver},
        images={"tiny": Image("tiny", "sha256:0", folder, {})},
        workloads={"noop": NOOP},
        fixed={(driver.name, "tiny"): [Measurement("portability.first", 5.0)]},
        scratch=scratch,
        logs=folder / "logs",
        tree=None,
        sleep=lambda _: None,
    )


def build_trials(count: int, platform: str = "namespace") -> list[ScheduledTrial]:
    return [ScheduledTrial(n, n, 0, platform, "noop", warmup=n == 0) for n in range(count)]


def test_a_limit_that_cannot_be_had_is_named_with_its_reason(tmp_path: Path) -> None:
    """A disk that no file system can have, and writing where there is no group to limit it in."""
    bench = replace(build_bench(tmp_path, FakeDriver()), disk=4096, io=4096)
    (outcome,) = run_schedule(build_trials(1), bench)
    assert outcome.status == "ok", outcome.error
    refused = read_refused(outcome.details)
    assert set(refused) == {"disk", "io"}
    assert refused["disk"].startswith("this host gives no file system of 4KiB for")
    conditions = parse_conditions(outcome.details[KEY])
    for name, reason in refused.items():
        assert conditions[name].value == NONE
        assert reason in conditions[name].how
        assert "a store of its own" not in conditions[name].how
        assert f"the plan's `{name}` limits nothing here: {reason}" in format_refused(
            outcome.details
        )
    assert list(bench.scratch.iterdir()) == []


def values_of(outcome: Outcome, metric: str) -> Sequence[float]:
    return [row.value for row in outcome.measurements if row.metric == metric]


def test_a_trial_yields_its_metrics_and_leaves_nothing(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = build_bench(tmp_path, driver)
    outcomes = list(run_schedule(build_trials(3), bench))
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3
    assert [outcome.warmup for outcome in outcomes] == [True, False, False]
    for outcome in outcomes:
        assert values_of(outcome, "startup.ready") == [0.010]
        assert values_of(outcome, "channel.round_trip")[0] == pytest.approx(0.008)
        assert values_of(outcome, "disk.instance_growth")[0] >= 10_000
        assert values_of(outcome, "portability.first") == [5.0]
        assert len(values_of(outcome, "startup.stopped")) == 1
    assert all(instance.stopped for instance in driver.started)
    assert list(bench.scratch.iterdir()) == []


def test_growth_is_read_when_the_workload_asks_for_it(tmp_path: Path) -> None:
    driver = FakeDriver(printed=b"one line\n@disk written\n@disk No\n@disk kept\n")
    (outcome,) = run_schedule(build_trials(1), build_bench(tmp_path, driver))
    rows = [row for row in outcome.measurements if row.metric == "disk.instance_growth"]
    assert [row.phase for row in rows] == ["", "written", "kept"]
    assert all(row.value >= 10_000 for row in rows)


def test_files_that_cannot_be_seen_have_no_rows_at_all(tmp_path: Path) -> None:
    driver = FakeDriver(seen=False, printed=b"@disk written\n")
    bench = build_bench(tmp_path, driver)
    (outcome,) = run_schedule(build_trials(1), bench)
    steps = list(run_density(replace(build_trials(1)[0], trial=9), 1, bench))
    assert outcome.status == "ok"
    rows = [row for each in (outcome, *steps[1:]) for row in each.measurements]
    assert [row for row in rows if row.metric.startswith("disk.")] == []


def test_a_failed_trial_is_stored_with_its_evidence_and_the_others_go_on(tmp_path: Path) -> None:
    driver = FakeDriver(problem=lambda spec: "broken" if spec.name.endswith("-1") else None)
    bench = build_bench(tmp_path, driver)
    first, failed, last = run_schedule(build_trials(3), bench)
    assert (first.status, last.status) == ("ok", "ok")
    assert (failed.status, failed.error, failed.hint) == ("failed", "broken", "look into it")
    assert failed.measurements == ()
    assert failed.details["logs"] == ["logs/trial-1/console.log"]
    assert (tmp_path / "logs/trial-1/console.log").read_text() == "what the guest said\n"
    assert list(bench.scratch.iterdir()) == []


def test_what_nobody_foresaw_ends_one_trial_with_its_kind_and_its_words(tmp_path: Path) -> None:
    """As a daemon whose answer has another form than it had."""

    class Strange(FakeDriver):
        @contextmanager
        def start_instance(self, spec: InstanceSpec) -> Iterator[Any]:
            if spec.folder.name == "t1":
                raise KeyError("IPAddress")
            with super().start_instance(spec) as instance:
                yield instance

    outcomes = list(run_schedule(build_trials(3), build_bench(tmp_path, Strange())))
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "ok"]
    assert outcomes[1].error == "internal error: KeyError: 'IPAddress'"
    assert outcomes[1].hint is not None


def test_the_second_arm_runs_on_the_same_driver_under_its_own_name(tmp_path: Path) -> None:
    driver = FakeDriver()
    (outcome,) = run_schedule(build_trials(1, "namespace#2"), build_bench(tmp_path, driver))
    assert outcome.platform == "namespace#2"
    assert outcome.status == "ok"


def test_an_emulated_machine_is_marked(tmp_path: Path) -> None:
    driver = FakeDriver(name="vm-direct", kind="vm", accelerator="tcg")
    (outcome,) = run_schedule(build_trials(1, "vm-direct"), build_bench(tmp_path, driver))
    assert outcome.accelerator == "tcg"
    assert "emulated" in outcome.marks
    assert values_of(outcome, "memory.guest_used") == [600]


def test_a_failed_trial_says_what_disturbed_it_and_that_its_guest_panicked(tmp_path: Path) -> None:
    driver = FakeDriver(
        name="vm-direct", kind="vm", problem=lambda _: "the guest's kernel panicked"
    )
    driver.console = "Kernel panic - not syncing: Attempted to kill init!\n"
    (outcome,) = run_schedule(build_trials(1, "vm-direct"), build_bench(tmp_path, driver))
    assert outcome.status == "failed"
    assert "panic" in outcome.marks
    assert "steal_s" in cast(dict[str, float], outcome.details["noise"])


def test_a_warm_image_that_is_evicted_during_a_trial_is_marked(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(4 << 20))

    def evict(_: float) -> None:
        with image.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    kept, lost = FakeDriver(watched=[image]), FakeDriver(watched=[image])
    bench = build_bench(tmp_path, kept)
    (quiet,) = run_schedule(build_trials(1), bench)
    (disturbed,) = run_schedule(
        build_trials(1), replace(bench, drivers={"namespace": lost}, sleep=evict)
    )
    assert "cache-not-warm" not in quiet.marks
    assert quiet.details["resident_share_after"] == 1.0
    assert disturbed.details["resident_share"] == 1.0
    assert "cache-not-warm" in disturbed.marks


def test_a_full_disk_fails_the_trial_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1 << 20})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    (outcome,) = run_schedule(build_trials(1), build_bench(tmp_path, FakeDriver()))
    assert outcome.status == "failed"
    assert outcome.error is not None and "1 MiB of disk are free" in outcome.error
    assert outcome.hint is not None and "HARNESS_CACHE" in outcome.hint


def test_start_rows_sum_to_the_headline_and_name_what_is_unknown() -> None:
    stamps = {"request": 0, "created": 10, "init": 5, "exec": 30, "ready": 100, "response": 130}
    rows = {(row.metric, row.phase): row.value for row in build_start_rows(stamps, {"": 2.0})}
    phases = [value for (name, phase), value in rows.items() if name == "startup.phase"]
    assert sum(phases) == pytest.approx(rows["startup.response", ""])
    assert rows["startup.phase", "residual"] == pytest.approx(20e-9), "init came before created"
    assert rows["startup.cpu", ""] == 2.0


def test_a_density_series_keeps_its_instances_and_counts_them(tmp_path: Path) -> None:
    driver = FakeDriver()
    bench = build_bench(tmp_path, driver)
    running: list[int] = []
    first = replace(build_trials(1)[0], trial=100)
    for outcome in run_density(first, 3, bench):
        running.append(sum(not instance.stopped for instance in driver.started))
        assert outcome.status == "ok"
        assert outcome.instances == running[-1]
        assert outcome.trial == 100 + outcome.instances
        assert len(values_of(outcome, "memory.available")) == 1
        (taken,) = values_of(outcome, "disk.occupied")
        assert taken >= 10_000 * outcome.instances
    assert running == [0, 1, 2, 3]
    assert all(instance.stopped for instance in driver.started)


def test_a_density_series_ends_at_the_first_failure(tmp_path: Path) -> None:
    driver = FakeDriver(problem=lambda spec: "no more" if spec.name.endswith("-2") else None)
    outcomes = list(run_density(build_trials(1)[0], 5, build_bench(tmp_path, driver)))
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "failed"]
    assert outcomes[-1].error == "namespace with 2 instances: no more"
    assert all(instance.stopped for instance in driver.started)
    assert all(each.details["density"] == {"asked": 5} for each in outcomes), "failed ones too"


def test_a_density_series_says_what_the_host_did_meanwhile(tmp_path: Path) -> None:
    slept: list[float] = []
    bench = replace(build_bench(tmp_path, FakeDriver()), sleep=slept.append, settle=0.2)
    first, *others = run_density(build_trials(1)[0], 2, bench)
    still = first.details["steady"]
    assert isinstance(still, dict) and slept.count(0.25) * 0.25 == still["waited_s"] >= 1
    assert values_of(first, "memory.drift") == [still["spread"]]
    assert slept.count(0.2) == 3 and "steady" not in others[0].details
    for each in (first, *others):
        told = each.details["noise"]
        assert isinstance(told, dict) and "steal_s" in told and "pressure_memory_s" in told


def test_an_exception_that_nobody_expected_fails_its_trial_and_no_other(tmp_path: Path) -> None:
    def break_second(spec: InstanceSpec) -> None:
        if spec.name.endswith("-1"):
            raise KeyError("IPAddress")

    bench = build_bench(tmp_path, FakeDriver(problem=break_second))
    outcomes = list(run_schedule(build_trials(3), bench))
    assert [each.status for each in outcomes] == ["ok", "failed", "ok"]
    broken = outcomes[1]
    assert broken.error == "internal error: KeyError: 'IPAddress'"
    assert broken.hint == "a fault of the harness; the trial's traceback.log shows where"
    assert broken.measurements == () and broken.details["logs"] == ["logs/trial-1/traceback.log"]
    assert "break_second" in (bench.logs / "trial-1" / "traceback.log").read_text()
    assert list(bench.scratch.iterdir()) == []
