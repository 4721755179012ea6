"""What `make run` and `make test` do first: system packages, then the virtual environment.

Runs with the system's Python before anything is installed, so it uses the standard library only.
Done work is skipped: packages that a probe finds, and an environment whose stamp matches.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import system
from harness.errors import HarnessError, HostError, InputError
from harness.system import SystemPackage

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMPS = ROOT / ".make"
GROUPS = {"run": ("run",), "test": ("run", "test")}
"""What each target of the Makefile needs of the table of system packages."""

_EXTRAS = {"run": ".", "test": ".[dev]"}
_ENOUGH = {"run": ("run", "test"), "test": ("test",)}
_QUIET_APT = {"DEBIAN_FRONTEND": "noninteractive"}
_APT = ("apt-get", "-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300")
_SHOWN_LINES = 20


def main(arguments: Sequence[str]) -> int:
    """Set up for ``run`` or ``test``; returns the exit code."""
    try:
        target = arguments[0] if arguments else "run"
        if target not in GROUPS:
            raise InputError(f"nothing to set up for {target!r}", hint="say run or test")
        STAMPS.mkdir(exist_ok=True)
        with (STAMPS / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            set_up_packages(target)
            set_up_environment(target)
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


# ---- system packages -------------------------------------------------------------------------


def set_up_packages(target: str) -> None:
    """Install what is missing, as root with apt; else name it, and stop if nothing works so."""
    wanted = [each for each in system.read_packages() if each.group in GROUPS[target]]
    missing = system.find_missing(wanted)
    if not missing:
        return
    manager = system.find_manager()
    ours = [each for each in missing if may_install(each, target)]
    if ours and manager == "apt" and os.geteuid() == 0:
        _install_with_apt(system.build_names(ours, manager))
        missing = system.find_missing(missing)
    remedy = system.format_remedy(missing, manager, root=os.geteuid() == 0)
    for package in missing:
        name = next(iter(system.build_names([package], manager or "apt")), package.probes[0])
        left_out = ", ".join(package.platforms) or "everything"
        _say(f"{name} is missing ({package.purpose}); left out: {left_out}")
    if target == "test" or any(not package.platforms for package in missing):
        if missing:
            raise HostError("system packages are missing", hint=remedy)
    elif missing:
        _say(f"to have them: {remedy}")


def may_install(package: SystemPackage, target: str) -> bool:
    """No run starts a service behind its user's back; the tests need every part."""
    return target == "test" or not (package.service and system.starts_services())


def _install_with_apt(names: Sequence[str]) -> None:
    _say(f"installing {' '.join(names)}: this takes a minute or two")
    _run([*_APT, "update"], "apt-get update")
    install = [*_APT, "install", "-y", "--no-install-recommends", *names]
    _run(install, "apt-get install")


# ---- the virtual environment -----------------------------------------------------------------


def set_up_environment(target: str) -> None:
    """Make ``.venv`` and install the project in it, unless that is done already."""
    key = build_key(
        [ROOT / "pyproject.toml", ROOT / "constraints.txt"], f"{sys.executable} {sys.version}"
    )
    python = VENV / "bin" / "python"
    stamps = [STAMPS / f"venv-{name}" for name in _ENOUGH[target]]
    if python.exists() and any(stamp.is_file() and stamp.read_text() == key for stamp in stamps):
        return
    _say(f"installing Python packages in {VENV}: this takes a minute or two")
    _run([sys.executable, "-m", "venv", *_find_clear(python), str(VENV)], "venv")
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    _run([*pip, "-c", "constraints.txt", "-e", _EXTRAS[target]], "pip install")
    fresh = stamps[0].with_suffix(".new")
    fresh.write_text(key)
    fresh.replace(stamps[0])


def build_key(files: Sequence[Path], interpreter: str) -> str:
    """What an environment depends on, as one digest."""
    digest = hashlib.sha256(interpreter.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _find_clear(python: Path) -> list[str]:
    """``--clear`` where the environment there is another Python's: its packages would not load."""
    library = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return ["--clear"] if VENV.exists() and not (python.exists() and library.exists()) else []


def _run(argv: Sequence[str], what: str) -> None:
    """Run a tool, its output in a log whose end is shown where it fails; raises HostError."""
    log = STAMPS / "setup.log"
    with log.open("w") as output:
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env={**os.environ, **_QUIET_APT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        for line in log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]:
            print(f"  {line}", file=sys.stderr)
        raise HostError(f"{what} ended with {done.returncode}", hint=f"all of it is in {log}")


def _say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
