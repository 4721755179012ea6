"""What is asked of gVisor's runsc and read from it, release by release: as values."""

import os
from pathlib import Path

import pytest

from harness.analysis.wording import describe_accelerator
from harness.drivers import load_driver, runsc
from harness.drivers.base import Processes, Toolbox
from harness.errors import HostError, InputError
from harness.variants import parse_variant
from tests.unit.fakes import SPEC

OF_2022 = """\
  -platform string
    \tspecifies which platform to use: ptrace (default), kvm. (default "ptrace")
  -platform_device_path string
    \tpath to a platform-specific device file (e.g. /dev/kvm for KVM platform).
"""
OF_2024 = OF_2022.replace(
    'ptrace (default), kvm. (default "ptrace")',
    'systrap (default), ptrace, kvm. (default "systrap")',
)
SANDBOX = ("runsc-sandbox", "--root=/x", "--network=none", "boot", "--bundle=/x")


@pytest.mark.parametrize(
    ("flags", "platforms"),
    [
        (OF_2022, ("ptrace", "kvm")),
        (OF_2024, ("systrap", "ptrace", "kvm")),
        ("no such flag", ()),
    ],
    ids=["2022", "2024", "unknown"],
)
def test_a_release_says_its_platforms_with_its_default_first(
    flags: str, platforms: tuple[str, ...]
) -> None:
    assert runsc.parse_platforms(flags) == platforms


@pytest.mark.parametrize(
    ("asked", "known", "device", "fault"),
    [
        (None, ("ptrace",), False, None),
        ("ptrace", ("ptrace", "kvm"), False, None),
        ("systrap", ("ptrace", "kvm"), False, "no platform systrap: it has ptrace, kvm"),
        ("kvm", ("ptrace", "kvm"), False, "needs /nowhere/kvm"),
        ("kvm", ("ptrace", "kvm"), True, None),
    ],
)
def test_a_platform_that_cannot_be_had_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    known: tuple[str, ...],
    device: bool,
    fault: str | None,
) -> None:
    monkeypatch.setattr(runsc, "read_platforms", lambda: known)
    monkeypatch.setattr(runsc, "_KVM", "/dev/null" if device else "/nowhere/kvm")
    found = runsc.find_platform_fault(asked)
    assert (found is None) == (fault is None)
    assert fault is None or fault in (found or "")


def test_kvm_is_proved_by_a_program_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hang(words: list[str], timeout: float) -> None:
        raise HostError(f"runsc did not end within {timeout:g} s")

    monkeypatch.setattr(runsc, "run_command", hang)
    runsc.require_platform("ptrace", tmp_path)
    with pytest.raises(HostError, match="kvm runs no program here: runsc did not end within 30 s"):
        runsc.require_platform("kvm", tmp_path)


@pytest.mark.parametrize(
    ("words", "program", "used"),
    [
        ((*SANDBOX[:2], "--platform=kvm", "boot"), "", "kvm"),
        (SANDBOX, "/opt/runsc", "systrap"),
        (SANDBOX, "/opt/mute", "unknown"),
        (SANDBOX, "/opt/gone (deleted)", "unknown"),
        (SANDBOX, "/opt/another", "unknown"),
        (SANDBOX, "", "unknown"),
    ],
    ids=["stated", "its own release's", "says nothing", "deleted", "no file of the host", "hidden"],
)
def test_what_a_sandbox_uses_is_told_by_its_process_and_its_own_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], program: str, used: str
) -> None:
    """The runsc in the path is of another release than the one of the daemon that runs already."""
    monkeypatch.setattr(runsc, "find_program", lambda _: "/nowhere/runsc")
    runsc._read_platforms.cache_clear()
    for pid, line in (("7", ("runsc", "run")), ("8", words)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text("\0".join(line) + "\0")
    root = tmp_path / "1/root"
    (root / "opt").mkdir(parents=True)
    write_program(root / "opt/runsc", OF_2024)
    write_program(root / "opt/mute", "")
    write_program(root / "opt/another", OF_2022)
    if program:
        point_to(tmp_path, "8", program, monkeypatch)
    assert runsc.find_used(Processes((8,), (7, 6), tmp_path)) == used
    assert runsc.find_used(Processes((), (7, 6), tmp_path)) == "unknown"


def write_program(path: Path, words: str) -> None:
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{words}\nEND\n")
    path.chmod(0o755)


def point_to(proc: Path, pid: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link as the kernel's: it reads as a path of the host, and leads to the very file."""
    file = proc / pid / "exe"
    there = Path(f"{proc}/1/root{program}")
    if program.endswith("another"):
        file.write_text("a container's file of that name")
    elif there.exists():
        file.hardlink_to(there)
    monkeypatch.setattr(os, "readlink", lambda _: program)


@pytest.mark.parametrize(
    ("platform", "said"), [("gvisor", None), ("gvisor/systrap", "systrap"), ("gvisor/kvm", "kvm")]
)
def test_a_platform_is_stated_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, platform: str, said: str | None
) -> None:
    monkeypatch.setattr("harness.drivers.runsc.read_platforms", lambda: ("ptrace", "kvm"))
    options = parse_variant(platform).options
    driver = load_driver(platform, Toolbox(Path("/starter"), platform=platform, options=options))
    described = driver.describe(SPEC)
    words = described["argv"]
    assert isinstance(words, list)
    stated = [each for each in words if each.startswith("--platform=")]
    assert stated == ([f"--platform={said}"] if said else [])
    assert described["accelerator"] == (said or "ptrace")


@pytest.mark.parametrize("name", ["docker/ptrace", "podman+crun/kvm"])
def test_only_gvisor_has_a_platform(name: str) -> None:
    with pytest.raises(InputError, match="only gVisor has a platform"):
        parse_variant(name)


@pytest.mark.parametrize(
    ("accelerator", "words"),
    [
        ("tcg", "emulated (TCG)"),
        ("kvm", "KVM"),
        ("systrap", "systrap"),
        ("none", ""),
        ("", ""),
        ("unknown", "on an unknown platform"),
    ],
)
def test_what_a_platform_ran_on_stands_beside_its_name(accelerator: str, words: str) -> None:
    assert describe_accelerator(accelerator) == words
