"""What `make run` and `make test` do first: system packages, then the virtual environment.

Runs with the system's Python before anything is installed, so it uses the standard library only.
Done work is skipped: packages that a probe finds, and an environment whose stamp matches.
"""

import fcntl
import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from harness import services, system
from harness.errors import HarnessError, HostError, InputError
from harness.setup_faults import explain
from harness.system import SystemPackage

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = ROOT / ".make"
GROUPS = {"run": ("run",), "test": ("run", "test")}
"""What each target of the Makefile needs of the table of system packages."""

_EXTRAS = {"run": ".", "test": ".[dev]"}
_ENOUGH = {"run": ("run", "test"), "test": ("test",)}
_TOOLS = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",  # Ubuntu's restarts the user's services after an installation
    "LC_ALL": "C.UTF-8",  # what they say is read
}
_MISLEADING = ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")
"""With these of the user's, pip would put packages elsewhere, or find them there."""
_APT = ("apt-get", "-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300")
_KEEP_CONFIGURATION = ("--force-confdef", "--force-confold")
_SHOWN_LINES = 20


def main(arguments: Sequence[str]) -> int:
    """Set up for ``run`` or ``test``; returns the exit code."""
    try:
        target = arguments[0] if arguments else "run"
        if target not in GROUPS:
            raise InputError(f"nothing to set up for {target!r}", hint="say run or test")
        with _hold_lock():
            set_up_packages(target)
            set_up_environment(target)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def _hold_lock() -> Iterator[None]:
    """One set-up of a checkout at a time; raises HostError where nothing can be written in it."""
    if os.pathsep in str(ROOT):
        raise HostError(
            f"no virtual environment can be made below {ROOT}: a {os.pathsep} is in its path",
            hint="move the checkout",
        )
    try:
        STAMPS.mkdir(exist_ok=True)
        lock = (STAMPS / "lock").open("w")
    except OSError as error:
        raise HostError(
            f"nothing can be set up in {ROOT}: {error.strerror}",
            hint="use a checkout of your own, on a disk with space",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another set-up of this checkout to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---- system packages -------------------------------------------------------------------------


def set_up_packages(target: str) -> None:
    """Install what is missing, as root with apt; else name it, and stop if nothing works so."""
    wanted = [each for each in system.read_packages() if each.group in GROUPS[target]]
    missing = system.find_missing(wanted)
    if not missing:
        return
    manager = system.find_manager()
    if manager == "apt" and os.geteuid() == 0:
        _install_with_apt(missing)
        importlib.invalidate_caches()
        missing = system.find_missing(missing)
    remedy = system.format_remedy(missing, manager, root=os.geteuid() == 0)
    for package in missing:
        name = next(iter(system.build_names([package], manager or "apt")), package.probes[0])
        left_out = ", ".join(package.platforms) or "everything"
        _say(f"{name} is missing ({_describe(package)}); left out: {left_out}")
    if target == "test" or any(not package.platforms for package in missing):
        if missing:
            raise HostError("system packages are missing", hint=remedy)
    elif missing:
        _say(f"to have them: {remedy}")


def _describe(package: SystemPackage) -> str:
    """What it is for, and where only a part of it is here, what is not."""
    lacking = system.find_lacking(package)
    if len(lacking) == len(package.probes):
        return package.purpose
    return f"{package.purpose}; no {', '.join(lacking)}"


def _read_archives() -> HostError | None:
    """Fetch apt's lists; the error where some cannot be read, raised where none can.

    Without any archive apt would try hundreds of packages in turn before it gives up.
    """
    _say("reading the lists of packages")
    try:
        _run([*_APT, "-o", "APT::Update::Error-Mode=any", "update"], "apt-get update")
    except HostError as error:
        told = (STAMPS / "setup.log").read_text(errors="replace").splitlines()
        if not any(line.startswith(("Hit:", "Get:")) for line in told):
            raise
        _say(f"going on with what could be read: {error}")
        return error
    return None


def _install_with_apt(missing: Sequence[SystemPackage]) -> None:
    """Install what apt knows of ``missing``; raises HostError.

    An archive that cannot be read is a fault only where a package is then not to be had.
    """
    unread = _read_archives()
    wanted = system.build_names(missing, "apt")
    known = system.read_known(wanted)
    names = [name for name in wanted if name in known]
    if not names:
        raise unread or HostError(
            f"apt's archives have none of {' '.join(wanted)}",
            hint="do its sources name this release's own archives, with `main`?",
        )
    _say(f"installing {' '.join(names)}: this takes a minute or two")
    keep = [word for each in _KEEP_CONFIGURATION for word in ("-o", f"Dpkg::Options::={each}")]
    held = services.hold_back(STAMPS) if system.starts_services() else nullcontext()
    with held as back:
        options = [*keep, *(back.options if back else ())]
        _run(
            [*_APT, *options, "install", "-y", "--no-install-recommends", *names], "apt-get install"
        )
        if back and back.units:
            _say(f"came with them, and is neither started nor enabled: {' '.join(back.units)}")


# ---- the virtual environment -----------------------------------------------------------------


def set_up_environment(target: str) -> None:
    """Make ``.venv`` and install the project in it, unless that is done already."""
    key = build_key([ROOT / "pyproject.toml", ROOT / "constraints.txt"], describe_interpreter())
    python = VENV / "bin" / "python"
    stamps = [STAMPS / f"venv-{name}" for name in _ENOUGH[target]]
    if python.exists() and any(stamp.is_file() and stamp.read_text() == key for stamp in stamps):
        return
    _say(f"installing Python packages in {VENV}: this takes a minute or two")
    half_done = STAMPS / "venv-half-done"
    clear = ["--clear"] if half_done.exists() or not _is_ours(python) else []
    half_done.touch()
    _run([sys.executable, "-m", "venv", *clear, str(VENV)], "venv")
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-user"]
    _run([*pip, "-c", "constraints.txt", "-e", _EXTRAS[target]], "pip install")
    fresh = stamps[0].with_suffix(".new")
    fresh.write_text(key)
    fresh.replace(stamps[0])
    half_done.unlink()


def describe_interpreter() -> str:
    """The Python that an environment is made with, and the place that its scripts name."""
    return f"{sys.executable} {sys.version} {VENV}"


def build_key(files: Sequence[Path], interpreter: str) -> str:
    """What an environment depends on, as one digest."""
    digest = hashlib.sha256(interpreter.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_ours(python: Path) -> bool:
    """Whether the environment there, if any, is of this Python and was made in this place.

    Another Python's packages do not load, and scripts begin with the path of their interpreter.
    """
    if not VENV.exists():
        return True
    library = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    settings = VENV / "pyvenv.cfg"
    made = settings.read_text(errors="replace") if settings.is_file() else ""
    command = next((line for line in made.splitlines() if line.startswith("command = ")), "")
    place = next((each for each in (VENV, VENV.resolve()) if command.endswith(f" {each}")), None)
    return place is not None and python.exists() and library.exists()


def _run(argv: Sequence[str], what: str) -> None:
    """Run a tool, its output in a log; raises HostError with the cause that the log names.

    Where none is known in it, the log's end is shown.
    """
    log = STAMPS / "setup.log"
    with log.open("w") as output:
        code = _wait(argv, output.fileno())
    if code == 0:
        return
    text = log.read_text(errors="replace")
    if fault := explain(text):
        raise HostError(
            f"{what} ended with {code}: {fault.reason}",
            hint=f"{fault.remedy}; all of it is in {log}",
        )
    for line in text.splitlines()[-_SHOWN_LINES:]:
        print(f"  {line}", file=sys.stderr)
    raise HostError(f"{what} ended with {code}", hint=f"all of it is in {log}")


def _wait(argv: Sequence[str], output: int) -> int:
    """The exit code of a tool. Ctrl-C reaches it too: it is left to end by itself, or dpkg would be
    left with half of a package; a second one ends it."""
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**environment, **_TOOLS},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    ) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            _say(f"waiting for {Path(argv[0]).name} to end")
            child.wait()
            raise


def _say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
