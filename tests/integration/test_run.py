"""`python -m harness run` from end to end, on real containers and real virtual machines."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup
from harness.drivers import PLATFORMS
from harness.images.model import GuestKernel, Image
from harness.model import base_platform, build_phases
from harness.paths import register_dir, scratch_root

pytestmark = pytest.mark.timeout(300)  # a whole run is in it

PROJECT = Path(__file__).parents[2]
ALL = (
    "process",
    "namespace",
    "crun",
    "runc",
    "gvisor",
    "podman",
    "docker",
    "vm-direct",
    "vm-microvm",
    "vm-restore",
)


def harness_words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness", *arguments]


def run_harness(
    *arguments: str, cwd: Path = PROJECT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
    return subprocess.run(
        harness_words(*arguments),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [document for line in lines if "platform" in (document := json.loads(line))]


def list_left_behind(run_id: str) -> list[str]:
    """Processes, groups, scratch folders and records of a run that are still there."""
    found = [str(path) for path in cgroup.MOUNT.glob(f"**/{cgroup.PREFIX}{run_id}")]
    found += [str(path) for path in scratch_root().glob(run_id)]
    found += [str(path) for path in register_dir().glob(f"{run_id}.json")]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if f"{cgroup.PREFIX}{run_id}".encode() in words or f"/{run_id}/".encode() in words:
            found.append(words.decode(errors="replace"))
    return found


def wait_until_clean(run_id: str) -> list[str]:
    """What is left behind after some moments of grace for the kernel."""
    for _ in range(100):
        if not (left := list_left_behind(run_id)):
            break
        time.sleep(0.05)
    return left


def platforms(names: Sequence[str]) -> list[str]:
    return [word for name in names for word in ("--platform", name)]


@pytest.fixture(scope="module")
def whole_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_image: Image, guest_kernel: GuestKernel
) -> Path:
    """One small run of everything; what is asked of a result folder is asked of this one."""
    assert tiny_image.digest and guest_kernel.digest
    out = tmp_path_factory.mktemp("whole") / "out"
    plan = out.with_name("plan.toml")
    plan.write_text("density = 1\nwarmup = 0\n")  # every platform has its series, a short one
    words = ("--quick", "--start-engines", "--seed", "5", "--out", str(out))
    done = run_harness("run", str(plan), *words)
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    return out


def test_every_combination_is_measured_in_every_block(whole_run: Path) -> None:
    outcomes = read_outcomes(whole_run)
    assert [each["error"] for each in outcomes if each["status"] != "ok"] == []
    trials = [each for each in outcomes if not each["warmup"] and each["milestones"]]
    counted: dict[tuple[str, str], int] = {}
    for each in trials:
        key = (each["platform"], each["workload"])
        counted[key] = counted.get(key, 0) + 1
    expected = {(platform, "noop") for platform in (*ALL, "namespace#2", "vm-direct#2")}
    expected |= {(platform, "httpd") for platform in (*ALL[1:], "namespace#2", "vm-direct#2")}
    manifest = json.loads((whole_run / "manifest.json").read_text())
    if any(line.startswith("gvisor with httpd: ") for line in manifest["left_out"]):
        expected.remove(("gvisor", "httpd"))
    assert counted == dict.fromkeys(expected, 3)


def test_phases_of_every_trial_sum_to_its_total(whole_run: Path) -> None:
    for each in read_outcomes(whole_run):
        if not each["milestones"]:
            continue
        rows = {(row["metric"], row["phase"]): row["value"] for row in each["measurements"]}
        phases = build_phases(each["milestones"])
        assert sum(phases.values()) == pytest.approx(rows["startup.ready", ""], abs=1e-9)
        # crun may write its state when the agent runs already, and on a busy host libvirt's word
        # may come after the guest's own: that span is then not attributed.
        told_late = each["platform"] == "crun" or each["platform"].startswith("vm")
        assert phases["residual"] == 0 or told_late, each["milestones"]
        booted = base_platform(each["platform"]) in ("vm-direct", "vm-microvm")
        assert ("kernel" in phases) == booted
        assert rows["startup.cpu", ""] > 0
        assert rows["memory.pss", ""] > 0


def test_a_virtual_machine_is_labelled_with_what_it_ran_on(whole_run: Path) -> None:
    manifest = json.loads((whole_run / "manifest.json").read_text())
    found = manifest["accelerator"]
    assert set(found) == {name for name in ALL if name.startswith("vm")} | {"gvisor"}
    for each in read_outcomes(whole_run):
        if each["platform"] in found and each["milestones"]:
            accelerator = found[each["platform"]]
            assert each["accelerator"] == accelerator["name"]
            assert ("emulated" in each["marks"]) == (accelerator["name"] == "tcg")
            assert accelerator["proved"] == (each["kind"] == "vm") and accelerator["reason"]


def test_the_layout_is_the_contract(whole_run: Path) -> None:
    names = {path.name for path in whole_run.iterdir()}
    wanted = {"manifest.json", "journal.jsonl", "samples.parquet", "pyperf", "plots"}
    assert names >= wanted | {"report.html", "report.md"}
    assert (whole_run / "pyperf" / "vm-direct.noop.json").exists()


def test_nothing_is_left_after_a_run(whole_run: Path) -> None:
    run_id = json.loads((whole_run / "manifest.json").read_text())["run_id"]
    assert wait_until_clean(run_id) == []


def test_pyperf_reads_the_results(whole_run: Path) -> None:
    pyperf = [sys.executable, "-m", "pyperf"]
    files = [str(whole_run / "pyperf" / f"{name}.noop.json") for name in ("process", "namespace")]
    for words in (["stats", *files], ["hist", files[0]], ["compare_to", files[0], files[0]]):
        done = subprocess.run([*pyperf, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_report_made_again_is_the_same(whole_run: Path) -> None:
    before = (whole_run / "report.html").read_bytes()
    assert run_harness("report", str(whole_run)).returncode == 0
    assert (whole_run / "report.html").read_bytes() == before


# ---- ends that were not planned ----------------------------------------------------------------


def start_long_run(out: Path) -> "subprocess.Popen[str]":
    words = ["run", "--blocks", "40", "--seed", "3", "--out", str(out), "--workload", "noop"]
    return subprocess.Popen(
        harness_words(*words, *platforms(("namespace", "vm-microvm"))),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_trials(out: Path, count: int, process: "subprocess.Popen[str]") -> str:
    """Wait until so many trials are stored; the run's id."""
    for _ in range(1200):
        journal = out / "journal.jsonl"
        if journal.exists() and journal.read_bytes().count(b"\n") > count:
            return str(json.loads((out / "manifest.json").read_text())["run_id"])
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("no trial was stored")


@pytest.mark.parametrize("delay", [0.0, 0.4, 0.9])
def test_kill_9_leaves_nothing_and_loses_only_the_running_trial(
    delay: float, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with start_long_run(out) as process:
        run_id = wait_for_trials(out, 4, process)
        time.sleep(delay)
        process.kill()
        process.communicate()
    assert wait_until_clean(run_id) == []
    assert len(read_outcomes(out)) >= 4


def test_ctrl_c_stops_cleanly_and_resume_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start_long_run(out) as process:
        run_id = wait_for_trials(out, 5, process)
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in talk
    assert "--resume" in talk
    assert wait_until_clean(run_id) == []
    before = read_outcomes(out)

    manifest = json.loads((out / "manifest.json").read_text())
    manifest["plan"].update(blocks=2, density=0)  # enough to see that it goes on
    (out / "manifest.json").write_text(json.dumps(manifest))
    done = run_harness("run", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    after = read_outcomes(out)
    assert after[: len(before)] == before
    numbers = [each["trial"] for each in after]
    assert sorted(numbers) == list(range(3 * 4)), "each trial once: 3 blocks of 4 arms"
    assert (out / "report.html").exists()


# ---- bad input, and trials that fail -----------------------------------------------------------


WORKLOADS = {
    "good": 'name = "good"\nimage = "tiny"\ncommand = ["true"]\nready = "exit"\n',
    "missing": 'name = "missing"\nimage = "tiny"\ncommand = ["nope"]\nready = "exit"\n',
    "stuck": 'name = "stuck"\nimage = "tiny"\ncommand = ["sleep", "99"]\nready = "exit"\n'
    'timeout = "4s"\n',
    "panics": 'name = "panics"\nimage = "tiny"\nready = "exit"\nskip = ["namespace"]\n'
    'command = ["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 9"]\n',
}
PLAN = """
platforms = ["namespace", "vm-microvm"]
workloads = ["./good.toml", "./missing.toml", "./stuck.toml", "./panics.toml"]
blocks = 2
warmup = 0
seed = 1
density = 0
aa = []
"""


def test_failing_trials_are_stored_with_reasons_and_logs_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    for name, text in WORKLOADS.items():
        (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "plan.toml").write_text(PLAN)
    done = run_harness("run", "plan.toml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(tmp_path / "out")
    by_workload: dict[str, list[dict[str, Any]]] = {}
    for each in outcomes:
        by_workload.setdefault(each["workload"], []).append(each)
    assert {each["status"] for each in by_workload["good"]} == {"ok"}
    reasons = {"missing": "exec nope", "stuck": "not ready within 4 s", "panics": "panic"}
    for workload, reason in reasons.items():
        assert by_workload[workload]
        for each in by_workload[workload]:
            assert each["status"] == "failed"
            assert reason in each["error"], each
            assert each["measurements"] == []
            if each["platform"] == "vm-microvm":
                names = {Path(log).name for log in each["details"]["logs"]}
                assert names >= {"console.log", "domain.xml"}
                assert all((tmp_path / "out" / log).exists() for log in each["details"]["logs"])
    report = (tmp_path / "out" / "report.html").read_text()
    assert "exec nope" in report
    run_id = json.loads((tmp_path / "out" / "manifest.json").read_text())["run_id"]
    assert wait_until_clean(run_id) == []


def test_a_run_whose_every_trial_fails_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "missing.toml").write_text(WORKLOADS["missing"])
    words = ["--workload", "./missing.toml", "--platform", "namespace", "--quick"]
    done = run_harness("run", *words, "--out", "out", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: every trial failed")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--platform", "namespaze"], 2, "did you mean"),
        (["--workload", "noops"], 2, "noop"),
        (["--blocks", "0"], 2, "blocks"),
        (["--blocks", "many"], 2, "blocks"),
        (["--image", "nothing"], 2, "nothing"),
        (["--blocs", "3"], 2, "--blocks"),
        (["--out", "/proc/nowhere"], 2, "/proc/nowhere"),
        (["--accelerator", "kvm", "--platform", "vm-direct"], 3, "kvm"),
        (["plan-that-is-not-there.toml"], 2, "plan-that-is-not-there.toml"),
    ],
)
def test_bad_input_is_one_line_with_the_right_code(
    words: Sequence[str], code: int, said: str, tmp_path: Path
) -> None:
    if "kvm" in words:
        kvm = json.loads(run_harness("doctor", "--json", "--no-prove").stdout)["accelerator"]
        if kvm["name"] == "kvm":
            code, said = 0, "report"  # a host whose KVM is proved simply runs it
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    done = run_harness("run", "--quick", *words, *out)
    assert done.returncode == code, done.stderr
    if code:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert said.lower() in last.lower()
        assert "Traceback" not in done.stderr


def test_doctor_proves_every_platform_by_a_trial(
    tiny_image: Image, guest_kernel: GuestKernel
) -> None:
    assert tiny_image.digest and guest_kernel.digest
    done = run_harness("doctor", "--json", "--start-engines")
    checks = {each["name"]: each for each in json.loads(done.stdout)["platforms"]}
    assert set(checks) == set(PLATFORMS)
    assert {name: each["reason"] for name, each in checks.items() if not each["proved"]} == {}
    assert all(each["seconds"] > 0 for each in checks.values())


def test_doctor_says_what_mends_a_platform_that_is_not_there() -> None:
    done = run_harness("doctor", "--json", "--no-prove", DOCKER_HOST="unix:///nowhere/docker.sock")
    checks = {each["name"]: each for each in json.loads(done.stdout)["platforms"]}
    assert not checks["docker"]["available"]
    assert "--start-engines" in checks["docker"]["reason"]
