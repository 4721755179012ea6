"""The set-up: exact pins, one line for what is wrong, and no work done twice."""

import re
import subprocess
import sys
import tomllib
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
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "venv-test").write_text(setup.build_key(files, f"{sys.executable} {sys.version}"))
    monkeypatch.setattr(setup, "VENV", tmp_path / "venv")
    monkeypatch.setattr(setup, "STAMPS", tmp_path)
    monkeypatch.setattr(setup, "_run", lambda *_: pytest.fail("something was installed"))
    setup.set_up_environment(target)


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
