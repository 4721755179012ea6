"""Faults of one platform, put into a real run: it is left out or fails, and the others go on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.images.model import Programs

PROJECT = Path(__file__).parents[2]

FAULTS = """
import contextlib, os, sys
from harness import preparation, session
from harness.drivers import base, bubblewrap, commanded_driver, namespace, oci, process
from harness.errors import HostError, TrialError

def fail(error):
    def method(*_, **__):
        raise error
    return method

def no_kernel(_say):
    raise HostError("the mirror does not answer", hint="look at the network")

@contextlib.contextmanager
def no_end(_self, _specs, /):
    yield
    raise OSError(16, "Device or resource busy", "/var/lib/engine")

def die(*_):
    os.kill(os.getpid(), 11)

preparation.require_guest_kernel = no_kernel
oci.CrunDriver.unavailable = fail(RuntimeError("two\\nlines"))
oci.RuncDriver.start_run = fail(KeyError("IPAddress"))
bubblewrap.BubblewrapDriver.packed = fail(OSError(2, "No such file or directory", "/x/tree"))
process.ProcessDriver.describe = fail(TrialError("it has no words", hint="ask another"))
namespace.NamespaceDriver.start_run = no_end
oci.GvisorDriver.start_instance = fail(ZeroDivisionError("a defect"))
"""
RUN = (
    FAULTS
    + """
from harness.__main__ import main
from harness.cli import measure
read = measure._read_plan
measure._read_plan = lambda *given, **named: (read(*given, **named)[0], {strict})
sys.exit(main({words!r}))
"""
)
NAMES = ("process", "namespace", "bubblewrap", "crun", "runc", "gvisor", "vm-direct")
WORDS = ["run", "--blocks", "1", "--workload", "noop", "--seed", "1"]


def run(folder: Path, names: tuple[str, ...], *, strict: bool) -> Any:
    """A run of these platforms with the faults in it, as a process of its own."""
    words = [*WORDS, "--out", str(folder / "out")]
    for name in names:
        words += ["--platform", name]
    script = RUN.format(strict=strict, words=words)
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(260)
def test_each_fault_leaves_out_its_platform_alone(programs: Programs, tmp_path: Path) -> None:
    done = run(tmp_path, NAMES, strict=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    reasons = {each["platform"]: each["reason"] for each in manifest["left_out_details"]}
    assert reasons == {
        "vm-direct": "the mirror does not answer",
        "crun": "internal error: RuntimeError: two lines",
        "runc": "internal error: KeyError: 'IPAddress'",
        "bubblewrap": "/x/tree: No such file or directory",
        "process": "it has no words",
    }
    assert set(manifest["platforms"]) - {"namespace#2"} == {"namespace", "gvisor"}
    assert "method" in (out / "logs" / "left-out-runc.log").read_text()
    outcomes = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    told = {(each["platform"], each["status"], each.get("error")) for each in outcomes[1:]}
    assert ("gvisor", "failed", "internal error: ZeroDivisionError: a defect") in told
    assert ("namespace", "ok", None) in told
    assert "namespace was not taken down in order: /var/lib/engine" in done.stderr
    opening = (out / "report.md").read_text().partition("## The verdicts")[0]
    assert "`vm-direct`: the mirror does not answer (look at the network)." in opening
    assert "Left out: vm-direct: the mirror does not answer" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vm-direct", "error: vm-direct cannot run here: the mirror does not answer (look at the "
                      "network)\n"),
        ("runc", "error: runc cannot run here: internal error: KeyError: 'IPAddress' (a fault of "
                 "the harness: logs/left-out-runc.log shows where)\n"),
    ],
)  # fmt: skip
def test_one_that_was_asked_for_by_name_ends_the_run_with_its_reason(
    name: str, said: str, programs: Programs, tmp_path: Path
) -> None:
    done = run(tmp_path, ("namespace", name), strict=True)
    assert done.returncode == 3
    assert done.stderr.endswith(said), done.stderr
    assert done.stderr.count("error: ") == said.count("error: ")
    assert (f"its logs are in {tmp_path / 'out'}\n" in done.stderr) == ("logs/" in said)


@pytest.mark.timeout(260)
def test_doctor_tells_each_platform_its_own_reason(programs: Programs) -> None:
    """One of them ends the whole process with a signal, as a library of C may."""
    script = (
        FAULTS
        + """
namespace.NamespaceDriver.start_run = die
from harness.proof import prove_platforms
import json
proofs = prove_platforms({names!r}, {{}}, lambda _: None)
print(json.dumps({{name: each.reason for name, each in proofs.items()}}))
""".format(names=("namespace", "runc", "vm-direct", "gvisor", "lxc"))
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "namespace": "it ended the process that ran it: Segmentation fault",
        "runc": "internal error: KeyError: 'IPAddress' (a fault of the harness: "
        "`python -m harness run --platform runc` keeps its trace)",
        "vm-direct": "the mirror does not answer (look at the network)",
        "gvisor": "internal error: ZeroDivisionError: a defect (a fault of the harness: "
        "`python -m harness run --platform gvisor` keeps its trace)",
        "lxc": None,
    }
