"""The command line as users meet it: real processes, their two streams and exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import doctor, system
from harness.__main__ import main
from harness.cli.output import format_columns, format_tree
from harness.drivers import PLATFORMS
from harness.images.recipes import RECIPES
from harness.metrics import METRICS
from harness.plans import list_plans
from harness.workloads import list_workloads
from tests.unit.synthetic import write_run

ROOT = Path(__file__).parents[2]
HEAVY = {"libvirt", "matplotlib", "msgspec", "numpy", "pandas", "pyarrow", "rich", "seaborn"}


def run_harness(
    *words: str, cwd: Path = ROOT, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "harness", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=180,
        check=False,
    )


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("runn", "No such command 'runn'. Did you mean 'run'?"),
        ("run --blcoks 3", "No such option '--blcoks'. Did you mean '--blocks'?"),
        ("run --blocks many", "Invalid value for '--blocks': 'many' is not a valid integer"),
        ("run --blocks 0", "--blocks: expected an integer >= 1 (write --blocks 10)"),
        ("run --budget soon", "--budget: 'soon' is not a duration (write --budget 10m)"),
        ("run --precision 0", "--precision: '0' is not a share (write --precision 2%)"),
        ("run --precision 0%", "--precision: 0% is not above 0% and below 100%"),
        ("run --precision 200%", "--precision: 200% is not above 0% and below 100%"),
        ("run --precision abc", "--precision: 'abc' is not a share (write --precision 2%)"),
        ("run --precision 2% --blocks 5", "--blocks: 5 cannot show a `precision`: that takes 20"),
        ("run --precision 2% --quick", "--quick is 3 blocks, too few for --precision"),
        ("run --precision 2% --platform crun", "there is one platform only (name two"),
        ("run --resume nowhere --precision 2%", "--resume takes the plan of the run"),
        ("run --seed -1", "--seed: -1 is not from 0 to 2^63 - 1"),
        ("run --cache hot", "'hot' is not one of 'warm', 'cold'"),
        ("run --platform vm-dircet", "--platform: unknown platform 'vm-dircet' (did you mean"),
        ("run --workload nop", "--workload: unknown workload 'nop' (did you mean 'noop'?"),
        ("run --image tinny", "there is no image 'tinny' (did you mean 'tiny'?)"),
        ("run nowhere.toml", "nowhere.toml: there is no such file"),
        ("run a.toml b.toml", "unexpected extra argument"),
        ("run --resume nowhere --seed 1", "--resume takes the plan of the run it goes on with"),
        ("run --resume nowhere", "nowhere"),
        ("run --out /run/lock/r", "results in /run/lock/r would be lost"),
        ("isolation --out /run/lock/r", "results in /run/lock/r would be lost"),
        ("list platfroms", "'platfroms' is not one of 'platforms'"),
        ("report", "Missing argument 'DIR…'"),
        ("report --format docx x", "--format: unknown format 'docx'"),
        ("report --out x.html a b", "--out is one file, for one report"),
        ("report --out here a", "--out is one file, and --format has html and md"),
        ("images improt", "No such command 'improt'. Did you mean 'import'?"),
        ("images import /nowhere", "Missing option '--name'"),
        ("images build tinny", "there is no recipe 'tinny'"),
        ("images export tinny --out x", "there is no image 'tinny'"),
        ("doctor --jsn", "No such option '--jsn'. Did you mean '--json'?"),
    ],
)
def test_wrong_usage_is_one_line_on_stderr_and_exit_2(
    words: str, error: str, tmp_path: Path
) -> None:
    done = run_harness(*words.split(), cwd=tmp_path)
    assert error in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (2, "")


def test_a_traceback_is_shown_with_debug_only(tmp_path: Path) -> None:
    assert "Traceback" not in run_harness("run", "nowhere.toml", cwd=tmp_path).stderr
    for words in (("--debug", "run", "nowhere.toml"), ("run", "nowhere.toml", "--debug")):
        assert "Traceback" in run_harness(*words, cwd=tmp_path).stderr


def test_a_fault_of_the_harness_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(doctor, "main", fail)
    assert main(["doctor"]) == 70
    error = capsys.readouterr().err
    assert error == (
        "internal error: ZeroDivisionError: one two (a fault of the harness; --debug shows where)\n"
    )


def test_ctrl_c_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "main", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "list", "metrics", "--json"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=180, check=False,
        )  # fmt: skip
    assert done.stderr == "error: No space left on device\n"
    assert done.returncode == 3


# ---- help and lists ----------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    script = "import sys; from harness.__main__ import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert loaded & HEAVY == set()


def test_help_names_every_command() -> None:
    text = run_harness("--help").stdout
    for command in ("doctor", "list", "run", "report", "images", "clean"):
        assert f"\n  {command} " in text


@pytest.mark.parametrize(
    ("things", "key", "names"),
    [
        ("platforms", "platform", sorted(PLATFORMS)),
        ("workloads", "workload", list_workloads()),
        ("metrics", "name", sorted(METRICS)),
    ],
)
def test_a_list_has_everything_for_people_and_for_scripts(
    things: str, key: str, names: list[str]
) -> None:
    rows = json.loads(run_harness("list", things, "--json").stdout)
    assert sorted(row[key] for row in rows) == names
    text = run_harness("list", things).stdout
    assert sorted(line.split()[0] for line in text.splitlines()[1:]) == names


def test_list_images_has_the_recipes_before_anything_is_built(tmp_path: Path) -> None:
    done = run_harness("list", "images", "--json", HARNESS_CACHE=str(tmp_path))
    rows = json.loads(done.stdout)
    assert {row["image"]: row["digest"] for row in rows} == dict.fromkeys(RECIPES)


def test_list_plans_has_those_that_come_with_the_harness() -> None:
    assert [row["plan"] for row in json.loads(run_harness("list", "plans", "--json").stdout)] == (
        list_plans()
    )


def test_a_plan_of_the_harness_is_run_by_its_name() -> None:
    for name in ("base-ladder", "base-ladder.toml"):
        shown = run_harness("run", name, "--dry-run").stdout
        assert "pyapp@pyapp-distroless" in shown and "web-scratch" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "base-lader"], "did you mean 'base-ladder'?"),
        (["run", "--workload", "noop@nothing"], "there is no image 'nothing'"),
        (["run", "--workload", "noop@slim", "--image", "tiny"], "'noop@slim' says its image"),
        (["layers", "--repeats", "0"], "--repeats"),
    ],
)
def test_a_wrong_plan_or_image_is_one_line_with_the_remedy(words: list[str], said: str) -> None:
    done = run_harness(*words)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_terminal_that_lacks_a_letter_is_shown_another() -> None:
    done = run_harness("list", "published", PYTHONIOENCODING="ISO-8859-1")
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout


def test_a_locale_that_is_not_utf_8_changes_no_file_and_no_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed (package libc-bin)")
    built = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if built.returncode:
        pytest.skip("this host has no sources of locales (package locales)")
    write_run(tmp_path / "r")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
    done = run_harness("report", str(tmp_path / "r"))
    assert done.returncode == 0, done.stderr
    assert "–" in (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    done = run_harness("list", "published")
    assert done.returncode == 0, done.stderr


# ---- doctor ------------------------------------------------------------------------------------


def test_doctor_works_when_no_python_package_is_installed(tmp_path: Path) -> None:
    # -S leaves site-packages out: only the standard library is there.
    done = run_harness("doctor", "--json", flags=("-S",), HARNESS_CACHE=str(tmp_path))
    report = json.loads(done.stdout)
    missing = {each["name"]: each["remedy"] for each in report["missing"]}
    assert set(doctor.MODULES) <= missing.keys()
    assert missing["pandas"] == "make run"
    assert {each["name"] for each in report["platforms"]} == set(PLATFORMS)


def test_without_python_packages_other_commands_say_what_sets_them_up() -> None:
    done = run_harness("run", flags=("-S",))
    assert (
        done.stderr == "error: the harness is not set up for this Python (`make run` sets it up)\n"
    )
    assert done.returncode == 3


def test_doctor_finds_every_platform_and_package_here(tmp_path: Path) -> None:
    words = ("doctor", "--json", "--no-prove", "--start-engines")
    report = json.loads(run_harness(*words, HARNESS_CACHE=str(tmp_path)).stdout)
    available = {each["name"]: each["available"] for each in report["platforms"]}
    assert available == dict.fromkeys(PLATFORMS, True)
    assert report["missing"] == []
    assert report["accelerator"]["reason"] == "the guest kernel is not built yet: a run does it"


def test_a_platform_that_lacks_a_package_names_it_and_the_command() -> None:
    lacking = [each for each in system.read_packages() if each.names.get("apt") == "seabios"]
    check = doctor.check_platform("vm-direct", lacking)
    assert not check.available
    assert check.reason == "seabios is not installed"
    assert check.remedy is not None
    assert check.remedy.endswith("apt-get install --no-install-recommends seabios")
    assert doctor.check_platform("process", lacking).available


def test_doctor_for_people_says_the_same() -> None:
    text = doctor.format_checkup(doctor.examine())
    for name in PLATFORMS:
        assert name in text


# ---- dry run and output ------------------------------------------------------------------------


def test_a_dry_run_shows_the_order_and_starts_nothing(tmp_path: Path) -> None:
    words = "run --platform process --platform namespace --workload noop --quick --seed 1 --dry-run"
    cache = tmp_path / "cache"
    done = run_harness(*words.split(), cwd=tmp_path, HARNESS_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert "block 0 (warm-up): " in done.stdout
    assert "block 3: " in done.stdout
    assert "  namespace noop:\n" in done.stdout
    assert "process noop: to namespace; network differs, which is the point" in done.stdout
    assert "refused" not in done.stdout, "what is only not built yet is no difference"
    assert not (cache / "images").exists()
    assert not (tmp_path / "results").exists()


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert format_columns([["a", "b"], ["long", "c"]]) == "a     b\nlong  c"


def test_a_tree_keeps_the_lines_of_a_text() -> None:
    tree = {"xml": "<a>\n  <b/>\n</a>", "list": ["x", {"k": 1}], "none": None}
    assert format_tree(tree) == ("xml:\n  <a>\n    <b/>\n  </a>\nlist:\n  - x\n  - k: 1\nnone: –")


# ---- system packages ---------------------------------------------------------------------------


def test_every_system_package_says_what_it_is_for() -> None:
    for package in system.read_packages():
        assert package.purpose
        assert package.group in ("run", "test")
        assert package.names.get("apt"), package
        assert all(name in PLATFORMS for name in package.platforms)


def test_a_thing_that_is_not_there_is_missing() -> None:
    text = '[[package]]\npurpose = "p"\ngroup = "run"\nprobes = ["command:no-such"]\napt = "none"\n'
    packages = system.parse_packages(text)
    assert system.find_missing(packages) == list(packages)
    assert system.format_remedy(packages, "apt", root=False).startswith("sudo apt-get install")
    assert system.format_remedy(packages, None, root=True) == "install what Debian calls none"
