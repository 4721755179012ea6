"""The agent as an ordinary process over a Unix socket: what it tells, and when."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.images.programs import build_programs
from harness.starter import build_agent_spec, build_records

TIMEOUT_S = 10.0
PATH = {"PATH": "/usr/bin:/bin"}


class Host:
    """The host's end of a channel: lines and output of one agent."""

    def __init__(self, connection: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        self.connection, self.process = connection, process
        self.stream = connection.makefile("rb")
        self.lines: list[str] = []
        self.output = {1: b"", 2: b""}

    def send(self, line: str) -> None:
        self.connection.sendall(line.encode() + b"\n")

    def start(self, command: list[str], ready: str = "exit", **more: str) -> None:
        spec = build_agent_spec(command, ready, PATH, **more)
        self.connection.sendall(b"spec %d\n" % len(spec) + spec)

    def read_line(self) -> str | None:
        """The next line that is no output; None when the agent has closed the channel."""
        while line := self.stream.readline().decode().rstrip("\n"):
            word, _, rest = line.partition(" ")
            if word != "out":
                self.lines.append(line)
                return line
            number, size = map(int, rest.split())
            self.output[number] += self.stream.read(size)
        return None

    def read_until(self, word: str) -> str:
        """The line that starts with ``word``; everything before it stays in ``lines``."""
        while (line := self.read_line()) is not None:
            if line.split(" ")[0] == word:
                return line
        raise AssertionError(f"no {word!r}, only {self.lines}")

    def stop(self) -> None:
        self.send("stop")
        self.read_until("bye")
        assert self.process.wait(TIMEOUT_S) == 0


StartAgent = Callable[[], Host]


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[StartAgent]:
    program = build_programs().agent
    with contextlib.ExitStack() as stack:

        def start() -> Host:
            path = tmp_path / "channel"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(TIMEOUT_S)
            process = stack.enter_context(
                subprocess.Popen([program, path], stdin=subprocess.DEVNULL)
            )
            stack.callback(process.kill)
            connection, _ = listener.accept()
            stack.enter_context(connection)
            connection.settimeout(TIMEOUT_S)
            return Host(connection, process)

        yield start


@pytest.fixture
def agent(start_agent: StartAgent) -> Host:
    return start_agent()


def test_a_command_that_succeeds_is_ready_when_it_ends(agent: Host) -> None:
    agent.start(["true"])
    agent.read_until("exit")
    assert agent.lines == ["init", "exec", "ready", "exit 0"]
    agent.stop()


@pytest.mark.parametrize(("script", "end"), [("exit 3", "exit 3"), ("kill -9 $$", "exit signal 9")])
def test_a_command_that_fails_is_never_ready(agent: Host, script: str, end: str) -> None:
    agent.start(["sh", "-c", script])
    agent.read_until("exit")
    assert agent.lines == ["init", "exec", end]
    agent.stop()


def test_a_missing_command_is_named_and_the_agent_stays_for_stop(agent: Host) -> None:
    agent.start(["no-such-command"])
    assert agent.read_until("fail") == "fail exec no-such-command: No such file or directory"
    assert "ready" not in agent.lines
    agent.stop()


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([("ready", "exit")], "fail spec: no command"),
        ([("arg", "true"), ("ready", "soon")], "fail spec: an unknown condition for ready"),
        ([("arg", "true"), ("ready", "tcp:70000")], "fail spec: an unknown condition for ready"),
        ([("arg", "true"), ("colour", "red")], "fail spec: an unknown or too frequent record"),
    ],
)
def test_a_wrong_spec_is_told(agent: Host, records: list[tuple[str, str]], problem: str) -> None:
    spec = build_records(records)
    agent.connection.sendall(b"spec %d\n" % len(spec) + spec)
    assert agent.read_until("fail") == problem
    agent.stop()


@pytest.mark.parametrize(
    "script",
    [
        "printf 'service is up\\n'; sleep 60",
        "(printf 'service i'; sleep 0.05; printf 's'; sleep 0.05; printf ' up') >&2; sleep 60",
        "printf 'service service iservice is up'; sleep 60",
    ],
    ids=["at once", "split over reads", "after false starts"],
)
def test_a_pattern_is_found_wherever_it_is_split(agent: Host, script: str) -> None:
    agent.start(["sh", "-c", script], "output:service is up")
    agent.read_until("ready")
    assert agent.lines == ["init", "exec", "ready"]
    agent.stop()


def test_a_pattern_that_overlaps_itself_is_found(agent: Host) -> None:
    agent.start(["printf", "aabaabaaab"], "output:aabaaa")
    agent.read_until("exit")
    assert "ready" in agent.lines
    agent.stop()


def test_a_pattern_in_the_last_words_of_a_command_counts(agent: Host) -> None:
    agent.start(["echo", "done"], "output:done")
    agent.read_until("exit")
    assert agent.lines == ["init", "exec", "ready", "exit 0"]
    assert agent.output[1] == b"done\n"
    agent.stop()


def test_output_without_the_pattern_is_not_ready(agent: Host) -> None:
    agent.start(["echo", "almost"], "output:almost there")
    agent.read_until("exit")
    assert "ready" not in agent.lines
    agent.stop()


def test_a_port_is_ready_when_it_accepts(agent: Host) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        agent.start(["sleep", "60"], f"tcp:{port}")
        agent.read_until("exec")
        agent.send("ping")
        assert agent.read_line() == "pong"
        opened = time.monotonic()
        server.listen()
        agent.read_until("ready")
        assert time.monotonic() - opened < 0.1
    agent.stop()


def test_ping_is_echoed_and_memory_is_answered(agent: Host) -> None:
    agent.start(["sleep", "60"])
    agent.read_until("exec")
    for _ in range(3):
        agent.send("ping")
        assert agent.read_line() == "pong"
    agent.send("memory")
    total, available = map(int, agent.read_until("memory").split()[1:])
    assert 0 < available < total
    assert total % 1024 == 0
    agent.stop()


def test_both_outputs_are_forwarded_apart_and_before_the_exit(agent: Host) -> None:
    agent.start(["sh", "-c", "echo to out; echo to err >&2"])
    agent.read_until("exit")
    assert agent.output == {1: b"to out\n", 2: b"to err\n"}
    agent.stop()


def test_ten_megabytes_arrive_whole_although_the_host_is_slow(agent: Host) -> None:
    agent.start(["sh", "-c", "head -c 10000000 /dev/zero; echo end"], "output:end")
    agent.read_until("exec")
    time.sleep(0.3)  # every buffer on the way is full by now
    agent.read_until("exit")
    assert agent.output[1] == bytes(10_000_000) + b"end\n"
    assert agent.lines == ["init", "exec", "ready", "exit 0"]
    agent.stop()


def test_a_question_is_answered_ahead_of_waiting_output(agent: Host) -> None:
    agent.start(["yes"], "output:y")
    agent.read_until("ready")
    agent.send("memory")
    agent.read_until("memory")
    agent.stop()


def test_stop_ends_a_willing_workload_at_once(agent: Host) -> None:
    agent.start(["sleep", "60"])
    agent.read_until("exec")
    asked = time.monotonic()
    agent.stop()
    assert time.monotonic() - asked < 0.15


def test_stop_kills_a_stubborn_workload_and_its_children(agent: Host, tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 61 & echo $! > {tmp_path}/pid; echo up; wait; wait"
    agent.start(["sh", "-c", script], "output:up")
    agent.read_until("ready")
    child = int((tmp_path / "pid").read_text())
    asked = time.monotonic()
    agent.stop()
    assert 0.15 < time.monotonic() - asked < 1.0
    wait_until(lambda: not is_running(child))  # it dies by itself once it was killed


def test_the_agent_ends_when_the_host_is_gone(agent: Host) -> None:
    agent.start(["sleep", "60"])
    agent.read_until("exec")
    agent.stream.close()
    agent.connection.close()
    assert agent.process.wait(TIMEOUT_S) == 0


def test_the_workload_has_the_environment_and_session_of_its_own(agent: Host) -> None:
    agent.start(["sh", "-c", 'echo "$PATH"; cut -d" " -f1,5,6 /proc/self/stat; env | wc -l'])
    agent.read_until("exit")
    path, numbers, _ = agent.output[1].decode().splitlines()
    _, group, session = numbers.split()
    assert path == PATH["PATH"]
    assert group == session


def wait_until(condition: Callable[[], bool]) -> None:
    """Fails if it does not come true within two seconds."""
    deadline = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether ``pid`` lives; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# Whom the workload runs as, and where


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_the_workload_runs_as_the_user_and_where_the_spec_says(start_agent: StartAgent) -> None:
    agent = start_agent()
    script = "id -u; id -g; id -G; pwd; echo said >/dev/stdout"
    agent.start(["sh", "-c", script], user="1234:567,8,90", directory="/usr/bin")
    agent.read_until("exit")
    assert agent.output[1] == b"1234\n567\n567 8 90\n/usr/bin\nsaid\n"
    agent.stop()


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"directory": "/nowhere"}, "fail directory /nowhere: No such file or directory"),
        ({"user": "4294967295:0"}, "fail spec: no user"),
        ({"user": "web"}, "fail spec: no user"),
        ({"user": "1:1,x"}, "fail spec: no group"),
        ({"user": "1:1" + ",1" * 70}, "fail spec: too many groups"),
    ],
)
def test_a_step_that_fails_is_named(
    start_agent: StartAgent, record: dict[str, str], line: str
) -> None:
    agent = start_agent()
    agent.start(["true"], **record)
    assert agent.read_until("fail") == line
    agent.stop()
