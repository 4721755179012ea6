"""Hosts that lack something: the run works all the same, or one line names the thing and the
remedy. Each host is made of namespaces of the test's own; nothing of the machine is changed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.images.catalog import require_image
from harness.images.model import Programs
from harness.paths import cache_dir

PROJECT = Path(__file__).parents[2]
RUN = f"{sys.executable} -m harness run --blocks 1 --seed 1 --workload noop"
PROVE = """
from harness.proof import prove_platforms
print(prove_platforms(["namespace"], {}, lambda _: None)["namespace"].reason)
"""
BOOT = """
import os
from harness.drivers.accelerator import TCG, _boot, build_direct_guest
from harness.images.kernel import find_guest_kernel
from harness.images.programs import build_programs
found = _boot(build_direct_guest(find_guest_kernel()), TCG, 60)
print(found.name, "booted", found.proved, found.reason)
os.environ["HARNESS_CACHE"] += "/tmp-out/new"
build_programs()
"""
CONTAINERS = "--platform process --platform namespace --platform crun"


def run_on(script: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """A shell script as root of a private mount namespace."""
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-ec", script, "_"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def copy_cache(folder: Path) -> str:
    """Shell words that fill a new cache with what a run of `noop` needs."""
    require_image("tiny", print)
    names = " ".join(f"'{cache_dir() / each}'" for each in ("images/tiny", "programs"))
    made = f"mkdir -p '{folder}/images'; cp -a {names} '{folder}/'"
    return f"{made}; mv '{folder}/tiny' '{folder}/images/'"


@pytest.mark.parametrize("options", ["nosuid,nodev", "noatime"])
def test_a_cache_on_a_mount_without_setuid_or_devices_is_as_good(
    options: str, programs: Programs, tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    place.mkdir()
    script = f"mount -t tmpfs -o {options} tmpfs '{place}'; {copy_cache(place)}; "
    script += f"HARNESS_CACHE='{place}' {RUN} {CONTAINERS} --out '{tmp_path / 'out'}'"
    done = run_on(script)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    assert {json.loads(line).get("status") for line in lines[1:]} == {"ok"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("noexec", "is on a file system that is mounted noexec, and programs are run from it"),
        ("ro", "is on a file system that is mounted read-only"),
    ],
)
def test_a_cache_that_programs_cannot_run_from_is_named(
    options: str, said: str, tmp_path: Path
) -> None:
    script = f"mount -t tmpfs -o {options} tmpfs '{tmp_path}'; HARNESS_CACHE='{tmp_path}' {RUN}"
    done = run_on(f"{script} {CONTAINERS} --out /nowhere/out")
    assert done.returncode == 3
    remedy = "HARNESS_CACHE names another folder"
    if options == "noexec":
        remedy += f", or as root: mount -o remount,exec {tmp_path}"
    assert done.stderr == f"error: the cache {tmp_path} {said} ({remedy})\n"


@pytest.mark.usefixtures("programs", "guest_kernel")
def test_a_full_tmp_is_no_matter() -> None:
    """Nothing of a run is in /tmp, nor of `doctor`, of an accelerator's proof, or of the compiler
    in a new cache."""
    require_image("tiny", print)
    keep = Path(cache_dir())
    script = """
mount --bind "$1" /mnt; mount -t tmpfs -o size=64k tmpfs /tmp
cat /dev/zero > /tmp/full 2>/dev/null || true
export HARNESS_CACHE=/mnt
"""
    words = f"{RUN} {CONTAINERS} --out /mnt/tmp-out"
    out = keep / "tmp-out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        done = run_on(script + words, keep)
        assert done.returncode == 0, done.stderr
        done = run_on(f"{script}{sys.executable} -c '{PROVE}'", keep)
        assert done.stdout.strip() == "None", done.stderr
        done = run_on(f"{script}{sys.executable} -c '{BOOT}'", keep)
        assert done.stdout.startswith("tcg booted True the guest kernel booted in"), done.stderr
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_results_that_get_full_while_the_report_is_written_name_the_remedy(
    programs: Programs, tmp_path: Path
) -> None:
    require_image("tiny", print)
    script = f"""
mount -t tmpfs -o size=300k tmpfs '{tmp_path}'; code=0
{RUN} --platform namespace --out '{tmp_path}/out' || code=$?
mount -o remount,size=64m '{tmp_path}'
{sys.executable} -m harness report '{tmp_path}/out'; exit $code
"""
    done = run_on(script)
    assert done.returncode == 3, done.stderr
    out = tmp_path / "out"
    assert (
        f"error: the report of {out} cannot be written: No space left on device; its trials are "
        f"kept (free some space, then: python -m harness report {out})\n"
    ) in done.stderr
    assert "report.html" in done.stdout


@pytest.mark.parametrize("kind", ["mnt", "net", "pid"])
def test_a_host_that_allows_no_namespaces_is_told_the_switch(kind: str, tmp_path: Path) -> None:
    """Root of a user namespace, which has limits of its own."""
    switch = f"/proc/sys/user/max_{kind}_namespaces"
    inner = f"echo 0 > {switch}; exec {RUN} --platform process --out '{tmp_path / 'out'}'"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "bash", "-ec", inner],
        cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "error: this host does not let the harness make its lab: unshare: No space left on "
        f"device: user.max_{kind}_namespaces is 0 (as root: sysctl "
        f"user.max_{kind}_namespaces=15000)"
    )


NO_USERS = """
import os, sys
from pathlib import Path
from harness import linux
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text("0 0 4294967295")
    os.write(go[1], b"g")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
os.write(ready[1], b"r")
os.read(go[0], 1)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
os.execv(sys.executable, [sys.executable, "-m", "tests.integration.as_user", *sys.argv[1:]])
"""


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_user_without_user_namespaces_is_told_the_switch(command: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    words = ["run", "--platform", "process", "--workload", "noop"]
    words = words if command == "run" else ["doctor", "--json", "--no-prove"]
    done = subprocess.run(
        [sys.executable, "-c", NO_USERS, str(tmp_path), sys.executable, "-m", "harness", *words],
        cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    reason = (
        "this host does not let the harness make its lab: unshare: No space left on device: "
        "user.max_user_namespaces is 0"
    )
    remedy = "as root: sysctl user.max_user_namespaces=15000"
    assert done.returncode == 3
    if command == "run":
        assert done.stderr.splitlines()[-1] == f"error: {reason} ({remedy})"
    else:
        found = {(each["reason"], each["remedy"]) for each in json.loads(done.stdout)["platforms"]}
        assert (reason, remedy) in found


def test_a_user_without_a_home_is_told_what_to_name(tmp_path: Path) -> None:
    """And no folder called `~` is made where one stands."""
    script = """
import os, sys
from pathlib import Path
from tests.integration.as_user import UID, open_paths
from harness import linux
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
open_paths([Path(sys.base_prefix), Path.cwd()], Path(sys.argv[1]))
os.setgroups([])
os.setresgid(UID, UID, UID)
os.setresuid(UID, UID, UID)
words = [sys.executable, "-m", "harness", "clean"]
os.execve(sys.executable, words, {"PATH": "/usr/bin:/bin"})
"""
    before = sorted(PROJECT.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == (
        "error: user 23456 has no home folder: HOME is not set, and /etc/passwd has no line "
        "(HARNESS_CACHE names a folder for images and scratch files)\n"
    )
    assert sorted(PROJECT.iterdir()) == before
