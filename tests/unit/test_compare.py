"""`python -m harness compare`: what it refuses, what it finds, and what it says to machines."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.__main__ import main
from harness.analysis.aggregate import load_samples
from harness.analysis.compare import find_change
from harness.analysis.compare_sides import KEY, load_side
from harness.analysis.compare_traits import DIMENSIONS
from harness.analysis.noise_floor import compare_arms, find_floors
from harness.analysis.results import load_results
from harness.analysis.statistics import correct_holm
from harness.analysis.two_samples import compare_samples
from harness.errors import InputError
from harness.metrics import METRICS
from harness.model import Kind, Measurement, Outcome
from harness.store import Store, read_journal, read_manifest, write_manifest, write_samples
from tests.unit.synthetic import (
    Synthetic,
    build_manifest,
    build_outcomes,
    build_series,
    write_run,
)

SMALL = Synthetic(("process", "namespace", "vm-direct"), ("namespace",), ("noop",), blocks=10)
Change = Callable[[Outcome], Outcome | None]


def write_changed(folder: Path, change: Change, plan: Synthetic = SMALL) -> Path:
    """A run in which trials are changed, or left out where ``change`` gives None."""
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in build_outcomes(plan):
            changed = change(outcome)
            if changed is not None:
                store.append(changed)
    write_samples(folder)
    return folder


def scale(metric: str, factor: float, platform: str = "namespace") -> Change:
    """Every value of a metric on a platform and its second arm times a factor."""

    def change(outcome: Outcome) -> Outcome:
        if not outcome.platform.startswith(platform):
            return outcome
        rows = tuple(
            replace(row, value=row.value * factor) if row.metric == metric else row
            for row in outcome.measurements
        )
        return replace(outcome, measurements=rows)

    return change


def edit_manifest(folder: Path, **changes: object) -> Path:
    write_manifest(folder, {**read_manifest(folder), **changes})
    return folder


def compare(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["compare", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def compare_json(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    code, out, _ = compare(capsys, *words, "--json")
    return code, json.loads(out)


def find(document: Mapping[str, Any], platform: str, metric: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(
        each
        for each in document["comparisons"]
        if (each["platform"], each["metric"], each["phase"]) == (platform, metric, "")
    )
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("base") / "base", SMALL)


# ---- what it finds -----------------------------------------------------------------------------


def test_a_run_of_another_seed_is_no_regression(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = compare(capsys, base, write_run(tmp_path / "new", replace(SMALL, seed=2)))
    assert (code, err) == (0, "")
    assert "no regression in" in out.splitlines()[-1]
    assert "namespace#2" not in out


def test_the_even_and_the_odd_blocks_of_one_run_do_not_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(SMALL, blocks=24)
    halves = [
        write_changed(
            tmp_path / str(half),
            lambda outcome, half=half: outcome if outcome.block % 2 == half else None,  # type: ignore[misc]
            plan,
        )
        for half in (0, 1)
    ]
    code, document = compare_json(capsys, *halves, "--all")
    assert code == 0
    assert document["verdict"] == "no regression"
    assert len(document["comparisons"]) > 50
    assert [each for each in document["comparisons"] if each["regression"]] == []


@pytest.mark.parametrize(
    ("metric", "factor", "verdict", "code"),
    [
        ("startup.ready", 1.5, "slower", 1),
        ("startup.ready", 0.6, "faster", 0),
        ("memory.pss", 1.2, "larger", 1),
        ("memory.pss", 0.8, "smaller", 0),
        ("memory.pss", 1.02, "equivalent", 0),
        ("disk.image_allocated", 1.1, "larger", 1),
    ],
)
def test_a_change_for_the_worse_ends_with_1_one_for_the_better_with_0(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    metric: str,
    factor: float,
    verdict: str,
    code: int,
) -> None:
    new = write_changed(tmp_path / "new", scale(metric, factor), replace(SMALL, seed=3))
    found, document = compare_json(capsys, base, new)
    row = find(document, "namespace", metric)
    assert (found, row["verdict"], row["regression"]) == (code, verdict, code == 1)
    assert row["low"] <= row["ratio"] <= row["high"]
    assert row["ratio"] == pytest.approx(factor, rel=0.1)
    others = [each for each in document["comparisons"] if each["metric"] != metric]
    assert not any(each["regression"] for each in others)


def test_more_is_better_for_what_is_given_back(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert METRICS["disk.reclaimed"].lower_is_better is False
    for number, (factor, code) in enumerate(((0.5, 1), (2.0, 0))):
        new = write_changed(tmp_path / str(number), scale("disk.reclaimed", factor))
        assert compare(capsys, base, new, "--all")[0] == code


@pytest.mark.parametrize(
    ("span", "p", "floor", "word"),
    [
        ((1.3, 1.2, 1.4), 0.001, 0.1, "slower"),
        ((0.7, 0.6, 0.8), 0.001, 0.1, "faster"),
        ((1.3, 1.2, 1.4), 0.06, 0.1, "inconclusive"),
        ((0.7, 0.6, 0.8), 0.06, 0.1, "inconclusive"),
        ((1.3, 1.2, 1.4), float("nan"), 0.1, "inconclusive"),
        ((1.3, 1.04, 1.6), 0.001, 0.1, "inconclusive"),
        ((1.3, 1.2, 1.4), 0.001, 0.31, "inconclusive"),
        ((0.77, 0.7, 0.8), 0.001, 0.31, "inconclusive"),
        ((1.3, 1.2, 1.4), 0.001, 0.29, "slower"),
        ((1.0, 0.96, 1.04), 0.9, 0.01, "equivalent"),
        ((1.03, 1.02, 1.04), 0.001, 0.01, "equivalent"),
        ((1.0, 0.96, 1.04), 0.9, 0.06, "inconclusive"),
        ((1.0, 0.94, 1.04), 0.9, 0.01, "inconclusive"),
    ],
)
def test_a_change_asks_for_interval_floor_and_p(
    span: tuple[float, float, float], p: float, floor: float, word: str
) -> None:
    assert find_change("s", span, p, 0.05, floor) == word


def test_p_is_corrected_over_all_that_is_compared(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path / "new", replace(SMALL, seed=5))
    few, many = compare_json(capsys, base, new)[1], compare_json(capsys, base, new, "--all")[1]
    sides = [load_side(label, folder) for label, folder in (("BASE", base), ("NEW", new))]
    keys = [tuple(each[name] for name in KEY) for each in few["comparisons"]]
    pairs = [(sides[0].series[key].values, sides[1].series[key].values) for key in keys]
    usable = [number for number, (one, _) in enumerate(pairs) if (one > 0).all()]
    plain = compare_samples([pairs[number] for number in usable], 1).p
    said = [few["comparisons"][number]["p"] for number in usable]
    constant = sum(each["p"] is not None for each in few["comparisons"]) - len(usable)
    expected = correct_holm(np.concatenate([plain, np.ones(constant)]))[: len(usable)]
    assert said == pytest.approx(list(expected))
    for each in few["comparisons"]:
        row = find(many, each["platform"], each["metric"])
        assert row["p"] is None or row["p"] >= each["p"]


def test_a_change_below_the_threshold_is_none_and_another_threshold_finds_it(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_changed(tmp_path / "new", scale("disk.image_allocated", 1.04))
    assert compare(capsys, base, new)[0] == 0
    code, out, _ = compare(capsys, base, new, "--threshold", "2 %")
    assert code == 1
    assert "regression: disk.image_allocated of namespace with noop is larger, 1.04 ×" in out


def test_a_change_within_the_noise_of_the_a_a_arm_is_inconclusive(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second arm of NEW is twice the first: the run could not have seen 30 %."""

    def disturb(outcome: Outcome) -> Outcome:
        factor = 1.3 * (2.0 if outcome.platform.endswith("#2") else 1.0)
        return scale("startup.ready", factor)(outcome) or outcome

    code, document = compare_json(capsys, base, write_changed(tmp_path / "new", disturb))
    row = find(document, "namespace", "startup.ready")
    assert (code, row["verdict"]) == (0, "inconclusive")
    assert row["floor"] > 0.8 and row["detectable"] >= row["floor"]


def test_the_noise_floor_is_the_one_of_the_run_s_own_report(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = find_floors(compare_arms(load_samples(base), 1))
    _, document = compare_json(capsys, base, base)
    for metric in ("startup.ready", "memory.pss"):
        row = find(document, "namespace", metric)
        assert row["floor"] == pytest.approx(own.find(("noop", "warm", metric), "container"))


def test_a_platform_that_no_longer_starts_is_a_regression(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(SMALL, failing=[("vm-direct", "noop")])
    new = write_run(tmp_path / "new", plan)
    code, document = compare_json(capsys, base, new)
    assert (code, document["verdict"]) == (1, "regression")
    assert document["broken"] == [{"in": "new", "platform": "vm-direct", "workload": "noop"}]
    _, out, _ = compare(capsys, base, new)
    assert "regression: every trial of vm-direct with noop failed in NEW" in out
    code, document = compare_json(capsys, new, base)  # it was broken before, and is not now
    assert (code, document["broken"]) == (0, [])


def test_a_density_series_does_not_hide_that_every_trial_failed(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(SMALL, failing=[("vm-direct", "noop")])
    folder = tmp_path / "new"
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in [*build_outcomes(plan), *build_series(200e6, 4)]:
            store.append(outcome)
    write_samples(folder)
    code, document = compare_json(capsys, base, folder)
    assert (code, document["verdict"]) == (1, "regression")


def test_marks_of_trials_do_not_withhold_what_an_image_takes(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    larger = scale("disk.image_allocated", 2.0, "vm-direct")
    new = write_changed(
        tmp_path / "new", lambda each: replace(larger(each) or each, marks=(*each.marks, "steal"))
    )
    code, document = compare_json(capsys, base, new)
    row = find(document, "vm-direct", "disk.image_allocated")
    assert (code, row["withheld"], row["verdict"]) == (1, "", "larger")


def test_what_only_one_run_has_is_said_and_the_rest_compared(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(SMALL, platforms=("process", "namespace", "crun"), workloads=("noop", "httpd"))
    code, out, _ = compare(capsys, base, write_run(tmp_path / "new", plan))
    assert code == 0
    assert "only in BASE: vm-direct with noop" in out
    assert "only in NEW: crun with noop" in out
    assert "only in NEW: namespace with httpd" in out


def test_a_moved_control_is_said_and_can_be_divided_out(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(outcome: Outcome) -> Outcome:
        return scale("startup.ready", 1.5, "")(outcome) or outcome

    new = write_changed(tmp_path / "new", slow, replace(SMALL, seed=4))
    code, out, _ = compare(capsys, base, new)
    assert code == 1
    assert "note: the control moved: process with noop itself became slower" in out
    code, document = compare_json(capsys, base, new, "--relative-to", "process")
    assert (code, document["relative_to"]) == (0, "process")
    assert find(document, "namespace", "startup.ready")["unit"] == "×"
    assert "process" not in {each["platform"] for each in document["comparisons"]}
    code, _, err = compare(capsys, base, new, "--relative-to", "docker")
    assert code == 2
    assert "--relative-to: BASE has no platform 'docker' (measured are namespace," in err


# ---- what it refuses ---------------------------------------------------------------------------


HOST = build_manifest(SMALL)["host"]
assert isinstance(HOST, dict)
KERNEL = {"release": "6.1.0-42-cloud-amd64", "digest": "sha256:" + "d5" * 32}


@pytest.mark.parametrize(
    ("dimension", "changes", "said"),
    [
        ("host", {"host": {**HOST, "name": "b-2"}}, "host is bench-1 in BASE and b-2 in NEW"),
        ("cpu", {"host": {**HOST, "cpu": "Xeon"}}, "cpu is AMD EPYC 7763 64-Core Processor in"),
        ("cpus", {"host": {**HOST, "cpus": 64}}, "cpus is not stored in BASE and 64 in NEW"),
        (
            "memory",
            {"host": {**HOST, "memory": 8 << 30}},
            "memory is 24 GiB in BASE and 8 GiB in NEW",
        ),
        ("kernel", {"host": {**HOST, "kernel": "6.1"}}, "kernel is 6.18.5 in BASE and 6.1 in NEW"),
        ("hypervisor", {"host": {**HOST, "hypervisor": "KVM"}}, "hypervisor is not stored"),
        ("cgroups", {"cgroups": "v2"}, "cgroups is not stored in BASE and v2 in NEW"),
        ("user", {"privileged": False}, "user is not stored in BASE and an ordinary user in NEW"),
        ("image", {"images": {"tiny": {"digest": "sha256:aa"}}}, "image of `tiny` is sha256:5f5f"),
        ("guest-kernel", {"guest_kernel": KERNEL}, "guest-kernel is 6.1.0-42-cloud-amd64 (sha256:"),
        (
            "limits",
            {"plan": {**build_manifest(SMALL)["plan"], "memory": 64}},  # type: ignore[dict-item]
            "the limit of memory is not stored in BASE and 64 B in NEW",
        ),
    ],
)
def test_a_difference_is_refused_by_name_with_both_values_unless_it_is_allowed(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dimension: str,
    changes: dict[str, object],
    said: str,
) -> None:
    new = edit_manifest(write_run(tmp_path / "new", SMALL), **changes)
    code, out, err = compare(capsys, base, new)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: not comparable: {said}")
    assert err.count("\n") == 1
    assert f"--allow {dimension} compares them all the same" in err
    code, document = compare_json(capsys, base, new)
    assert (code, document["verdict"]) == (2, "not comparable")
    assert [each["dimension"] for each in document["refused"]] == [dimension]
    assert document["comparisons"] == []
    code, document = compare_json(capsys, base, new, "--allow", dimension)
    assert (code, document["verdict"]) == (0, "no regression")
    assert [each["dimension"] for each in document["accepted"]] == [dimension]


@pytest.mark.parametrize(
    ("dimension", "plan"),
    [
        ("accelerator", replace(SMALL, accelerator="kvm")),
        ("cache", replace(SMALL, cache="cold")),
    ],
)
def test_what_was_measured_in_another_way_is_refused(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dimension: str,
    plan: Synthetic,
) -> None:
    new = write_run(tmp_path / "new", plan)
    code, _, err = compare(capsys, base, new)
    assert code == 2
    assert dimension in err
    assert compare(capsys, base, new, "--allow", dimension)[0] == 0


def test_a_workload_of_another_definition_is_refused_by_the_key_that_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for seconds in ("0.05", "0.06"):
        plan = build_manifest(SMALL)["plan"]
        assert isinstance(plan, dict)
        workload = {
            "name": "noop", "image": "tiny", "command": ["sleep", seconds], "ready": "exit",
            "description": f"sleeps {seconds} s",
        }  # fmt: skip
        folder = write_run(tmp_path / seconds, SMALL)
        runs.append(edit_manifest(folder, plan={**plan, "workloads": [workload]}))
    code, _, err = compare(capsys, *runs)
    assert code == 2
    assert 'workload of `noop: command` is ["sleep", "0.05"] in BASE and ["sleep", "0.06"]' in err
    assert "description" not in err
    assert compare(capsys, *runs, "--allow", "workload")[0] == 0


def test_several_dimensions_are_named_together_and_allowed_together(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(HOST, dict)
    host = {**HOST, "name": "other", "cpu": "another"}
    new = edit_manifest(write_run(tmp_path / "new", SMALL), host=host)
    code, _, err = compare(capsys, base, new)
    assert code == 2
    assert "--allow host,cpu compares" in err
    assert compare(capsys, base, new, "--allow", "host")[0] == 2
    assert compare(capsys, base, new, "--allow", "host, cpu")[0] == 0
    assert compare(capsys, base, new, "--allow", "host", "--allow", "cpu")[0] == 0


REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def test_a_stored_run_says_what_its_sandboxes_ran_on_though_it_did_not_store_it() -> None:
    """The published run is one of those whose gVisor was always asked for ptrace."""
    manifest = read_manifest(REFERENCE)
    assert "gvisor" not in str(manifest["accelerator"])
    stored = {each.accelerator for each in read_journal(REFERENCE / "journal.jsonl")
              if each.platform == "gvisor"}  # fmt: skip
    assert stored == {"none"}
    side = load_side("BASE", REFERENCE)
    assert side.traits["accelerator", "gvisor"] == "ptrace"
    assert side.traits["accelerator", "runc"] == "none"
    samples = load_samples(REFERENCE)
    assert set(samples.loc[samples["platform"] == "gvisor", "accelerator"]) == {"ptrace"}
    results = load_results(REFERENCE)
    assert (results.accelerators["gvisor"], results.accelerators["crun"]) == ("ptrace", "none")


def write_sandboxes(folder: Path, accelerator: str, *, told: bool, later: str = "") -> Path:
    """A run of sandboxes; ``later`` is what the second half of its blocks has, as a resumed run."""
    plan = Synthetic(("process", "gvisor", "docker+gvisor"), (), ("noop",), blocks=10)
    manifest = build_manifest(plan)
    if told:
        entry = {"name": accelerator, "proved": False, "reason": "this release's own choice"}
        manifest = {**manifest, "accelerator": dict.fromkeys(plan.platforms[1:], entry)}
    with Store.create(folder, manifest) as store:
        for outcome in build_outcomes(plan):
            found = later if later and outcome.block >= 5 else accelerator
            kind: Kind = "process" if outcome.platform == "process" else "sandbox"
            store.append(replace(outcome, kind=kind, accelerator=found if kind == "sandbox"
                                 else "none"))  # fmt: skip
    write_samples(folder)
    return folder


@pytest.mark.parametrize(("now", "code"), [("ptrace", 0), ("systrap", 2)])
def test_an_old_baseline_of_sandboxes_is_compared_as_what_it_ran_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: str, code: int
) -> None:
    old = write_sandboxes(tmp_path / "old", "none", told=False)
    new = write_sandboxes(tmp_path / "new", now, told=True)
    found, out, err = compare(capsys, old, new)
    assert found == code
    if code:
        assert "accelerator of `gvisor` is ptrace in BASE and systrap in NEW" in err
        assert "docker+gvisor" not in err, "not stored is no difference"
    else:
        assert "BASE: what docker+gvisor ran on is not stored, so that was not checked" in out


def test_an_old_run_that_was_gone_on_with_has_one_state(tmp_path: Path) -> None:
    def drop_docker(folder: Path) -> Path:
        journal = folder / "journal.jsonl"
        lines = [each for each in journal.read_text().splitlines() if "docker+gvisor" not in each]
        journal.write_text("\n".join(lines) + "\n")
        write_samples(folder)
        return folder

    same = drop_docker(write_sandboxes(tmp_path / "same", "none", told=False, later="ptrace"))
    assert load_side("BASE", same).traits["accelerator", "gvisor"] == "ptrace"
    other = drop_docker(write_sandboxes(tmp_path / "other", "none", told=False, later="systrap"))
    with pytest.raises(InputError, match="more than one accelerator: ptrace and systrap"):
        load_side("BASE", other)


def test_a_little_less_memory_is_the_same_host_and_another_tool_is_only_noted(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(HOST, dict)
    host = {**HOST, "memory": (24 << 30) - (100 << 20)}
    tools = {"qemu": "8.0.0", "libvirt": "9.0.0", "python": "3.11.2"}
    new = edit_manifest(write_run(tmp_path / "new", SMALL), host=host, tools=tools)
    code, out, _ = compare(capsys, base, new)
    assert code == 0
    assert "note: qemu is 7.2.22 in BASE and 8.0.0 in NEW" in out


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["abc", "0", "0%", "-5%", "200%", "100%", "", "5", "nan%"])
def test_a_threshold_that_is_none_is_wrong_usage(
    base: Path, capsys: pytest.CaptureFixture[str], threshold: str
) -> None:
    code, out, err = compare(capsys, base, base, "--threshold", threshold)
    assert (code, out) == (2, "")
    assert f"--threshold: {threshold!r} is no share above 0 % and below 100 % (say it as 5%)" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [("colour", "unknown dimension 'colour' (there are host, cpu"), ("schema", "another schema")],
)
def test_a_dimension_that_is_none_cannot_be_allowed(
    base: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    code, _, err = compare(capsys, base, base, "--allow", name)
    assert code == 2
    assert said in err
    assert len(DIMENSIONS) == 14


def test_the_same_folder_twice_says_so(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = compare(capsys, base, base)
    assert code == 0
    assert "note: BASE and NEW are the same: nothing can differ" in out


def test_folders_that_are_no_runs_are_named(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, said in (
        (tmp_path, f"error: NEW: {tmp_path} is no result folder: no manifest.json"),
        (tmp_path / "none", f"error: NEW: {tmp_path / 'none'} is not there"),
    ):
        code, _, err = compare(capsys, base, folder)
        assert code == 2
        assert err.startswith(said)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text("{")
    assert compare(capsys, base, tmp_path / "broken")[2].endswith("damaged, not a JSON object\n")


@pytest.mark.parametrize("version", [0, 2, "one", None])
def test_another_schema_is_named(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], version: object
) -> None:
    new = write_run(tmp_path / "new", SMALL)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps({**manifest, "schema_version": version}))
    code, _, err = compare(capsys, base, new)
    assert code == 2
    assert "this release reads version 1" in err


def test_a_truncated_sample_file_is_an_error_and_a_missing_one_is_made_anew(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path / "new", SMALL)
    samples = new / "samples.parquet"
    samples.write_bytes(samples.read_bytes()[:-100])
    code, _, err = compare(capsys, base, new)
    assert code == 2
    assert "samples.parquet cannot be read" in err
    samples.unlink()
    assert compare(capsys, base, new)[0] == 0


def test_an_interrupted_run_is_compared_and_said_to_be_one(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_changed(tmp_path / "new", lambda each: each if each.block < 7 else None)
    (new / "samples.parquet").unlink()
    with (new / "journal.jsonl").open("a") as journal:
        journal.write('{"block": 7, "tri')
    code, out, _ = compare(capsys, base, new)
    assert code == 0
    assert "note: NEW holds 6 of 10 planned blocks" in out
    edit_manifest(new, ending={"reason": "precision"})  # it was precise enough: that is no gap
    assert "planned blocks" not in compare(capsys, base, new)[1]


def test_too_few_blocks_give_no_verdict_and_are_named(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_changed(tmp_path / "new", scale("startup.ready", 5), replace(SMALL, blocks=2))
    code, document = compare_json(capsys, base, new)
    assert (code, document["verdict"]) == (2, "not comparable")
    row = find(document, "namespace", "startup.ready")
    assert row["withheld"] == "NEW: only 2 blocks, 3 are needed"
    assert row["ratio"] is row["p"] is row["low"] is None
    code, out, err = compare(capsys, base, new)
    assert code == 2
    assert out.endswith("nothing could be compared: 15 withheld\n")
    assert err.startswith("error: not comparable: every comparison is withheld; NEW: only 2 blocks")


def test_disturbed_trials_withhold_a_verdict(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_changed(tmp_path / "new", lambda each: replace(each, marks=(*each.marks, "steal")))
    _, document = compare_json(capsys, base, new)
    row = find(document, "vm-direct", "startup.ready")
    assert row["withheld"].startswith("NEW: 10 of 10 trials were disturbed (steal 10)")


def test_all_trials_failed_on_one_side_is_not_comparable(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = [(name, "noop") for name in (*SMALL.platforms, "namespace#2")]
    new = write_run(tmp_path / "new", replace(SMALL, failing=failing))
    code, out, err = compare(capsys, base, new)
    assert (code, out) == (2, "")
    assert "NEW has nothing: all of its 40 trials failed" in err


def test_runs_of_other_platforms_have_nothing_in_common(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path / "new", Synthetic(("crun",), (), ("noop",), blocks=4))
    code, _, err = compare(capsys, base, new)
    assert code == 2
    assert "nothing in common; BASE has namespace with noop, process with noop, vm-dir" in err
    assert "NEW has crun with noop" in err


def test_zeros_have_no_ratio_unless_all_are_zero(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Synthetic containers grow by nothing at all in both runs; here they grow in one block."""

    def grow(outcome: Outcome) -> Outcome:
        if outcome.platform != "namespace" or outcome.block % 2:
            return outcome
        kept = [row for row in outcome.measurements if row.metric != "disk.instance_growth"]
        return replace(outcome, measurements=(*kept, Measurement("disk.instance_growth", 4096.0)))

    _, document = compare_json(capsys, base, write_changed(tmp_path / "new", grow))
    row = find(document, "namespace", "disk.instance_growth")
    assert row["withheld"] == "BASE: values of 0 or less have no ratio"
    assert row["shift"] is not None
    assert find(document, "process", "disk.instance_growth")["verdict"] == "equivalent"


def test_the_document_has_its_keys_and_is_the_same_twice(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = write_run(tmp_path / "new", replace(SMALL, seed=9))
    _, document = compare_json(capsys, base, new)
    assert list(document) == [
        "format", "verdict", "base", "new", "threshold", "significance", "confidence",
        "resamples", "correction", "relative_to", "allowed", "refused", "accepted", "missing",
        "broken", "notes", "comparisons",
    ]  # fmt: skip
    assert list(document["comparisons"][0]) == [
        "platform", "workload", "metric", "phase", "unit", "n_base", "n_new", "base", "new",
        "ratio", "low", "high", "shift", "p", "floor", "detectable", "verdict", "regression",
        "withheld",
    ]  # fmt: skip
    assert document == compare_json(capsys, base, new)[1]
    assert len(read_journal(new / "journal.jsonl")) == 44


def test_the_page_about_it_names_every_dimension_and_key(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/compare.md").read_text()
    for name, words in DIMENSIONS.items():
        assert f"| `{name}` | {words} |" in page
    _, document = compare_json(capsys, base, base)
    for key in (*document, *document["comparisons"][0]):
        assert f"`{key}`" in page, key


def test_without_an_a_a_arm_the_floor_is_said_to_be_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(SMALL, aa=())
    runs = [write_run(tmp_path / str(seed), replace(plan, seed=seed)) for seed in (1, 2)]
    code, out, _ = compare(capsys, *runs)
    assert code == 0
    assert "note: no A/A arm in either run" in out
