"""The set-up: exact pins, one line for what is wrong, and no work done twice."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import setup, system
from harness.errors import HostError

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)==[0-9A-Za-z.+!-]+")


def read_pins() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    matches = [PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches), "every line of constraints.txt is an exact pin without an address"
    return {normalise(match[1]) for match in matches if match}


def normalise(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {normalise(re.split("[<>=!~ ;]", line)[0]) for line in wanted}
    assert names <= read_pins()


def test_a_key_changes_with_the_files_and_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "pins"
    path.write_text("a==1\n")
    keys = [setup.build_key([path], "3.11"), setup.build_key([path], "3.12")]
    path.write_text("a==2\n")
    keys.append(setup.build_key([path], "3.11"))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("target", ["run", "test"])
def test_an_environment_whose_stamp_matches_is_left_alone(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_environment(tmp_path, monkeypatch)
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    (tmp_path / "venv-test").write_text(setup.build_key(files, setup.describe_interpreter()))
    monkeypatch.setattr(setup, "_run", lambda *_: pytest.fail("something was installed"))
    setup.set_up_environment(target)


def make_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a virtual environment looks like from outside, in ``folder``; its pyvenv.cfg."""
    place = folder / "venv"
    python = place / "bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    (place / f"lib/python{sys.version_info.major}.{sys.version_info.minor}").mkdir(parents=True)
    settings = place / "pyvenv.cfg"
    settings.write_text(f"command = /usr/bin/python3 -m venv {place}\n")
    monkeypatch.setattr(setup, "VENV", place)
    monkeypatch.setattr(setup, "STAMPS", folder)
    return settings


@pytest.mark.parametrize("state", ["ours", "moved", "another Python's", "half done"])
def test_an_environment_that_cannot_be_gone_on_with_is_made_anew(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_environment(tmp_path, monkeypatch)
    if state == "moved":
        settings.write_text("command = /usr/bin/python3 -m venv /elsewhere/venv\n")
    elif state == "another Python's":
        next((tmp_path / "venv/lib").iterdir()).rename(tmp_path / "venv/lib/python3.2")
    elif state == "half done":
        with pytest.raises(KeyboardInterrupt):
            stop_at("pip install", monkeypatch)
    ran: list[list[str]] = []
    monkeypatch.setattr(setup, "_run", lambda argv, _: ran.append(list(argv)))
    setup.set_up_environment("run")
    assert ("--clear" in ran[0]) == (state != "ours")
    ran.clear()
    settings.write_text(f"command = python3 -m venv {tmp_path / 'venv'}\n")
    setup.set_up_environment("run")
    assert ran == [], "and then it is left alone"


def stop_at(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set-up that its user interrupts."""

    def run(_argv: Sequence[str], name: str) -> None:
        if name == what:
            raise KeyboardInterrupt

    monkeypatch.setattr(setup, "_run", run)
    setup.set_up_environment("run")


def test_pip_is_not_led_astray_by_the_users_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "http://localhost/simple")
    setup._run(["sh", "-c", "env"], "env")
    told = (tmp_path / "setup.log").read_text()
    assert "/elsewhere" not in told
    assert "PIP_INDEX_URL=http://localhost/simple" in told


def test_a_checkout_in_which_nothing_can_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(setup, "STAMPS", tmp_path / "file" / "stamps")
    assert setup.main(["run"]) == 3
    assert capsys.readouterr().err.startswith("error: nothing can be set up in ")
    monkeypatch.setattr(setup, "ROOT", Path("/a:b"))
    assert setup.main(["run"]) == 3
    assert capsys.readouterr().err == (
        "error: no virtual environment can be made below /a:b: a : is in its path "
        "(move the checkout)\n"
    )


def test_what_is_missing_is_named_with_the_command_and_ends_the_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = '[[package]]\npurpose = "does x"\ngroup = "run"\nprobes = ["command:no-x"]\napt = "x"\n'
    monkeypatch.setattr(system, "read_packages", lambda: system.parse_packages(table))
    monkeypatch.setattr(system, "find_manager", lambda: "apt")
    monkeypatch.setattr(setup, "_install_with_apt", lambda _: None)
    with pytest.raises(HostError, match="apt-get install --no-install-recommends x"):
        setup.set_up_packages("run")
    assert "x is missing (does x); left out: everything" in capsys.readouterr().err


def test_of_a_package_that_is_there_in_part_the_missing_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (
        '[[package]]\npurpose = "does x"\ngroup = "run"\napt = "x"\nplatforms = ["vm-direct"]\n'
        'probes = ["command:sh", "file:/no/firmware"]\n'
    )
    monkeypatch.setattr(system, "read_packages", lambda: system.parse_packages(table))
    monkeypatch.setattr(system, "find_manager", lambda: None)
    setup.set_up_packages("run")
    told = capsys.readouterr().err
    assert "x is missing (does x; no file:/no/firmware); left out: vm-direct" in told


def test_a_package_that_only_some_platforms_need_does_not_end_the_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (
        '[[package]]\npurpose = "does x"\ngroup = "run"\nprobes = ["command:no-x"]\napt = "x"\n'
        'platforms = ["vm-direct"]\n'
    )
    monkeypatch.setattr(system, "read_packages", lambda: system.parse_packages(table))
    monkeypatch.setattr(system, "find_manager", lambda: "dnf")
    setup.set_up_packages("run")
    assert "left out: vm-direct" in capsys.readouterr().err


def test_an_unknown_target_is_one_line() -> None:
    done = subprocess.run(
        ["sh", "harness/setup.sh", "tset"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == "error: nothing to set up for 'tset' (say run or test)\n"
    assert done.returncode == 2


def test_a_failing_tool_shows_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    with pytest.raises(HostError, match=r"pip install ended with 1 \(all of it is in"):
        setup._run(["sh", "-c", "echo no such package; exit 1"], "pip install")
    assert "  no such package\n" in capsys.readouterr().err
