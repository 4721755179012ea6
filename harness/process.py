"""The one door to other programs: run a command to its end, with a time-out and clear errors."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError

HELPER_GRACE_S = 5.0
_FULL = ("no space left", ": wrote only ")
"""How tools say that a disk is full: by ENOSPC's text (strerror(3)), or as GNU tar does where only
a part of a block went in, which has no error number."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished command left: its output as text and its return code."""

    stdout: str
    stderr: str
    returncode: int


def run_command(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    only: bool = False,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> Completed:
    """Run ``argv`` to its end, in a process group of its own that is killed at ``timeout`` seconds.

    ``env`` is added to this process's environment; with ``only`` it is all there is. Raises
    HostError if the program is missing, takes too long, or (with ``check``) ends with another code
    than 0; the error carries the last line that the program wrote, or the one that says the disk
    is full.
    """
    words = [os.fspath(word) for word in argv]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**({} if only else os.environ), **env} if env else None,
            cwd=cwd,
            process_group=0,
        )
    except FileNotFoundError as error:
        raise HostError(
            f"{words[0]} is not installed",
            hint="`python -m harness doctor` names the package",
        ) from error
    except OSError as error:
        raise HostError(f"{words[0]} cannot be started: {error.strerror}") from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_group(process.pid)
            raise HostError(f"{words[0]} did not end within {timeout:g} s") from None
        except BaseException:
            kill_group(process.pid)
            raise
    if check and process.returncode != 0:
        raise HostError(_describe_failure(words[0], process.returncode, stderr or stdout))
    return Completed(stdout, stderr, process.returncode)


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that was watched: seconds until its end and CPU seconds, children's included."""

    returncode: int
    seconds: float
    cpu: float


def run_timed(argv: Sequence[str], *, timeout: float, output: Path, errors: Path) -> Timed:
    """Run ``argv`` to its end with its words in two files, and read what it used (wait4(2)).

    It has a process group of its own that is killed at ``timeout`` seconds. Raises HostError if
    the program is missing or takes too long.
    """
    try:
        with output.open("wb") as out, errors.open("wb") as err:
            begun = time.monotonic()
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0
            )
    except FileNotFoundError:
        raise HostError(f"{argv[0]} is not installed") from None
    except OSError as error:
        raise HostError(f"{argv[0]} cannot be started: {error.strerror}") from error
    try:
        in_time = _wait_end(process.pid, timeout)
        seconds = time.monotonic() - begun
    finally:
        kill_group(process.pid)  # what it left behind too
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not in_time:
        raise HostError(f"{argv[0]} did not end within {timeout:g} s")
    return Timed(process.returncode, seconds, used.ru_utime + used.ru_stime)


def _wait_end(pid: int, seconds: float) -> bool:
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def kill_group(group: int) -> None:
    """Kill every process of a process group; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def says_full(text: str) -> bool:
    """Whether a tool's words mean that the disk is full."""
    return any(each in text.lower() for each in _FULL)


def _describe_failure(program: str, code: int, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # tar says why first, and at last only that there were errors.
    full = [line for line in lines if says_full(line)]
    last = (full or lines or ["it printed nothing"])[-1]
    end = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return f"{Path(program).name} {end}: {last}"


@contextlib.contextmanager
def start_helper(argv: Sequence[str | Path], pass_fds: Sequence[int]) -> Iterator[int]:
    """Run a helper beside this process; yields its pid. It is killed if it outlives the block.

    The helper inherits ``pass_fds`` under their own numbers and nothing else; it should end when
    its end of a socket closes, so that there is nothing to kill.
    """
    process = subprocess.Popen(
        [os.fspath(word) for word in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(pass_fds),
        process_group=0,
    )
    try:
        yield process.pid
    finally:
        try:
            process.wait(timeout=HELPER_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def start_service(
    argv: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> Iterator[int]:
    """Run a daemon beside this process, its words in ``log``; yields its pid.

    It inherits ``pass_fds`` under their own numbers. On exit it is asked to end, and killed if it
    has not after some seconds.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [os.fspath(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            pass_fds=tuple(pass_fds),
            process_group=0,
            umask=0o022,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=2 * HELPER_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_children(parent: int) -> tuple[int, ...]:
    """Every descendant of ``parent`` that lives now, for hosts without cgroups."""
    found: list[int] = []
    waiting = [parent]
    while waiting:
        pid = waiting.pop()
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            continue
        children = [int(word) for word in text.split()]
        found += children
        waiting += children
    return tuple(sorted(found))


def read_cpu_clocks(pids: Sequence[int]) -> float | None:
    """CPU seconds (user and system) of processes by their CPU-time clocks; None if all are gone.

    Source: clock_getcpuclockid(3); the number is how the kernel codes a process's clock.
    """
    found: list[float] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(time.clock_gettime((~pid << 3) | 2))
    return sum(found) if found else None
