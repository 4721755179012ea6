"""Addresses of libvirt, and what a daemon is told of a machine, as values."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.drivers.domain_xml import MICROVM, Acceleration, Boot, Domain, Drive, build_domain_xml
from harness.drivers.libvirt_connect import (
    DAEMON_FEATURES,
    FEATURES,
    format_version,
    parse_version,
    require_features,
)
from harness.drivers.libvirt_pool import build_place, build_uuid, build_volume_xml, parse_tsc
from harness.drivers.libvirt_site import list_files, move_domain, name_volume
from harness.drivers.libvirt_uri import build_opened, is_embedded, is_remote, require_uri
from harness.errors import HostError, InputError

FOLDER = Path("/scratch/t1")
DOMAIN = Domain(
    name="harness-r1-1",
    machine=MICROVM,
    acceleration=Acceleration("tcg"),
    memory=128 << 20,
    cpus=1,
    console=FOLDER / "console",
    channel=FOLDER / "channel",
    boot=Boot(Path("/cache/vmlinux"), Path("/cache/initramfs"), "quiet"),
    drives=(Drive(FOLDER / "overlay.qcow2", "qcow2", ((Path("/cache/disk.raw"), "raw"),)),),
    emulator="/usr/bin/qemu-system-x86_64",
)


@pytest.mark.parametrize(
    ("uri", "remote"),
    [
        ("qemu:///embed", False),
        ("qemu:///system", False),
        ("qemu:///session", False),
        ("qemu+unix:///system?socket=/run/s", False),
        ("qemu+ssh://root@host/system", True),
        ("qemu+tcp://127.0.0.1:16509/system", True),
        ("qemu://host/system", True),
    ],
)
def test_an_address_leads_to_this_host_or_to_another(uri: str, remote: bool) -> None:
    assert is_remote(require_uri(uri)) == remote
    assert is_embedded(uri) == (uri == "qemu:///embed")


@pytest.mark.parametrize("uri", ["xen:///system", "lxc:///", "/run/libvirt", "http://host/system"])
def test_an_address_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="is no address of libvirt's QEMU driver"):
        require_uri(uri)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError) as raised:
        require_uri("qemu+ssh://user:s3cret@host/system")
    assert "s3cret" not in str(raised.value)


def test_ssh_never_asks_on_the_runs_terminal() -> None:
    assert build_opened("qemu+ssh://host/system") == "qemu+ssh://host/system?no_tty=1"
    assert build_opened("qemu+ssh://h/system?keyfile=k") == "qemu+ssh://h/system?keyfile=k&no_tty=1"
    assert build_opened("qemu:///system") == "qemu:///system"


def test_versions_are_counted_as_libvirt_does() -> None:
    assert parse_version("9.0.1") == 9_000_001
    assert format_version(6_010_003) == "6.10.3"


def test_an_old_libvirt_is_named_with_both_versions() -> None:
    require_features("qemu:///system", parse_version("9.0.0"), FEATURES)
    with pytest.raises(HostError, match=r"came with libvirt 5\.10\.0, and this is 5\.0\.0"):
        require_features("qemu:///system", parse_version("5.0.0"), DAEMON_FEATURES)


def test_a_daemon_is_told_of_the_pool_alone() -> None:
    place = build_place("r1", "qemu+ssh://host/system")
    moved = move_domain(DOMAIN, place)
    text = build_domain_xml(moved)
    for path in (*list_files(DOMAIN), DOMAIN.console, DOMAIN.channel):
        assert str(path) not in text
    assert {str(path.parent) for path in list_files(moved)} == {
        "/var/lib/libvirt/images/harness-r1"
    }
    assert moved.uuid == build_uuid("harness-r1-1")
    assert '<serial type="pty">' in text and "<emulator>" not in text


def test_an_instances_own_files_carry_its_name_and_shared_ones_do_not() -> None:
    overlay, base = FOLDER / "overlay.qcow2", Path("/cache/disk.raw")
    second = replace(DOMAIN, name="harness-r1-2")
    assert name_volume(DOMAIN, overlay) == "harness-r1-1-overlay.qcow2"
    assert name_volume(DOMAIN, base) == name_volume(second, base)


def test_a_users_daemon_has_its_pool_where_users_may_write() -> None:
    assert build_place("r1", "qemu:///session").folder == "/var/tmp/harness-r1"


def test_a_volume_says_what_is_below_it() -> None:
    text = build_volume_xml("one", 4096, "qcow2", ("/pool/base", "raw"))
    assert '<capacity unit="bytes">4096</capacity>' in text
    assert "<path>/pool/base</path>" in text


@pytest.mark.parametrize(
    ("counter", "khz"),
    [("<counter name='tsc' frequency='2596120000' scaling='no'/>", 2_596_120), ("", None)],
)
def test_the_clock_of_another_host_is_read_from_its_capabilities(
    counter: str, khz: int | None
) -> None:
    text = f"<capabilities><host><cpu>{counter}</cpu></host></capabilities>"
    assert parse_tsc(text) == khz
