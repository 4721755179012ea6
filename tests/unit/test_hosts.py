"""The words of `make hosts`: what counts as a failure, and how the table is told."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from harness.model import Outcome
from harness.store import Journal, write_manifest
from tests.hosts import commands, odd
from tests.hosts.findings import Book, Check, Finding, format_table, read_findings
from tests.hosts.jobs import DELEGATED, PLAIN, ROOT, Login, Run, build_plan
from tests.hosts.roots import RELEASES, build_archives

README = Path(__file__).parents[2] / "README.md"


def write_result(folder: Path, platforms: list[str], left_out: list[str], *ran: Outcome) -> Path:
    folder.mkdir()
    manifest = {"run_id": "run", "plan": {"platforms": platforms}, "left_out": left_out}
    write_manifest(folder, manifest)
    with Journal(folder / "journal.jsonl", "run") as journal:
        journal.append(*ran)
    return folder


def build_outcome(
    platform: str, status: Literal["ok", "failed"] = "ok", accelerator: str = "none"
) -> Outcome:
    return Outcome(
        block=0, trial=0, order=0, platform=platform, kind="vm", accelerator=accelerator,
        image="tiny", workload="noop", cache="warm", instances=1, warmup=False, started_at="",
        status=status, error="it broke" if status == "failed" else None,
    )  # fmt: skip


def test_a_platform_ran_failed_or_was_left_out_and_silence_is_a_failure(tmp_path: Path) -> None:
    folder = write_result(
        tmp_path / "run",
        ["crun", "podman", "vm-direct", "docker", "lxc"],
        ["docker: no daemon (start it)", "podman with httpd: no network"],
        build_outcome("crun", "failed"),
        build_outcome("podman"),
        build_outcome("vm-direct#2", accelerator="kvm"),
    )
    assert read_findings("host", folder) == [
        Finding("host", "crun", "failed", reason="noop: it broke"),
        Finding("host", "podman", "ran"),
        Finding("host", "vm-direct", "ran", "KVM"),
        Finding("host", "docker", "left out", reason="no daemon (start it)"),
        Finding("host", "lxc", "failed", reason="no trial, and no word of why"),
    ]


def test_a_kernel_that_an_emulated_processor_lost_is_told_and_not_held_against_a_platform(
    tmp_path: Path,
) -> None:
    panic = "the guest's kernel panicked: Fatal exception in interrupt"
    lost = replace(build_outcome("vm-direct", "failed", "kvm"), error=panic)
    kept = build_outcome("vm-direct", accelerator="kvm")
    folder = write_result(tmp_path / "some", ["vm-direct"], [], lost, kept)
    assert read_findings("host", folder) == [
        Finding("host", "vm-direct", "ran", "KVM, 1 of 2 guests panicked")
    ]
    folder = write_result(tmp_path / "all", ["vm-direct"], [], lost)
    assert [each.verdict for each in read_findings("host", folder)] == ["failed"]


def test_a_run_that_ended_badly_is_a_failure_whatever_it_wrote(tmp_path: Path) -> None:
    write_result(tmp_path / "out", ["crun"], [], build_outcome("crun"))
    (tmp_path / "out.txt").write_text("writing the report\nSegmentation fault\n")
    (tmp_path / "out.code").write_text("139\n")
    assert Run("out").read("machine", tmp_path) == [
        Finding("machine, root", "crun", "ran"),
        Check("machine, root", "run out", "failed", "ended with 139: Segmentation fault"),
    ]


def test_a_platform_asked_for_by_name_that_cannot_run_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("error: lxc cannot run here: why (what mends it)\n")
    (tmp_path / "out.code").write_text("3\n")
    said = "error: lxc cannot run here: why (what mends it)"
    assert Run("out", ("lxc",)).read("machine", tmp_path) == [
        Finding("machine, root", "lxc", "left out", reason=said)
    ]
    assert [each.verdict for each in Run("out").read("machine", tmp_path)] == ["failed"]


def test_the_table_has_a_column_for_each_host_and_every_reason_once() -> None:
    rows = [
        Finding("a", "crun", "ran"),
        Finding("a", "docker", "left out", reason="no daemon"),
        Finding("b", "docker", "left out", reason="no daemon"),
        Finding("b", "vm-direct", "ran", "KVM"),
    ]
    assert format_table(rows) == (
        "| | a | b |\n| --- | --- | --- |\n| `crun` | ran |  |\n"
        "| `docker` | left out (1) | left out (1) |\n| `vm-direct` |  | ran, KVM |\n\n"
        "1. no daemon\n"
    )


def test_a_host_that_is_not_visited_keeps_what_it_showed(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    first = Book.open(path, "old")
    first.add(Finding("a", "crun", "failed", reason="it broke"))
    first.add(Check("b", "make asv", "ran"))
    again = Book.open(path, "new")
    again.add(Finding("a", "crun", "ran"))
    assert Book.open(path, "new").rows == [
        ("old", Check("b", "make asv", "ran")),
        ("new", Finding("a", "crun", "ran")),
    ]
    assert "- a: new" in again.format() and "- b: old" in again.format()


@pytest.mark.parametrize("login", [ROOT, PLAIN, DELEGATED])
def test_a_job_keeps_result_words_and_code_of_each_login(login: Login) -> None:
    script = Run("out", ("crun",), login=login, options="--accelerator kvm").script
    assert build_plan(("crun",), ("./noop.toml",)) in script
    assert "harness run /tmp/out.toml --out /tmp/out --accelerator kvm" in script
    assert script.count("/job/out") == 3


def test_every_command_of_the_readme_is_known() -> None:
    found = commands.list_documented(README.read_text())
    assert found[:2] == ["make run", "make test"]
    assert len(found) > 20
    assert all(each.startswith(("make ", "python -m harness ")) for each in found)


@pytest.mark.parametrize(
    ("shown", "typed"),
    [
        ("python -m harness doctor", ".venv/bin/python -m harness doctor"),
        (
            "python -m harness run --quick",
            ".venv/bin/python -m harness run --quick",
        ),
        (
            "python -m harness run --storm 16",
            ".venv/bin/python -m harness run --storm 16 --blocks 1 --start-engines",
        ),
        (
            "python -m harness report results/RUN-ID --format pdf",
            ".venv/bin/python -m harness report results/20260101-1 --format pdf",
        ),
    ],
)
def test_a_command_of_the_readme_is_typed_with_the_hosts_own_names(shown: str, typed: str) -> None:
    assert commands.build_typed(shown, Path("results/20260101-1")) == typed


def test_a_release_has_this_hosts_archives_and_its_own_suites() -> None:
    for release in RELEASES:
        suites = [suite for each in build_archives(release) for suite in each.suites]
        assert suites and all(suite.startswith(release.suite) for suite in suites)


def test_odd_hosts_have_names_of_their_own() -> None:
    names = [each.name for each in odd.ODD]
    assert len(set(names)) == len(names)
