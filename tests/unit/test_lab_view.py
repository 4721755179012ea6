"""The environment of what starts in the lab, as a value, and what of /run is not in it."""

from pathlib import Path

import pytest

from harness import lab_view
from harness.errors import InputError
from harness.lab_view import build_lab_environment, require_kept

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


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("run/results", False),
        ("run/lock/r", False),
        ("run/lab/r", False),
        ("run", False),
        ("var/run/new", False),
        ("run/user/0/results", True),
        ("home/results", True),
    ],
)
def test_results_that_would_go_with_the_lab_are_refused(
    place: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_view, "RUN", tmp_path / "run")
    for name in ("run/lock", "run/user", "run/lab", "var"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "var/run").symlink_to(tmp_path / "run")
    if kept:
        require_kept(tmp_path / place)
    else:
        with pytest.raises(InputError, match=r"would be lost: .* \(--out names a folder elsewhere"):
            require_kept(tmp_path / place)
