"""The starter as an ordinary process: when a guest gets its spec, and where it listens."""

import socket
from pathlib import Path

import pytest

from harness.images.programs import build_programs
from harness.starter import Starter, read_clock, start_starter

SPEC = b"arg=true\0"
TOLD = b"spec %d\n" % len(SPEC) + SPEC
SECOND = 1_000_000_000


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(str(path))
    return connection


def wait_for(starter: Starter, text: str) -> None:
    while event := starter.next_event(read_clock() + 5 * SECOND):
        if event.text == text:
            return
    raise AssertionError(f"no {text!r}")


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)


def test_a_container_or_restored_guest_has_its_spec_at_once(tmp_path: Path) -> None:
    with start_starter(build_programs().starter) as starter:
        starter.listen(tmp_path / "channel", SPEC)
        with connect(tmp_path / "channel") as channel:
            assert channel.recv(100) == TOLD


@pytest.mark.parametrize("says", ["channel", "console"])
def test_a_guest_that_boots_has_its_spec_when_its_agent_is_there(tmp_path: Path, says: str) -> None:
    """Not before: firmware with a driver for the port would take it (edk2's VirtioSerialDxe)."""
    words = {"channel": b"\ninit\n", "console": b"\n@harness init\n"}
    with start_starter(build_programs().starter) as starter:
        starter.listen(
            tmp_path / "channel", SPEC, tmp_path / "console", tmp_path / "log", at_init=True
        )
        with connect(tmp_path / "channel") as channel, connect(tmp_path / "console") as console:
            console.sendall(b"BIOS\n@harness loader\n")
            wait_for(starter, "loader")
            assert is_silent(channel)
            {"channel": channel, "console": console}[says].sendall(words[says])
            assert channel.recv(100) == TOLD
            channel.sendall(b"init\n")
            wait_for(starter, "init")
            assert is_silent(channel)


def test_a_daemons_stream_may_come_after_the_agents_word(tmp_path: Path) -> None:
    with start_starter(build_programs().starter) as starter:
        starter.listen(
            tmp_path / "channel", SPEC, tmp_path / "console", tmp_path / "log", at_init=True
        )
        with connect(tmp_path / "console") as console:
            console.sendall(b"@harness init\n")
            wait_for(starter, "init")
            with connect(tmp_path / "channel") as channel:
                assert channel.recv(100) == TOLD


def test_it_listens_wherever_the_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / ("n" * 150) / "ca,che é"
    folder.mkdir(parents=True)
    with start_starter(build_programs().starter) as starter:
        starter.listen(folder / "channel", SPEC)
        assert (folder / "channel").is_socket()
