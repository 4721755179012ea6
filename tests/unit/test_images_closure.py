"""The closure of one application: by dpkg's dependencies, and by what ELF files name."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.images.closure import find_libraries, resolve_merged, select_closure
from harness.images.dpkg import count_installed, find_closure, parse_status
from harness.images.elf import Needs, parse_needs
from harness.images.facts import count_facts
from harness.images.recipes import RECIPES, Closure
from harness.images.rootfs import Entry, build_file, build_folder, build_symlink, finish_tree

STATUS = """\
Package: app
Status: install ok installed
Version: 1.0
Architecture: all
Depends: python3:any (>= 3.11), libssl3 | libressl, awk

Package: python3
Status: install ok installed
Version: 3.11
Architecture: amd64
Pre-Depends: interpreter
Depends: dpkg (>= 1.17)
Description: a language
 Depends: nothing

Package: libssl3
Status: install ok installed
Version: 3.0
Architecture: amd64
Depends: libc6, debconf (>= 0.5) | debconf-2.0

Package: interpreter
Status: install ok installed
Version: 1
Architecture: amd64

Package: libc6
Status: install ok installed
Version: 2.36
Architecture: amd64

Package: mawk
Status: install ok installed
Version: 1
Architecture: amd64
Provides: awk (= 1), tool

Package: dpkg
Status: install ok installed
Version: 1.21
Architecture: amd64
Depends: bash

Package: debconf
Status: install ok installed
Version: 1
Architecture: all

Package: removed
Status: deinstall ok config-files
Version: 1
Architecture: all
"""


def build_elf(libraries: Sequence[str], interpreter: str = "") -> bytes:
    """The least ELF file that names these: headers, one loaded segment, a dynamic section."""
    names = b"\0" + b"".join(each.encode() + b"\0" for each in libraries)
    loader = interpreter.encode() + b"\0" if interpreter else b""
    count = 3 if interpreter else 2
    start = 64 + 56 * count
    dynamic_at = start + len(names) + len(loader)
    base = 0x1000
    tags: list[tuple[int, int]] = []
    place = 1
    for each in libraries:
        tags.append((1, place))
        place += len(each) + 1
    tags += [(5, base + start), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    size = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, offset, base + offset, 0, length, length, 8)

    segments = segment(1, 0, size) + segment(2, dynamic_at, len(dynamic))
    if interpreter:
        segments += segment(3, start + len(names), len(loader))
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    return head + segments + names + loader + dynamic


@pytest.mark.parametrize(
    ("roots", "without", "expected"),
    [
        (["libc6"], [], ["libc6"]),
        (["libssl3"], [], ["debconf", "libc6", "libssl3"]),
        (["libssl3"], ["debconf"], ["libc6", "libssl3"]),
        (["app"], ["dpkg", "debconf"],
         ["app", "interpreter", "libc6", "libssl3", "mawk", "python3"]),
    ],
)  # fmt: skip
def test_the_closure_follows_dependencies_and_choices_and_what_is_provided(
    roots: list[str], without: list[str], expected: list[str]
) -> None:
    assert list(find_closure(roots, parse_status(STATUS), without)) == expected


def test_only_installed_packages_count() -> None:
    assert "removed" not in parse_status(STATUS)
    assert count_installed(STATUS) == len(parse_status(STATUS)) == 8


def test_a_program_says_its_loader_and_its_libraries() -> None:
    data = build_elf(["libssl.so.3", "libc.so.6"], "/lib64/ld-linux-x86-64.so.2")
    assert parse_needs(data) == Needs("/lib64/ld-linux-x86-64.so.2", ("libssl.so.3", "libc.so.6"))


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" * 20])
def test_what_is_no_whole_elf_file_says_nothing(data: bytes) -> None:
    assert parse_needs(data) is None


def test_a_real_program_is_read_as_ldd_reads_it() -> None:
    found = parse_needs(Path("/bin/true").resolve().read_bytes())
    assert found is not None and "libc.so.6" in found.libraries


def test_a_library_that_is_named_comes_along_with_what_its_link_leads_to() -> None:
    library, plugin = build_elf(["libz.so.1"]), build_elf([])
    tree = _build_tree(
        {"usr/bin/app": build_elf(["libssl.so.3"]), "usr/lib/libssl.so.3.0": library,
         "usr/lib/libz.so.1": plugin, "usr/lib/libother.so": plugin}
    )  # fmt: skip
    tree["usr/lib/libssl.so.3"] = build_symlink("usr/lib/libssl.so.3", "libssl.so.3.0")
    found = find_libraries(tree, {"usr/bin/app": tree["usr/bin/app"]})
    assert sorted(found) == ["usr/lib/libssl.so.3", "usr/lib/libssl.so.3.0", "usr/lib/libz.so.1"]


def test_a_library_that_is_nowhere_is_an_error_that_names_both() -> None:
    tree = _build_tree({"usr/bin/app": build_elf(["libgone.so.1"])})
    with pytest.raises(HostError, match=r"usr/bin/app needs libgone\.so\.1"):
        find_libraries(tree, tree)


def test_paths_of_packages_are_those_of_the_merged_tree() -> None:
    tree = {"lib": build_symlink("lib", "usr/lib")}
    assert resolve_merged(tree, "lib/x.so") == "usr/lib/x.so"
    assert resolve_merged(tree, "lib") == "lib"
    assert resolve_merged(tree, "etc/passwd") == "etc/passwd"


def test_what_is_left_has_the_application_its_bytecode_and_no_shell() -> None:
    lists = {
        "var/lib/dpkg/status": STATUS.encode(),
        "var/lib/dpkg/info/app.list": b"/.\n/srv\n/srv/app.py\n/usr/share/doc/app/NEWS\n",
        "var/lib/dpkg/info/libc6:amd64.list": b"/lib/libc.so.6\n",
        "var/lib/dpkg/info/dpkg.list": b"/usr/bin/dpkg\n",
    }
    files = {
        "srv/app.py": b"1", "srv/__pycache__/app.cpython-311.pyc": b"2",
        "srv/__pycache__/gone.cpython-311.pyc": b"3", "usr/share/doc/app/NEWS": b"4",
        "usr/lib/libc.so.6": build_elf([]), "usr/bin/dpkg": b"5", "usr/bin/sh": b"6",
        "etc/passwd": b"7",
    }  # fmt: skip
    tree = _build_tree({**lists, **files})
    tree |= {"lib": build_symlink("lib", "usr/lib"), "srv": build_folder("srv")}
    closure = Closure(("app",), ("dpkg", "debconf"), ("usr/share/doc/*",), ("etc/passwd",))
    found = select_closure(tree, closure)
    assert {path for path in found if not path.startswith("var/")} == {
        "srv/app.py", "srv/__pycache__/app.cpython-311.pyc", "usr/lib/libc.so.6", "etc/passwd",
        "lib",
    }  # fmt: skip
    assert count_facts(found)["packages"] == 6


def test_facts_leave_out_folders_and_what_the_harness_adds(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(b"agent")
    tree = finish_tree(_build_tree({"var/lib/dpkg/status": STATUS.encode()}), agent)
    assert count_facts(tree) == {"files": 1, "packages": 8}
    assert count_facts(finish_tree({}, agent)) == {"files": 0, "packages": 0}


def test_the_ladder_has_the_same_application_on_every_base() -> None:
    web = [recipe for name, recipe in RECIPES.items() if name.startswith("web-")]
    apps = [recipe for name, recipe in RECIPES.items() if name.startswith("pyapp-")]
    assert len(web) == 5 and len(apps) == 3
    assert len({each.files["srv/www/index.html"] for each in web}) == 1
    assert len({each.files["srv/app/app.py"] for each in apps}) == 1
    assert [each.name for each in web if each.programs["usr/bin/webserver"].shared] == ["web-musl"]


def _build_tree(files: Mapping[str, bytes]) -> dict[str, Entry]:
    return {path: build_file(path, content) for path, content in files.items()}
