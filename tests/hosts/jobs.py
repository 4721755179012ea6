"""What is tried on a whole machine: jobs, each one boot, and what their results show.

A job is a script made of runs of the harness. Every run leaves its result folder, words and exit
code in /job, which are read here when the machine is off.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images.workshop import remove_tree
from harness.store import read_journal
from tests.hosts.findings import Check, Finding, Result, read_findings
from tests.hosts.machine import PROJECT, require_machine, run_job
from tests.hosts.roots import Release, hosts_dir

HARNESS = ".venv/bin/python -m harness"
PATIENCE = "export HARNESS_PATIENCE=20"
PREAMBLE = f"modprobe kvm_amd\n{PATIENCE}\ncd {PROJECT}\n"
LIMIT_S = 5400.0
NOT_HERE = "3"
"""What a run ends with that this host cannot do."""

_FURTHER = (
    *("bubblewrap", "systemd-nspawn", "lxc", "podman+crun", "podman+gvisor", "docker+crun"),
    *("vm-direct/tuned", "vm-disk", "vm-disk/uefi"),
)
"""Platforms that a run without any named does not have; each is a run of its own."""


@dataclass(frozen=True, slots=True)
class Login:
    """How the harness is started in a machine: as whom, and in which control groups.

    ``words`` is a shell command line with COMMAND in it; ``host`` what the table calls it.
    """

    host: str
    words: str = "COMMAND"


_AS_USER = (
    "runuser -l {name} -c 'export XDG_RUNTIME_DIR=/run/user/$(id -u); "
    f"{PATIENCE}; cd {PROJECT}; " + "{how}'"
)
_DELEGATED = (
    "systemd-run --user --quiet --pipe --wait --same-dir --setenv=HARNESS_PATIENCE "
    '-p Delegate=yes sh -c "COMMAND"'
)

ROOT = Login("root")
PLAIN = Login("user", _AS_USER.format(name="plain", how="COMMAND"))
DELEGATED = Login(
    "user in kvm, delegated groups",
    _AS_USER.format(name="virtual", how=_DELEGATED),
)


NOOP = """\
name = "noop"
image = "tiny"
command = ["true"]
ready = "exit"
timeout = "900s"
"""
"""The workload `noop` with time for a guest that is emulated on an emulated host."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the harness in a machine: its result is in /job/OUT, its words in /job/OUT.txt.

    Without ``platforms`` it is the defaults that run there. Named ones are asked for by name: one
    that cannot run there ends the run with 3.
    """

    out: str
    platforms: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ("noop",)
    blocks: int = 1
    login: Login = ROOT
    options: str = ""
    host: str = ""

    @property
    def script(self) -> str:
        """It writes where its user may, and root copies that to /job."""
        workloads = tuple("./noop.toml" if each == "noop" else each for each in self.workloads)
        plan = build_plan(self.platforms, workloads, self.blocks)
        command = f"{HARNESS} run /tmp/{self.out}.toml --out /tmp/{self.out} {self.options}"
        return "\n".join(
            [
                f"cat >/tmp/{self.out}.toml <<'END'\n{plan}END",
                f"cat >/tmp/noop.toml <<'END'\n{NOOP}END",
                f"chmod 644 /tmp/{self.out}.toml /tmp/noop.toml",
                f"{self.login.words.replace('COMMAND', command)} >/job/{self.out}.txt 2>&1",
                f"echo $? >/job/{self.out}.code",
                f"cp -r /tmp/{self.out} /job/{self.out}",
                "",
            ]
        )

    def read(self, machine: str, folder: Path) -> list[Result]:
        """What became of its platforms; its last words where it left no result."""
        host = f"{machine}, {self.host or self.login.host}"
        found: list[Result] = []
        if (folder / self.out / "manifest.json").exists():
            found += read_findings(host, folder / self.out)
        code, said = read_code(folder, self.out), read_last_line(folder, self.out)
        if code == NOT_HERE and not found and self.platforms:
            return [Finding(host, each, "left out", reason=said) for each in self.platforms]
        if code != "0":
            said = f"ended with {code}: {said}"
            found.append(Check(host, f"run {self.out}", "failed", said))
        return found


def read_code(folder: Path, out: str) -> str:
    """What a command of a job ended with; «nothing» where it did not end."""
    path = folder / f"{out}.code"
    return path.read_text().strip() if path.exists() else "nothing"


def read_last_line(folder: Path, out: str) -> str:
    """What a command of a job said last."""
    path = folder / f"{out}.txt"
    words = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return words[-1] if words else "it said nothing"


def build_plan(
    platforms: Sequence[str] = (), workloads: Sequence[str] = ("noop",), blocks: int = 1
) -> str:
    """A plan of some blocks and nothing else, as TOML; without platforms, the defaults that run."""
    keys = {"platforms": list(platforms)} if platforms else {}
    lines = [f"{key} = {json.dumps(each)}" for key, each in keys.items()]
    lines += [f"workloads = {json.dumps(list(workloads))}", f"blocks = {blocks}"]
    return "\n".join([*lines, "warmup = 0", "aa = []", "density = 0", ""])


@dataclass(frozen=True, slots=True)
class Job:
    """One boot of a machine: a script, and how what it left is read."""

    script: str
    read: Callable[[str, Path], Iterable[Result]]

    def run(self, release: Release) -> Iterator[Result]:
        """Run it in the release's machine; raises HarnessError where there is none."""
        machine, name = require_machine(release), f"{release.name}, machine"
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=hosts_dir()))
        try:
            done = run_job(machine, PREAMBLE + self.script, folder / "job", timeout=LIMIT_S)
            if done.code is None:
                yield Check(name, "the machine", "failed", f"not off within {LIMIT_S:g} s")
            yield from self.read(name, done.folder)
        finally:
            remove_tree(folder)


def build_job(*runs: Run) -> Job:
    """A job that is some runs, one after the other."""
    return Job(
        "".join(run.script for run in runs),
        lambda machine, folder: [each for run in runs for each in run.read(machine, folder)],
    )


# ---- KVM that goes away ------------------------------------------------------------------------

_GONE = "gone"
_GOING = Run(_GONE, ("vm-direct",), blocks=12, options="--accelerator kvm")
_TAKE_AWAY = f"""
(
    until [ "$(wc -l </tmp/{_GONE}/journal.jsonl)" -ge 3 ]; do sleep 1; done
    until rmmod kvm_amd; do sleep 0.2; done
) 2>/dev/null &
{_GOING.script}
"""


def _read_gone(machine: str, folder: Path) -> list[Result]:
    """The trials after KVM has gone have failed, and none was emulated."""
    journal = folder / _GONE / "journal.jsonl"
    outcomes = read_journal(journal) if journal.exists() else []
    emulated = [each for each in outcomes if each.accelerator == "tcg"]
    failed = [each for each in outcomes if each.status == "failed"]
    reason = ""
    if emulated:
        reason = f"{len(emulated)} trials were emulated in silence"
    elif not failed or len(failed) == len(outcomes):
        reason = f"{len(failed)} of {len(outcomes)} trials failed"
    what = "KVM that goes away in a run: failed trials, none emulated"
    return [Check(f"{machine}, root", what, "failed" if reason else "ran", reason)]


# ---- isolation ---------------------------------------------------------------------------------

_ISOLATION = f"""
{HARNESS} isolation --platform namespace --platform docker --platform podman \\
    --platform vm-direct --json >/job/isolation.json 2>/job/isolation.txt
echo $? >/job/isolation.code
"""


def _read_isolation(machine: str, folder: Path) -> list[Result]:
    """No limit that was set is found broken."""
    code, reason = read_code(folder, "isolation"), ""
    if code == "0" and (broken := (folder / "isolation.json").read_text().count("does not hold")):
        reason = f"{broken} limits do not hold"
    if code != "0":
        reason = f"ended with {code}: {read_last_line(folder, 'isolation')}"
    what = "isolation: every limit that is set holds"
    return [Check(f"{machine}, root", what, "failed" if reason else "ran", reason)]


JOBS = (
    build_job(Run("defaults", workloads=("noop", "httpd"))),
    build_job(
        Run("plain", login=PLAIN),
        Run("delegated", login=DELEGATED),
    ),
    build_job(
        Run(
            "daemon",
            ("vm-direct", "vm-microvm"),
            options="--connection qemu:///system",
            host="qemu:///system",
        ),
        Run("tcg", ("vm-direct",), options="--accelerator tcg", host="asked for TCG"),
    ),
    Job(_ISOLATION, _read_isolation),
    Job(_TAKE_AWAY, _read_gone),
    build_job(*(Run(f"further{number}", (name,)) for number, name in enumerate(_FURTHER))),
)
"""All that is tried on a machine."""
