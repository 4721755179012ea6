"""Which package a used file is from, and what is not in the list of system packages."""

import os
import sys
from pathlib import Path

import pytest

from harness import system
from tests.hosts.opened import record
from tests.hosts.packages import Stray, find_outside, find_rules, read_installed

STATUS = """\
Package: listed
Status: install ok installed
Priority: optional
Depends: libneeded (>= 1) | other, virtual:any

Package: libneeded
Status: install ok installed
Priority: optional

Package: provider
Status: install ok installed
Priority: optional
Provides: virtual (= 2)

Package: dash
Status: install ok installed
Priority: required

Package: sed
Essential: yes
Status: install ok installed
Priority: optional

Package: brought
Status: install ok installed
Priority: optional

Package: gone
Status: deinstall ok config-files
Priority: required

Package: stray
Status: install ok installed
Priority: optional
"""
FILES = {
    "listed": ["/usr/bin/listed"],
    "libneeded:amd64": ["/lib/x86_64-linux-gnu/libneeded.so.1"],
    "provider": ["/usr/lib/python3/dist-packages/provider.py"],
    "stray": ["/bin/stray", "/usr/share/stray/data"],
    "brought": ["/usr/bin/brought"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info.parent / "status").write_text(STATUS)
    for name, files in FILES.items():
        (info / f"{name}.list").write_text("\n".join(["/.", *files]) + "\n")
    return tmp_path


def test_each_package_has_the_rule_by_which_it_may_be_counted_on(root: Path) -> None:
    rules = find_rules(read_installed(root), ["listed", "absent"], ["brought"])
    assert rules == {
        "dash": "required",
        "sed": "essential",
        "listed": "listed",
        "brought": "given",
        "libneeded": "a dependency of listed",
        "provider": "a dependency of listed",
    }


def test_what_no_listed_package_brings_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[[package]]\npurpose = "p"\ngroup = "run"\nprobes = []\napt = "new | listed"\n'
    monkeypatch.setattr(system, "read_packages", lambda: system.parse_packages(table))
    trace = [
        "exec /usr/bin/listed",
        "open /usr/lib/x86_64-linux-gnu/libneeded.so.1",
        "open /usr/lib/python3/dist-packages/__pycache__/provider.cpython-313.pyc",
        "exec /usr/bin/brought",
        "exec /usr/bin/stray",
        "open /usr/share/stray/data",
        "exec /usr/lib/made-by-hand",
        "open /usr/lib/locale/locale-archive",
        "exec /root/checkout/.venv/bin/own",
    ]
    assert find_outside("\n".join(trace), root, ["brought"]) == [
        Stray("/usr/bin/stray", "stray", executed=True),
        Stray("/usr/share/stray/data", "stray", executed=False),
        Stray("/usr/lib/made-by-hand", "", executed=True),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel tells root only")
def test_what_a_command_opens_is_told_by_the_kernel() -> None:
    words = [sys.executable, "-c", "open('/etc/passwd').close(); raise SystemExit(7)"]
    code, trace = record(Path("/"), words)
    assert code == 7
    assert "open /etc/passwd" in trace.splitlines()
    assert f"exec {os.path.realpath(sys.executable)}" in trace.splitlines()
