"""What gVisor's runsc can do depends on its release; for every platform that uses it.

What traps a workload's system calls is its «platform»: ptrace, systrap or KVM. Without a word about
it a release takes its own default, and a sandbox process names the one that it uses only where that
is another.
"""

import contextlib
import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.drivers.base import Processes
from harness.drivers.commanded import find_program
from harness.errors import HostError
from harness.model import UNKNOWN_ACCELERATOR
from harness.process import run_command

_FIRST_WITH_SYNONYM = 20230501
_FIRST_WITH_CHECK = 20250101
PROOF_S = 30.0
_KVM = "/dev/kvm"
_SANDBOX = "runsc-sandbox"
_NAMESPACED = Path("/proc/sys/net/core/rmem_default")


def find_netstack_fault() -> str | None:
    """Why runsc cannot have a network here; asked inside the lab.

    Older releases take a network namespace in which this file is seen for the host's own, and
    refuse it; newer kernels show it in every one.
    """
    if _NAMESPACED.exists() and (read_release() or _FIRST_WITH_CHECK) < _FIRST_WITH_CHECK:
        return "this release of runsc takes every network of this kernel for the host's own"
    return None


def build_socket_option() -> str:
    """How runsc is told that the agent may use the channel's socket, in words of its release."""
    if (read_release() or _FIRST_WITH_SYNONYM) < _FIRST_WITH_SYNONYM:
        return "--fsgofer-host-uds"
    return "--host-uds=open"


def read_platforms() -> tuple[str, ...]:
    """The platforms that the installed release has, its default first; empty where it does not
    say."""
    return _read_platforms(find_program("runsc") or "runsc")


@functools.cache
def _read_platforms(program: str) -> tuple[str, ...]:
    """The same of any runsc, from its own description of the flag:
    ``ptrace (default), kvm. (default "ptrace")``."""
    with contextlib.suppress(HostError):
        done = run_command([program, "flags"], timeout=10, check=False)
        return parse_platforms(done.stdout + done.stderr)
    return ()


def parse_platforms(flags: str) -> tuple[str, ...]:
    """The same from what ``runsc flags`` prints."""
    found = re.search(r"which platform to use: (.+?)\.? \(default \"?(\w+)", flags)
    if found is None:
        return ()
    names = [each.split()[0] for each in found[1].split(",") if each.strip()]
    return tuple(dict.fromkeys((found[2], *names)))


def find_platform_fault(asked: str | None) -> str | None:
    """Why runsc cannot use the platform that is asked for; None if it can, or none is."""
    if asked is None:
        return None
    known = read_platforms()
    if known and asked not in known:
        return f"this release of runsc has no platform {asked}: it has {', '.join(known)}"
    if asked == "kvm" and not os.path.exists(_KVM):
        return f"gVisor's platform kvm needs {_KVM}, which this host does not have"
    if asked == "kvm" and not os.access(_KVM, os.R_OK | os.W_OK):
        return f"this user may not open {_KVM}, which gVisor's platform kvm needs"
    return None


def require_platform(asked: str | None, folder: Path) -> None:
    """Run one program on KVM, if that is asked for, before anything is measured: that the host has
    it proves nothing. Raises HostError. For use inside the lab, which ends what is left of it."""
    if asked != "kvm":
        return
    words = [find_program("runsc") or "runsc", "--root", str(folder / "runsc-proof")]
    words += ["--platform=kvm", "--network=none", "--ignore-cgroups", "do", "/bin/true"]
    try:
        run_command(words, timeout=PROOF_S)
    except HostError as error:
        raise HostError(
            f"gVisor's platform kvm runs no program here: {error.message}",
            hint="leave the platform out, or take another",
        ) from error


def find_used(processes: Processes) -> str:
    """The platform that a sandbox uses, by its own process's command line; without a word there
    what its own release takes by itself. `UNKNOWN_ACCELERATOR` where there is no such process, it
    cannot be seen, or its program cannot be asked."""
    for pid in (*processes.inside, *processes.helpers):
        with contextlib.suppress(OSError):
            folder = processes.proc / str(pid)
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
            if Path(words[0]).name == _SANDBOX:
                return parse_used(words) or _find_default(folder, processes.proc)
    return UNKNOWN_ACCELERATOR


def _find_default(folder: Path, proc: Path) -> str:
    """What the release behind the process in ``folder`` takes by itself: the installed runsc need
    not be the one that a daemon has. Raises OSError where its program cannot be seen.

    It is run only where it is the host's own file of that name: never a file of a container's.
    """
    there = Path(f"{proc}/1/root{os.readlink(folder / 'exe')}")
    if not os.path.samestat((folder / "exe").stat(), there.stat()):
        return UNKNOWN_ACCELERATOR
    return next(iter(_read_platforms(str(there))), UNKNOWN_ACCELERATOR)


def parse_used(words: Sequence[str]) -> str | None:
    """The platform in the arguments of a sandbox process; None where they name none."""
    return next((each.split("=", 1)[1] for each in words if each.startswith("--platform=")), None)


def describe_platform(asked: str | None, *, known: bool = True) -> dict[str, object]:
    """What a sandbox is going to run on, and why, for the manifest. Not ``known`` is the release
    and configuration of a daemon that is not the run's own."""
    reason = "this release's own choice" if known else "chosen in the daemon's own configuration"
    default = next(iter(read_platforms()), None) if known else None
    return {
        "accelerator": asked or default or UNKNOWN_ACCELERATOR,
        "accelerator_proved": False,
        "accelerator_reason": "asked for by name" if asked else reason,
    }


@functools.cache
def read_release() -> int | None:
    """The date in runsc's version (``release-20221219.0``) as a number; None if it has none."""
    with contextlib.suppress(HostError):
        said = run_command([find_program("runsc") or "runsc", "--version"], timeout=10).stdout
        found = re.search(r"20\d{6}", said)
        return int(found[0]) if found else None
    return None
