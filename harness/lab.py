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
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import cgroup, linux, outer_network
from harness.errors import HarnessError, HostError
from harness.paths import cache_dir, register_dir, scratch_root
from harness.process import run_command

BRIDGE = "hbr0"
GATEWAY = "10.87.0.1"
PREFIX = 16
NETWORK_RESULTS = Path("/var/lib/cni/results")
"""Where network plugins keep what they gave, by the network's name: that carries the run's id."""
ENGINE_RANGE = "10.87.128.0/17"
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SUBORDINATE_IDS = 65536
_entered: list[str] = []  # in the lab, the run that it is of


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


def is_inside() -> bool:
    """Whether this process is in the lab, where mounts are its own."""
    return bool(_entered)


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

    @property
    def path(self) -> Path:
        return register_dir() / f"{self.run_id}.json"


def build_record(run_id: str) -> Record:
    return Record(run_id, str(scratch_root() / run_id), cgroup.PREFIX + run_id)


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
    return said


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
    for group in _find_groups(record.cgroup):
        left = cgroup.remove_trees([group])
        said += [f"could not remove cgroup {line}" for line in left] or [f"removed cgroup {group}"]
    scratch = Path(record.scratch).resolve()
    if scratch.parent == scratch_root().resolve() and scratch.exists():
        problems: list[str] = []
        shutil.rmtree(
            scratch, onerror=lambda _, path, error: problems.append(f"{path}: {error[1]}")
        )
        said += [f"could not remove {line}" for line in problems] or [f"removed {scratch}"]
    if not any(line.startswith("could not") for line in said):
        record.path.unlink(missing_ok=True)
    return said


def unmount_below(folder: Path) -> None:
    """Detach every mount below ``folder``, the last first: deleting must not enter any of them."""
    inside = f"{folder.resolve()}/"
    with Path("/proc/self/mountinfo").open() as mounts:
        targets = [line.split()[4].encode().decode("unicode_escape") for line in mounts]
    for target in reversed(targets):
        if target.startswith(inside):
            with contextlib.suppress(OSError):
                linux.unmount(target)


def _find_groups(name: str) -> list[Path]:
    """The run's group in every hierarchy; the name holds the run's id."""
    if not name.startswith(cgroup.PREFIX) or "/" in name:
        return []
    own = [each / name for each in cgroup.find_hierarchies() if (each / name).is_dir()]
    trials = [path for each in cgroup.find_hierarchies() for path in each.glob(f"{name}-*")]
    return sorted({each.resolve() for each in [*own, *trials]})


# ---- entering --------------------------------------------------------------------------------


def run_inside(work: Callable[[], int], run_id: str, *, network: bool = True) -> int:
    """Run ``work`` in the lab and return its exit code (128 + N if signal N ended it).

    With ``network`` the lab has a network of its own with the bridge; without, it keeps the
    host's (for building images). Raises HostError where this user may not make namespaces.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    need_mapping = os.geteuid() != 0
    if need_mapping:
        require_subordinate_ids()
    alive_read, alive_write = os.pipe()
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        for end in (alive_write, ask_read, answer_write):  # else it would wait for itself
            os.close(end)
        _exit_with(lambda: _keep(work, run_id, network, need_mapping, (ask_write, answer_read),
                                 alive_read))  # fmt: skip
    for end in (alive_read, ask_write, answer_read):
        os.close(end)
    try:
        if need_mapping and os.read(ask_read, 1):
            map_ids(keeper)
            os.write(answer_write, b"g")
        os.close(answer_write)
        return _wait_forwarding(keeper)
    finally:
        os.close(alive_write)
        os.close(ask_read)


def _exit_with(function: Callable[[], int]) -> None:
    """Run a child's part and end the child, whatever happens; never returns to the caller."""
    code = 70
    try:
        code = function()
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:
        print(f"error: this host does not let the harness make its lab: {error}", file=sys.stderr)
        code = 3
    except Exception as error:
        print(f"internal error: {type(error).__name__}: {error}", file=sys.stderr)
        if os.environ.get("HARNESS_DEBUG"):
            traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


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


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _keep(
    work: Callable[[], int],
    run_id: str,
    network: bool,
    need_mapping: bool,
    mapping: tuple[int, int],
    alive: int,
) -> int:
    """The keeper: a process group of its own (Ctrl-C reaches only the harness), new namespaces."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    flags = linux.CLONE_NEWPID | linux.CLONE_NEWNS | linux.CLONE_NEWIPC
    if network:
        flags |= linux.CLONE_NEWNET
        outer_network.remember()
    ask, answer = mapping
    if need_mapping:
        linux.unshare(linux.CLONE_NEWUSER)
        linux.set_dumpable()
        os.write(ask, b"u")
        if not os.read(answer, 1):
            return 3
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.close(ask)
    os.close(answer)
    linux.unshare(flags)
    init = os.fork()
    if init == 0:
        _exit_with(lambda: _init(work, run_id, network, alive))
    os.close(alive)
    return _wait_forwarding(init)


def _init(work: Callable[[], int], run_id: str, network: bool, alive: int) -> int:
    """The first process of the lab."""
    _entered.append(run_id)
    _set_up_mounts()
    record = build_record(run_id)
    with _hold_record(record):
        if network:
            _set_up_network()
        worker = os.fork()
        if worker == 0:
            os.close(alive)
            _exit_with(lambda: _work(work))
        code = _reap_until(worker, alive)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(-1, signal.SIGKILL)
        _reap_all()
        unmount_below(Path(record.scratch))
        for line in _clean_record(_read_record(record)):
            if line.startswith("could not"):
                print(f"warning: {line}", file=sys.stderr)
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


# ---- what the lab looks like inside ----------------------------------------------------------


def _set_up_mounts() -> None:
    """Private mounts; /proc and /sys of the new namespaces; a cgroup view that engines accept."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    host_proc().mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # not allowed in a user namespace, nor of use there
        linux.mount("/proc", host_proc(), "", linux.MS_BIND)
    linux.mount("proc", "/proc", "proc", quiet)
    hidden = cache_dir() / "lab"
    hidden.mkdir(parents=True, exist_ok=True)
    linux.mount("/sys/fs/cgroup", hidden, "", linux.MS_BIND | linux.MS_REC)
    try:
        linux.mount("sysfs", "/sys", "sysfs", quiet)
        linux.mount(str(hidden), "/sys/fs/cgroup", "", linux.MS_BIND | linux.MS_REC)
    except OSError:  # a host that hides parts of /sys keeps its own view
        pass
    linux.unmount(hidden)
    unified = cgroup.MOUNT / "unified"
    if unified.is_dir() and (unified / "cgroup.procs").exists():
        with contextlib.suppress(OSError):  # a mount locked by the user namespace stays
            cgroup.hidden_mount().mkdir(exist_ok=True)
            linux.mount(str(unified), cgroup.hidden_mount(), "", linux.MS_BIND)
            linux.unmount(unified)
            # crun makes groups there all the same: they must not get into the host's tmpfs.
            linux.mount("tmpfs", unified, "tmpfs", quiet, "mode=755,size=1m")


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


# ---- without root ----------------------------------------------------------------------------


def require_subordinate_ids() -> None:
    """Raise HostError unless this user may map a range of ids: an image has many owners."""
    if shutil.which("newuidmap") is None:
        raise HostError("newuidmap is not installed", hint="install the package uidmap")
    for name in ("subuid", "subgid"):
        if find_subordinate_range(Path("/etc") / name) is None:
            user = _user_name()
            raise HostError(
                f"{user} has no subordinate ids in /etc/{name}",
                hint="as root: usermod --add-subuids 100000-165535 "
                f"--add-subgids 100000-165535 {user}",
            )


def find_subordinate_range(path: Path) -> tuple[int, int] | None:
    """(first, count) of this user's range in /etc/subuid or /etc/subgid; None without one."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            owner, _, numbers = line.partition(":")
            if owner in (_user_name(), str(os.getuid())):
                first, _, count = numbers.partition(":")
                if int(count) >= _SUBORDINATE_IDS:
                    return int(first), int(count)
    return None


def _user_name() -> str:
    import pwd

    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def map_ids(pid: int) -> None:
    """Map this user to root of ``pid``'s user namespace, and the subordinate range after it."""
    for tool, name, own in (
        ("newuidmap", "subuid", os.getuid()),
        ("newgidmap", "subgid", os.getgid()),
    ):
        span = find_subordinate_range(Path("/etc") / name)
        if span is None:
            raise HostError(f"no subordinate range in /etc/{name}")
        numbers = (0, own, 1, 1, span[0], span[1])
        run_command([tool, str(pid), *map(str, numbers)], timeout=10)
