"""The environment of what starts in the lab, as a value."""

import pytest

from harness.lab_view import build_lab_environment

HOST = {
    "PATH": "/bin", "HOME": "/root", "SSH_AUTH_SOCK": "/run/user/0/agent", "DOCKER_HOST": "tcp:a",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus", "XDG_RUNTIME_DIR": "/run/user/0",
    "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/dbus/s", "NOTIFY_SOCKET": "/run/n",
    "LISTEN_FDS": "1", "JOURNAL_STREAM": "8:1", "INVOCATION_ID": "x", "LC_NUMERIC": "de_DE",
    "SYSTEMD_EXEC_PID": "1", "MANAGERPID": "1", "WATCHDOG_USEC": "1",
}  # fmt: skip
KEPT = {"PATH", "HOME", "SSH_AUTH_SOCK", "DOCKER_HOST", "LC_ALL"}
BUSES = {"DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR"}


@pytest.mark.parametrize(("connected", "kept"), [(False, KEPT), (True, KEPT | BUSES)])
def test_services_are_left_out_and_buses_where_no_connection_needs_them(
    connected: bool, kept: set[str]
) -> None:
    found = build_lab_environment(HOST, connected=connected)
    assert set(found) == kept
    assert found["LC_ALL"] == "C.UTF-8"
