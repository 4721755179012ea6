"""Root file systems as entries, and the canonical tar that decides an image's digest."""

import io
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.images.archive import read_content, read_tar, write_tar
from harness.images.recipes import EPOCH, FOLDERS, RECIPES, Recipe
from harness.images.rootfs import (
    build_file,
    build_folder,
    build_symlink,
    finish_tree,
    select_entries,
    sum_sizes,
)


def build_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def write_members(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_the_same_files_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    one, two = build_file("etc/a", b"1"), build_file("etc/b", b"2")
    forth = write_tar({"etc/a": one, "etc/b": two}, tmp_path / "forth.tar")
    back = write_tar({"etc/b": two, "etc/a": one}, tmp_path / "back.tar")
    assert forth == back
    assert (tmp_path / "forth.tar").read_bytes() == (tmp_path / "back.tar").read_bytes()


def test_a_folder_comes_right_before_what_it_holds(tmp_path: Path) -> None:
    paths = ("a", "a.conf", "a/z", "a-b")
    tree = {path: build_file(path, b"") for path in paths} | {"a": build_folder("a")}
    write_tar(tree, tmp_path / "x.tar")
    assert list(read_tar(tmp_path / "x.tar")) == ["a", "a/z", "a-b", "a.conf"]


def test_no_time_is_later_than_the_epoch_and_owners_are_numbers(tmp_path: Path) -> None:
    entry = replace(build_file("f", b"x"), mtime=EPOCH + 5, uid=7, gid=8, mode=0o4755)
    write_tar({"f": entry, "g": replace(entry, path="g", mtime=5)}, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        young, old = archive.getmembers()
    assert (young.mtime, old.mtime) == (EPOCH, 5)
    assert (young.uid, young.gid, young.uname, young.gname) == (7, 8, "", "")
    assert young.mode == 0o4755


def test_hard_links_and_extended_attributes_survive(tmp_path: Path) -> None:
    first = build_member("z")
    first.pax_headers = {"SCHILY.xattr.security.capability": "\x01\x00\udcff"}
    link = build_member("a", tarfile.LNKTYPE, "z")
    source = write_members(tmp_path / "in.tar", [(first, b"data"), (link, b"")])
    tree = read_tar(source)
    assert sum_sizes(tree) == 4
    write_tar(tree, tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        content, linked = archive.getmembers()
    assert (content.name, content.isreg()) == ("a", True)
    assert (linked.name, linked.linkname, linked.islnk()) == ("z", "a", True)
    again = read_tar(tmp_path / "out.tar")["a"]
    assert again.xattrs == {"security.capability": "\x01\x00\udcff"}
    assert read_content(again) == b"data"


def test_devices_are_left_out(tmp_path: Path) -> None:
    source = write_members(tmp_path / "x.tar", [(build_member("dev/sda", tarfile.BLKTYPE), b"")])
    assert read_tar(source) == {}


@pytest.mark.parametrize(
    "member",
    [
        build_member("../escape"),
        build_member("etc/../../escape"),
        build_member("/etc/passwd"),
        build_member("link", tarfile.LNKTYPE, "../../etc/shadow"),
        build_member("link", tarfile.LNKTYPE, "etc/not-there"),
    ],
    ids=lambda member: f"{member.name}>{member.linkname}",
)
def test_a_member_that_climbs_out_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    source = write_members(tmp_path / "evil.tar", [(member, b"")])
    with pytest.raises(InputError, match=r"evil\.tar"):
        read_tar(source)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(100)])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a root file system"):
        read_tar(path)


def test_a_tar_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_members(tmp_path / "x.tar", [(build_member("big"), os.urandom(50_000))])
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match="not a root file system"):
        read_tar(path)


def test_a_recipe_keeps_and_drops_by_pattern_but_spares_folders() -> None:
    recipe = Recipe("x", "", "extract", 0, keep=("etc*", "var*"), drop=("var/log/*",))
    tree = {
        "etc/fstab": build_file("etc/fstab", b""),
        "usr/bin/x": build_file("usr/bin/x", b""),
        "var/log/apt": build_folder("var/log/apt"),
        "var/log/apt/term.log": build_file("var/log/apt/term.log", b""),
    }
    assert list(select_entries(tree, recipe)) == ["etc/fstab", "var/log/apt"]


def test_every_image_has_the_agent_the_mount_points_and_no_gaps(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(b"\x7fELF")
    given = {
        ".harness/agent": build_file(".harness/agent", b"an older one"),
        "a/b/c": build_file("a/b/c", b""),
        "run": build_symlink("run", "var/run"),
    }
    tree = finish_tree(given, agent, {"etc/hostname": "x\n"})
    assert read_content(tree[".harness/agent"]) == b"\x7fELF"
    assert tree[".harness/agent"].mode == 0o755
    assert tree["a"].is_folder and tree["a/b"].is_folder
    assert set(FOLDERS) <= set(tree)
    assert tree["tmp"].mode == 0o1777
    assert tree["run"].target == "var/run"
    assert read_content(tree["etc/hostname"]) == b"x\n"


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_name_only_the_public_archive(recipe: Recipe) -> None:
    for line in recipe.files.get("etc/apt/sources.list", "").splitlines():
        assert line.startswith(
            ("deb http://deb.debian.org/debian ", "deb http://deb.debian.org/debian-security ")
        )
