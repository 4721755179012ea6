"""Which of the host's package sources count as Debian's own."""

from pathlib import Path

import pytest

from harness.images.apt import (
    DEFAULT_SUITE,
    Archive,
    find_reason,
    find_sources,
    format_sources,
    parse_deb822,
    parse_one_line,
    select_debian,
)

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
  bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib  # the archive
deb [arch=amd64,i386 signed-by=/etc/apt/keyrings/x.gpg trusted=yes] http://x.example ./ main
deb-src http://mirror.example/debian bookworm main
deb
"""


def test_a_deb822_file_gives_its_enabled_binary_archives() -> None:
    (archive,) = parse_deb822(DEB822)
    assert archive == Archive(
        uris=("http://mirror.example/debian",),
        suites=("bookworm", "bookworm-updates"),
        components=("main", "contrib"),
        signed_by="/usr/share/keyrings/debian-archive-keyring.gpg",
    )


def test_a_sources_list_gives_its_binary_archives_and_their_options() -> None:
    plain, with_options = parse_one_line(ONE_LINE)
    assert plain == Archive(("http://mirror.example/debian",), ("bookworm",), ("main", "contrib"))
    assert with_options.architectures == ("amd64", "i386")
    assert with_options.signed_by == "/etc/apt/keyrings/x.gpg"
    assert with_options.trusted


@pytest.mark.parametrize(
    ("line", "debian"),
    [
        ("deb http://deb.debian.org/debian bookworm main", True),
        ("deb http://apt.company.example/mirror/debian bookworm main", True),
        ("deb [trusted=yes] http://10.0.0.1/debian bookworm main", True),
        ("deb http://security.debian.org/ bookworm-security main", True),
        ("deb https://download.docker.com/linux/debian bookworm stable", False),
        ("deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main", False),
        ("deb [signed-by=/etc/apt/keyrings/hashicorp.gpg] https://h.example bookworm main", False),
        ("deb http://deb.debian.org/debian bookworm-backports main", False),
        ("deb http://deb.debian.org/debian trixie main", False),
        ("deb [arch=arm64] http://deb.debian.org/debian bookworm main", False),
        ("deb cdrom:[Debian 12]/ bookworm main", False),
    ],
)
def test_third_parties_are_told_from_debian(line: str, debian: bool) -> None:
    assert bool(select_debian(parse_one_line(line), "bookworm")) is debian


def test_what_is_written_reads_the_same_again() -> None:
    archives = select_debian(parse_deb822(DEB822), "bookworm")
    assert tuple(parse_deb822(format_sources(archives))) == archives


def test_a_debian_host_lends_its_mirror(tmp_path: Path) -> None:
    _write_host(tmp_path, "debian", "deb http://mirror.example/debian bookworm main")
    sources = find_sources(tmp_path)
    assert sources.suite == "bookworm"
    assert [archive.uris for archive in sources.archives] == [("http://mirror.example/debian",)]


@pytest.mark.parametrize(
    ("lines", "suite"),
    [
        ("deb http://mirror.example/debian stable main", "stable"),
        ("deb http://mirror.example/debian sid main", "sid"),
        (
            "deb http://mirror.example/debian stable main\n"
            "deb http://mirror.example/debian bookworm main",
            "bookworm",
        ),
    ],
)
def test_sources_may_name_their_release_otherwise(tmp_path: Path, lines: str, suite: str) -> None:
    _write_host(tmp_path, "debian", lines)
    sources = find_sources(tmp_path)
    assert sources.suite == suite
    assert {archive.uris for archive in sources.archives} == {("http://mirror.example/debian",)}


@pytest.mark.parametrize(
    ("distribution", "line"),
    [
        ("ubuntu", "deb http://archive.ubuntu.com/ubuntu bookworm main"),
        ("debian", "deb https://download.docker.com/linux/debian bookworm stable"),
    ],
)
def test_other_hosts_use_the_public_mirror(tmp_path: Path, distribution: str, line: str) -> None:
    _write_host(tmp_path, distribution, line)
    sources = find_sources(tmp_path)
    assert sources.suite == DEFAULT_SUITE
    assert {uri.split("/")[2] for archive in sources.archives for uri in archive.uris} == {
        "deb.debian.org"
    }


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Err:1 http://x InRelease\nE: Failed to fetch http://x  No route\nE: Some", "No route"),
        ("I: running\nE: Unable to locate package x\nE: mmdebstrap failed to run", "locate"),
        ("dpkg: error: out of space\nE: Sub-process dpkg returned an error", "out of space"),
        ("unshare: failed to execute\n", "unshare: failed"),
        ("", "nothing"),
    ],
)
def test_the_line_that_says_most_is_chosen(output: str, reason: str) -> None:
    assert reason in find_reason(output)


def _write_host(root: Path, distribution: str, line: str) -> None:
    (root / "etc/apt").mkdir(parents=True)
    (root / "etc/os-release").write_text(f'ID={distribution}\nVERSION_CODENAME="bookworm"\n')
    (root / "etc/apt/sources.list").write_text(line + "\n")
