"""System packages: names that apt knows, probes of every file, faults in a line, services."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import services, setup, system
from harness.errors import HostError
from harness.setup_faults import explain

LIST = '[[package]]\npurpose = "does x"\ngroup = "run"\nprobes = {probes}\napt = "{apt}"\n'


def parse(probes: Sequence[str] = ("command:sh",), apt: str = "x") -> system.SystemPackage:
    text = LIST.format(probes=str(list(probes)).replace("'", '"'), apt=apt)
    return system.parse_packages(text)[0]


# ---- probes and names ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probes", "lacking"),
    [
        (["command:sh"], []),
        (["command:sh", "command:no-such"], ["command:no-such"]),
        (["command:no-such | command:sh"], []),
        (["file:/no/such | file:/etc/host*"], []),
        (["file:/no/such | command:no-such"], ["file:/no/such | command:no-such"]),
    ],
)
def test_every_probe_of_a_package_must_find_one_of_its_alternatives(
    probes: list[str], lacking: list[str]
) -> None:
    package = parse(probes)
    assert system.find_lacking(package) == lacking
    assert system.find_missing([package]) == ([package] if lacking else [])


@pytest.mark.parametrize(
    ("says", "least", "there"),
    [
        ("netavark 1.14.0", "1.14", True),
        ("netavark 1.4.0", "1.14", False),
        ("netavark 1.13.1", "1.14", False),
        ("netavark 2.0", "1.14", True),
        ("no number", "1.14", False),
    ],
)
def test_a_program_that_is_too_old_is_as_good_as_none(
    tmp_path: Path, says: str, least: str, there: bool
) -> None:
    program = tmp_path / "netavark"
    program.write_text(f"#!/bin/sh\necho {says}\n")
    assert not system.is_present(f"release:{program} {least}"), "it cannot be run"
    program.chmod(0o755)
    assert system.is_present(f"release:{program} {least}") is there
    assert system.is_present(f"release:{program} {least} | command:sh")


def test_the_bridge_s_package_is_lacking_where_all_that_is_there_would_remove_it() -> None:
    (network,) = [each for each in system.read_packages() if "netavark" in "".join(each.probes)]
    (probe,) = network.probes
    kinds = {each.partition(":")[0]: each for each in system.split_alternatives(probe)}
    assert set(kinds) == {"release", "file"}
    assert "netavark" not in kinds["file"] and kinds["release"].endswith("netavark 1.14")


@pytest.mark.parametrize(
    ("manager", "known", "chosen"),
    [
        ("apt", {"new", "old"}, "new"),
        ("apt", {"old"}, "old"),
        ("apt", set(), "old"),
        ("dnf", set(), "new"),
    ],
)
def test_of_several_names_it_is_the_first_that_apt_knows(
    manager: str, known: set[str], chosen: str
) -> None:
    assert system.choose_name(["new", "old"], manager, frozenset(known)) == chosen


def test_apt_is_asked_which_names_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.read_known(["base-files", "no-such-package"]) == {"base-files"}
    package = parse(apt="no-such-package | base-files | dpkg")
    assert system.build_names([package], "apt") == ["base-files"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert system.build_names([package], "apt") == ["dpkg"]


def test_a_name_may_hold_the_version_of_the_running_python() -> None:
    (names,) = parse(apt="python{python}-venv").names.values()
    assert names in {f"python3.{minor}-venv" for minor in range(11, 20)}


def test_lists_that_were_never_read_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "APT_LISTS", "/nowhere/*")
    command = "apt-get install --no-install-recommends x"
    assert system.format_remedy([parse()], "apt", root=True) == f"apt-get update && {command}"
    sudo = f"sudo apt-get update && sudo {command}"
    assert system.format_remedy([parse()], "apt", root=False) == sudo


def test_libvirts_helper_is_found_by_its_file_wherever_its_package_is() -> None:
    (helper,) = [
        each for each in system.read_packages() if "libvirt_iohelper" in "".join(each.probes)
    ]
    assert helper.group == "run" and helper.platforms == ("vm-restore",)
    assert system.split_alternatives(helper.names["apt"]) == [
        "libvirt-daemon-common",
        "libvirt-daemon",
    ]


# ---- apt ----------------------------------------------------------------------------------------


def test_what_apt_does_not_know_takes_nothing_else_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Sequence[str]] = []
    monkeypatch.setattr(setup, "_run", lambda argv, _: ran.append(argv))
    setup._install_with_apt([parse(apt="no-such-package"), parse(apt="base-files")])
    assert [argv[-1] for argv in ran] == ["update", "base-files"]


def test_an_archive_that_is_away_is_a_fault_only_if_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    log = tmp_path / "setup.log"
    log.write_text("Hit:1 http://x trixie InRelease\nErr:2 http://y away InRelease\n")

    def run(argv: Sequence[str], what: str) -> None:
        if argv[-1] == "update":
            raise HostError("an archive is away")

    monkeypatch.setattr(setup, "_run", run)
    setup._install_with_apt([parse(apt="base-files")])
    with pytest.raises(HostError, match="an archive is away"):
        setup._install_with_apt([parse(apt="no-such-package")])
    log.write_text("Err:1 http://x trixie InRelease\n")
    with pytest.raises(HostError, match="an archive is away"):
        setup._install_with_apt([parse(apt="base-files")])


# What apt and pip print, and what is made of it.
TOLD = (
    ("E: Failed to fetch x  Temporary failure resolving 'x'", "the registry cannot be reached"),
    (
        "WARNING: Retrying after connection broken by 'NewConnectionError(<x>)': /simple/click/\n"
        "ERROR: No matching distribution found for click",
        "the registry cannot be reached",
    ),
    ("ERROR: No matching distribution found for scipy==9", "pip found no scipy==9 for this Python"),
    (
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 77 (apt-get)\n"
        "E: Unable to acquire the dpkg frontend lock",
        "another program holds /var/lib/dpkg/lock-frontend (process 77 (apt-get))",
    ),
    (
        "E: You don't have enough free space in /var/cache/apt/archives/.",
        "no space is left on the disk: /var/cache/apt/archives/",
    ),
    ("OSError: [Errno 28] No space left on device", "no space is left on the disk"),
    ("E: dpkg was interrupted, you must manually", "an earlier installation was interrupted"),
    ("E: Unmet dependencies. Try 'apt --fix-broken install'", "packages of this system do not"),
    ("E: Unable to locate package runsc", "apt's archives have no package runsc"),
    ("E: Release file for http://x is not valid yet (3h)", "what the registry sends is not valid"),
    ("[SSL: CERTIFICATE_VERIFY_FAILED]", "the registry's certificate cannot be verified"),
    ("Package libvirt was not found in the search path.", "libvirt's headers are not installed"),
    ("error: command '/usr/bin/gcc' failed with exit code 1", "a Python package could not be"),
)


@pytest.mark.parametrize(("log", "reason"), TOLD)
def test_a_failed_tools_words_become_a_cause_and_a_remedy(log: str, reason: str) -> None:
    fault = explain(f"Reading package lists...\n{log}\n")
    assert fault is not None
    assert fault.reason.startswith(reason)
    assert fault.remedy


def test_a_cause_that_is_not_known_is_not_guessed() -> None:
    assert explain("something else went wrong") is None


def test_a_failing_tool_is_told_by_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    with pytest.raises(HostError, match="ended with 100: no space is left on the disk"):
        setup._run(["sh", "-c", "echo No space left on device; exit 100"], "apt-get install")


# ---- services -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "passed"),
    [
        ("--quiet was-enabled new.service", 1, False),
        ("--quiet was-enabled old.service", 0, True),
        ("--user --quiet was-enabled old.service", 1, False),
        ("update-state new.service", 0, True),
        ("enable old.service", 0, True),
    ],
)
def test_a_service_that_comes_is_held_back_and_one_that_was_there_is_not(
    words: str, code: int, passed: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "with a space"
    states = folder / "deb-systemd-helper-enabled"
    states.mkdir(parents=True)
    (states / "old.service.dsh-also").touch()
    helper, told, held = folder / "helper", folder / "told", folder / "held"
    helper.write_text(f"#!/bin/sh\necho \"$@\" >'{told}'\n")
    helper.chmod(0o755)
    script = folder / "script"
    script.write_text(services.build_script(held, helper, folder))
    done = subprocess.run(["sh", script, *words.split()], check=False)
    assert done.returncode == code
    assert (told.read_text().split() if told.exists() else []) == (words.split() if passed else [])
    assert held.exists() == (code == 1)


def test_apt_gives_package_scripts_the_stand_in_first(tmp_path: Path) -> None:
    with services.hold_back(tmp_path) as held:
        (option,) = [each for each in held.options if each.startswith("DPkg::Path=")]
        folder = Path(option.partition("=")[2].partition(":")[0])
        assert (folder / "deb-systemd-helper").stat().st_mode & 0o111
        assert held.units == []
        (folder / "held").write_text("b.service\na.socket\nb.service\n")
        assert held.units == ["a.socket", "b.service"]
    assert not folder.exists()
