"""The lab: private namespaces that a run happens in, so that the kernel ends whatever it started.

Four processes, each with one duty:

    harness (what the user sees and kills)   forwards signals, waits
      └ keeper       enters the namespaces, waits
          └ init     first process of the pid namespace: reaps orphans; when the work is done, or
              │      when the harness is gone, kills all that is left and removes the run's groups
              │      and scratch folder. As it ends, the kernel kills what its namespace still has
              └ work   runs what was asked, as `work`

Init holds one end of a pipe whose other end only the harness has: a `kill -9` of the harness
closes it. A `kill -9` of init makes the kernel end the namespace; groups and scratch are then left
to `clean`, which finds the run in the register and sees by its lock that nobody lives there.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness import cgroup, delegation, lab_view, linux, outer_network
from harness.delegation import Stay
from harness.errors import (
    HarnessError,
    HostError,
    InternalError,
    describe_os_error,
    describe_unexpected,
)
from harness.handover import Handover, leave_error, raise_left
from harness.lab_mounts import make_places, set_up_mounts
from harness.lab_mounts import unmount_below as unmount_below
from harness.paths import cache_dir, find_outside, format_outside, register_dir, scratch_root
from harness.places import require_cache
from harness.process import run_command
from harness.temporary import clean_temporary
from harness.user_namespace import (
    Walls,
    explain_refusal,
    map_ids,
    read_walls,
    require_subordinate_ids,
)

BRIDGE = "hbr0"
GATEWAY = "10.87.0.1"
PREFIX = 16
NETWORK_RESULTS = Path("/var/lib/cni/results")
"""Where network plugins keep what they gave, by the network's name: that carries the run's id."""
ENGINE_RANGE = "10.87.128.0/17"
_END_S = 10.0
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def build_address(number: int) -> str:
    """The address, with prefix, of the run's instance ``number`` (0 and up) on the bridge.

    The upper half of the bridge's range, `ENGINE_RANGE`, is for engines that give addresses.
    """
    host = number % 32_000 + 2
    return f"10.87.{host >> 8}.{host & 255}/{PREFIX}"


def host_proc() -> Path:
    """Where the lab sees the host's own /proc, if it runs as root: an engine that runs outside
    the lab counts processes by it."""
    return cache_dir() / "host-proc"


def is_privileged() -> bool:
    """Whether this process is root of the host (not of a user namespace)."""
    return linux.is_root_of_host()


# ---- the register: what a run has outside its namespaces -------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """What `clean` must remove when the run is dead: only what the run made itself."""

    run_id: str
    scratch: str
    cgroup: str
    docker: str = ""
    """Address of a Docker daemon, not the run's own, that may hold containers of the run."""
    absent: tuple[str, ...] = ()
    """Folders of engines outside the scratch folder that were not there before the run."""
    libvirt: str = ""
    """Address of a libvirt daemon that may hold virtual machines and files of the run."""
    base: str = ""
    """The control group below which the run's are, where that is not a hierarchy's top."""

    @property
    def path(self) -> Path:
        return register_dir() / f"{self.run_id}.json"


def build_record(run_id: str) -> Record:
    return Record(run_id, str(find_outside(scratch_root() / run_id)), cgroup.PREFIX + run_id)


@contextlib.contextmanager
def _hold_record(record: Record) -> Iterator[None]:
    """Write the run's record and hold its lock; a lock that is free means a dead run."""
    record.path.parent.mkdir(parents=True, exist_ok=True)
    with record.path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(asdict(record), file)
        file.flush()
        yield


def note_engine(run_id: str, host: str) -> None:
    """Have containers of the run removed from the Docker daemon at ``host`` when the run ends."""
    _write_note(replace(_read_record(build_record(run_id)), docker=host))


def note_connection(run_id: str, uri: str) -> None:
    """Have what the run has in the libvirt daemon at ``uri`` removed when it ends; "" for none."""
    _write_note(replace(_read_record(build_record(run_id)), libvirt=uri))


def note_folders(run_id: str, folders: Sequence[str]) -> None:
    """Have those of ``folders`` that are not there yet removed when the run ends, once they are
    empty. The innermost come first."""
    record = _read_record(build_record(run_id))
    absent = [each for each in folders if not Path(each).exists() and each not in record.absent]
    _write_note(replace(record, absent=(*record.absent, *absent)))


def _write_note(record: Record) -> None:
    with contextlib.suppress(FileNotFoundError), record.path.open("r+") as file:
        json.dump(asdict(record), file)
        file.truncate()


def _read_record(record: Record) -> Record:
    """The record as it stands in the register: the worker may have added to it."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Record(**json.loads(record.path.read_text()))
    return record


def clean_dead_runs() -> list[str]:
    """Remove what dead runs left; a line for each thing that was removed or could not be."""
    said: list[str] = []
    for path in sorted(register_dir().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError), path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said += _clean_record(Record(**json.load(file)))
    delegation.clean_up_own(cgroup.MOUNT)
    return said + clean_temporary()


def _clean_record(record: Record) -> list[str]:
    said = []
    if record.docker:
        from harness.drivers.docker_api import remove_run

        said += remove_run(record.docker, record.run_id)
    if record.libvirt:
        from harness.drivers.libvirt_pool import clean_daemon

        said += clean_daemon(record.libvirt, record.run_id)
    with contextlib.suppress(OSError):  # not root's run, which makes none, may not look there
        for file in NETWORK_RESULTS.glob(f"{cgroup.PREFIX}{record.run_id}-*"):
            file.unlink(missing_ok=True)
    for folder in record.absent:
        with contextlib.suppress(OSError):  # not made at all, or somebody else uses it by now
            os.rmdir(folder)
    for group in _find_groups(record.cgroup, record.base):
        left = cgroup.remove_trees([group])
        said += [f"could not remove cgroup {line}" for line in left] or [f"removed cgroup {group}"]
    if record.base and cgroup.MOUNT in Path(record.base).parents:
        delegation.clean_up(Path(record.base))
    scratch = scratch_root() / Path(record.scratch).name
    inside = scratch.resolve().parent == scratch_root().resolve()
    if inside and Path(record.scratch) == find_outside(scratch) and scratch.exists():
        problems: list[str] = []
        shutil.rmtree(
            scratch, onerror=lambda _, path, error: problems.append(f"{path}: {error[1]}")
        )
        said += [f"could not remove {line}" for line in problems] or [f"removed {scratch}"]
    if not any(line.startswith("could not") for line in said):
        record.path.unlink(missing_ok=True)
    return said


def _find_groups(name: str, base: str = "") -> list[Path]:
    """The run's group in every hierarchy, and below ``base``; the name holds the run's id."""
    if not name.startswith(cgroup.PREFIX) or "/" in name:
        return []
    places = cgroup.find_hierarchies()
    if base and cgroup.MOUNT in Path(base).parents:
        places.append(Path(base))
    own = [each / name for each in places if (each / name).is_dir()]
    trials = [path for each in places for path in each.glob(f"{name}-*")]
    return sorted({each.resolve() for each in [*own, *trials]})


# ---- entering --------------------------------------------------------------------------------


def run_inside(
    work: Callable[[], int], run_id: str, *, network: bool = True, connected: bool = False
) -> int:
    """Run ``work`` in the lab and return its exit code (128 + N if signal N ended it).

    With ``network`` the lab has a network of its own with the bridge; without, it keeps the
    host's (for building images). With ``connected`` it sees the host's buses too. Raises HostError
    where this user may not make namespaces, and whatever error of the family ``work`` raises.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    require_cache()
    need_mapping = os.geteuid() != 0
    if need_mapping:
        require_subordinate_ids()
    with cgroup.settled() if network else contextlib.nullcontext(Stay()) as stay:
        return _visit(_Visit(work, run_id, network, connected, need_mapping, stay))


def _visit(visit: "_Visit") -> int:
    """Fork what enters the lab, and wait for it."""
    alive_read, alive_write = os.pipe()
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    gone_read, gone_write = os.pipe()  # readable once no process of the lab keeps the other end
    keeper = os.fork()
    if keeper == 0:
        # It waits for the end of what it reads, and is waited for by the end of what it keeps.
        for end in (alive_write, ask_read, answer_write, gone_read):
            os.close(end)
        _exit_with(lambda: _keep(visit, (ask_write, answer_read), alive_read), visit.told)
    for end in (alive_read, ask_write, answer_read, gone_write):
        os.close(end)
    try:
        _map_when_asked(keeper, ask_read, answer_write, visit)
        code = _wait_forwarding(keeper)
    finally:
        os.close(alive_write)
        os.close(ask_read)
        select.select([gone_read], [], [], _END_S)  # init goes on for a moment without its keeper
        os.close(gone_read)
    raise_left(visit.told)
    return code


@dataclass(frozen=True, slots=True)
class _Visit:
    """One use of the lab: what is to be done there, and how it is to look. ``told`` is where its
    processes leave the error that ended them."""

    work: Callable[[], int]
    run_id: str
    network: bool
    connected: bool
    need_mapping: bool
    stay: Stay
    walls: Walls = field(default_factory=read_walls)
    told: Handover = field(default_factory=Handover)


def _map_when_asked(keeper: int, ask: int, answer: int, visit: _Visit) -> None:
    """Map the user's ids once the keeper has its namespace. Without them it ends by itself."""
    try:
        if visit.need_mapping and os.read(ask, 1):
            map_ids(keeper)
            os.write(answer, b"g")
    except HarnessError as error:
        leave_error(visit.told, error)
    except BrokenPipeError:  # it has ended meanwhile, and its code or what it left says why
        pass
    finally:
        os.close(answer)


def _exit_with(function: Callable[[], int], told: Handover) -> None:
    """Run a child's part and end the child, whatever happens; never returns to the caller."""
    code = InternalError.exit_code
    try:
        code = function()
    except HarnessError as error:
        leave_error(told, error)
        code = error.exit_code
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or point HARNESS_CACHE at a larger disk" if full else None
        leave_error(told, HostError(describe_os_error(error), hint=hint))
        code = HostError.exit_code
    except Exception as error:
        leave_error(told, InternalError(describe_unexpected(error)), traceback.format_exc())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _explained(walls: Walls) -> Iterator[None]:
    """What the kernel refuses here is explained by what of this host forbids it."""
    try:
        yield
    except OSError as error:
        raise explain_refusal(error, walls) from error


def _wait_forwarding(child: int) -> int:
    """Wait for a child, handing on every signal that asks to end; its exit code."""
    old = {each: signal.getsignal(each) for each in _FORWARDED}
    for each in _FORWARDED:
        signal.signal(each, lambda number, _: _send(child, number))
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for each, handler in old.items():
            signal.signal(each, handler)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def raise_interrupt(code: int) -> None:
    """Raise KeyboardInterrupt where an exit code of `run_inside` means that the user asked it to
    end: no platform's doing, and nothing is to be begun after it."""
    if code - 128 in _FORWARDED:
        raise KeyboardInterrupt


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _keep(visit: _Visit, mapping: tuple[int, int], alive: int) -> int:
    """The keeper: a process group of its own (Ctrl-C reaches only the harness), new namespaces."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    flags = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC
    if visit.network:
        flags |= linux.CLONE_NEWNET
        outer_network.remember()
    with _explained(visit.walls):
        if not _become_mapped(visit, mapping):
            return HostError.exit_code
        linux.unshare(flags)
    init = os.fork()
    if init == 0:
        _exit_with(lambda: _init(visit, alive), visit.told)
    os.close(alive)
    try:
        return _wait_forwarding(init)
    finally:
        visit.stay.leave()  # the harness, which also does it, may have been killed


def _become_mapped(visit: _Visit, mapping: tuple[int, int]) -> bool:
    """Become root of a user namespace where that is needed; False where nobody maps its ids."""
    ask, answer = mapping
    if visit.need_mapping:
        linux.unshare(linux.CLONE_NEWUSER)
        linux.set_dumpable()
        os.write(ask, b"u")
        if not os.read(answer, 1):
            return False
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.close(ask)
    os.close(answer)
    return True


def _init(visit: _Visit, alive: int) -> int:
    """The first process of the lab."""
    make_places(host_proc())  # a full disk is no wall of a namespace
    with _explained(visit.walls):
        set_up_mounts(host_proc(), connected=visit.connected)
    lab_view.set_up_environment(connected=visit.connected)
    base = visit.stay.base
    record = replace(build_record(visit.run_id), base="" if base is None else str(base))
    with _hold_record(record):
        if visit.network:
            _set_up_network()
        worker = os.fork()
        if worker == 0:
            os.close(alive)
            _exit_with(lambda: _work(visit.work), visit.told)
        code = _reap_until(worker, alive)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
        _reap_all()
        unmount_below(scratch_root() / visit.run_id)
        for line in _clean_record(_read_record(record)):
            if line.startswith("could not"):
                print(f"warning: {format_outside(line)}", file=sys.stderr)
    return code


def _work(work: Callable[[], int]) -> int:
    """The worker: the first request to end raises, later ones wait for the teardown."""

    def interrupt(number: int, _frame: object) -> None:
        for each in _FORWARDED:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for each in _FORWARDED:
        signal.signal(each, interrupt)
    try:
        return work()
    except Interrupted as error:
        return 128 + error.number


class Interrupted(BaseException):
    """The user asked the run to end; ``number`` is the signal (SIGINT: exit code 130)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _reap_until(worker: int, alive: int) -> int:
    """Reap every orphan until the worker ends or the harness is gone; the worker's exit code."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for each in _FORWARDED:
        signal.signal(each, lambda number, _: _send(worker, number))
    while True:
        code = _reap_some(worker)
        if code is not None:
            return code
        readable, _, _ = select.select([wake_read, alive], [], [])
        if alive in readable:
            return 137
        with contextlib.suppress(BlockingIOError):
            os.read(wake_read, 4096)


def _reap_some(worker: int) -> int | None:
    """Reap whoever has ended; the worker's exit code if it was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == worker:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def _reap_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


# ---- its network ------------------------------------------------------------------------------


def _set_up_network() -> None:
    """Loopback, and one bridge that every instance's link ends at."""
    commands: Sequence[Sequence[str]] = (
        ("ip", "link", "set", "lo", "up"),
        ("ip", "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"),
        ("ip", "address", "add", f"{GATEWAY}/{PREFIX}", "dev", BRIDGE),
        ("ip", "link", "set", BRIDGE, "up"),
    )
    for command in commands:
        run_command(command, timeout=10)
