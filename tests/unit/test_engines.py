"""What engines of the host are told and asked, whatever their release: as values."""

from pathlib import Path

import pytest

from harness.drivers import lxc
from harness.drivers.commanded import ENVIRONMENT, find_complaint, read_complaint
from tests.unit.fakes import SPEC

LXC_LOG = """\
lxc-start one 20261129101112.001 WARN     conf - ../src/conf.c:lxc_map_ids:3640 - failed to map
lxc-start one 20261129101112.002 ERROR    apparmor - ../src/apparmor.c:apparmor_prepare:1085 - \
Incomplete AppArmor support in your kernel
lxc-start one 20261129101112.003 ERROR    lxccontainer - ../src/c.c:wait:870 - state "ABORTING"
"""
LXC_SAYS = """\
lxc-start: one: ../src/lxc/lxccontainer.c: wait_on_daemonized_start: 870 Received container state
lxc-start: one: ../src/lxc/tools/lxc_start.c: main: 309 The container failed to start
lxc-start: one: ../src/lxc/tools/lxc_start.c: main: 314 Additional information can be obtained by
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LXC_LOG, "Incomplete AppArmor support in your kernel"),
        (
            'time="2026" level=warning msg="Failed to add"\n'
            'time="2026" level=error msg="runc run failed: open \\"/x\\": not there"',
            'runc run failed: open "/x": not there',
        ),
        (
            "Using cgroups\nError: OCI runtime error: no such file\nmore",
            "Error: OCI runtime error: no such file",
        ),
        (
            "bwrap: Can't find source path /x: No such file or directory",
            "bwrap: Can't find source path /x: No such file or directory",
        ),
        ("warning: it failed before\nall is well", None),
        ("", None),
    ],
)
def test_the_first_error_of_a_log_is_what_its_command_complained_of(
    text: str, complaint: str | None
) -> None:
    assert find_complaint(text.splitlines()) == complaint


def test_a_command_s_own_log_goes_before_its_output(tmp_path: Path) -> None:
    own, output, none = (tmp_path / name for name in ("own", "output", "none"))
    own.write_text(LXC_LOG)
    output.write_text(LXC_SAYS)
    assert read_complaint(own, output) == "Incomplete AppArmor support in your kernel"
    assert "failed to start" in (read_complaint(none, output) or "")
    output.write_text("Received container state\n\nit is over\n")
    assert read_complaint(None, output) == "it is over"
    assert read_complaint(None, none) is None


@pytest.mark.parametrize(
    ("switch", "profiles", "said"),
    [
        (None, None, None),
        ("N", None, None),
        ("Y", None, "unconfined"),
        ("Y", "docker-default (enforce)\n", "unconfined"),
        ("Y", "lxc-container-default-cgns (enforce)\n", None),
    ],
)
def test_lxc_is_unconfined_only_where_its_profile_is_not_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    switch: str | None,
    profiles: str | None,
    said: str | None,
) -> None:
    for name, text in (("_SWITCH", switch), ("_PROFILES", profiles)):
        monkeypatch.setattr(lxc, name, tmp_path / name)
        if text is not None:
            (tmp_path / name).write_text(text)
    assert lxc.find_confinement() == said
    lines = lxc.build_config(SPEC, said)
    assert ("lxc.apparmor.profile = unconfined" in lines) == (said is not None)


def test_engines_are_told_a_path_and_a_locale_and_of_no_service() -> None:
    assert set(ENVIRONMENT) == {"PATH", "LC_ALL"}
    assert ENVIRONMENT["LC_ALL"] == "C.UTF-8"
