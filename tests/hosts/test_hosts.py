"""The short form of `make hosts`, on every submission: one new root, and one whole machine."""

import os
from pathlib import Path

import pytest

from harness.plan_keys import DEFAULT_PLATFORMS
from harness.store import read_manifest
from tests.hosts.bare import FIRST_COMMAND, start_visit
from tests.hosts.findings import format_table, read_findings
from tests.hosts.jobs import PREAMBLE, Run
from tests.hosts.machine import Done, require_machine, run_job
from tests.hosts.odd import EVERYTHING, try_one
from tests.hosts.roots import TRIXIE, find_other_release

MACHINE_PLATFORMS = ("namespace", "podman", "vm-direct", "vm-restore")
_AT_ONCE_S = 15.0

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="roots of other releases are made by root"),
    pytest.mark.timeout(2700),
]


def test_the_first_command_works_on_a_system_where_nothing_was_installed() -> None:
    with start_visit(find_other_release()) as visit:
        first = visit.type(*FIRST_COMMAND)
        assert first.code == 0, first.output[-3000:]
        found = visit.read_findings()
        print(format_table(found))
        assert [each.platform for each in found] == list(DEFAULT_PLATFORMS)
        assert [each for each in found if each.verdict != "ran"] == []
        again = visit.type("make", "setup")
        assert again.code == 0 and again.seconds < _AT_ONCE_S, again


def test_a_host_may_be_odd_in_many_ways_at_once() -> None:
    found = try_one(EVERYTHING)
    assert found.verdict == "ran", found.reason


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two blocks of `noop` in a machine with systemd, on KVM.

    An emulated KVM may lose a guest now and then («Kernel panic»), which a second block outlives.
    """
    run = Run("out", MACHINE_PLATFORMS, blocks=2, options="--accelerator kvm")
    folder = tmp_path_factory.mktemp("machine") / "job"
    done = run_job(require_machine(TRIXIE), PREAMBLE + run.script, folder, timeout=1200)
    assert done.code == 0, done
    return done


def test_a_machine_with_systemd_runs_containers_and_guests_on_kvm(job: Done) -> None:
    folder = job.folder / "out"
    said = (job.folder / "out.txt").read_text()
    assert (job.folder / "out.code").read_text().strip() == "0", said
    found = read_findings("machine", folder)
    assert {each.platform: (each.verdict, each.how.partition(",")[0]) for each in found} == {
        "namespace": ("ran", ""),
        "podman": ("ran", ""),
        "vm-direct": ("ran", "KVM"),
        "vm-restore": ("ran", "KVM"),
    }, found


def test_the_manifest_of_a_machine_says_what_its_host_is(job: Done) -> None:
    manifest = read_manifest(job.folder / "out")
    assert manifest["cgroups"] == "v2"
    assert manifest["left_out"] == []
    accelerator = manifest["accelerator"]
    assert isinstance(accelerator, dict)
    assert {name: each["name"] for name, each in accelerator.items()} == {
        "vm-direct": "kvm",
        "vm-restore": "kvm",
    }
    assert (Path(job.folder) / "out" / "report.html").is_file()
