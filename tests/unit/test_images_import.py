"""Merging layers, following links within the root, and telling archives apart."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HostError, InputError
from harness.images.archive import read_content, write_tar
from harness.images.importer import fetch_layout, read_source
from harness.images.importer_layers import apply_layer, make_directory, resolve_path
from harness.images.importer_unpack import Budget, decompress
from harness.images.oci import write_layout
from harness.images.rootfs import Entry, build_file, build_folder, build_symlink


def build_tree(*entries: Entry) -> dict[str, Entry]:
    return {entry.path: entry for entry in entries}


LOWER = build_tree(
    build_folder("etc"),
    build_file("etc/a", b"1"),
    build_file("etc/b", b"2"),
    build_folder("opt"),
    build_file("opt/tool", b""),
    build_symlink("lib", "usr/lib"),
    build_folder("usr"),
    build_folder("usr/lib"),
)


@pytest.mark.parametrize(
    ("layer", "gone", "present"),
    [
        ([build_file("etc/.wh.a", b"")], {"etc/a"}, {"etc/b"}),
        ([build_file(".wh.opt", b"")], {"opt", "opt/tool"}, {"etc/a"}),
        (
            [build_file("etc/.wh..wh..opq", b""), build_file("etc/c", b"")],
            {"etc/a", "etc/b"},
            {"etc", "etc/c"},
        ),
        ([build_file("opt", b"")], {"opt/tool"}, {"opt"}),
        ([build_file("lib/x.so", b"")], {"lib/x.so"}, {"lib", "usr/lib/x.so"}),
    ],
    ids=["file", "folder", "opaque", "replaced", "through a link"],
)
def test_a_layer_hides_and_adds(layer: list[Entry], gone: set[str], present: set[str]) -> None:
    merged = apply_layer(LOWER, build_tree(*layer))
    assert not gone & set(merged)
    assert present <= set(merged)
    assert all(entry.path == path for path, entry in merged.items())


@pytest.mark.parametrize(
    ("target", "resolved"),
    [
        ("usr/lib", "usr/lib/x"),
        ("/usr/lib", "usr/lib/x"),
        ("usr/../etc", "etc/x"),
        ("/", "x"),
    ],
)
def test_links_are_followed_within_the_root(target: str, resolved: str) -> None:
    assert resolve_path(build_tree(build_symlink("lib", target)), "lib/x") == resolved


def test_a_circle_of_links_is_refused() -> None:
    tree = build_tree(build_symlink("a", "b"), build_symlink("b", "a"))
    with pytest.raises(InputError, match="circle"):
        resolve_path(tree, "a/x")


@pytest.mark.parametrize(
    ("directory", "found"),
    [
        ("/", "/"),
        ("/srv//app/", "/srv/app"),
        ("srv/app", "/srv/app"),
        ("//srv/app", "/srv/app"),
        ("/../../etc/../x", "/x"),
        ("/var/run/app", "/run/app"),
        ("/var/run", "/run"),
        ("/var/run/link", "/etc/deep"),
        ("/etc/new", "/etc/new"),
    ],
)
def test_a_working_directory_is_one_folder_wherever_links_lead(directory: str, found: str) -> None:
    tree = build_tree(
        build_folder("etc"),
        build_folder("var"),
        build_symlink("var/run", "/run"),
        build_symlink("run/link", "../etc/deep"),
    )
    assert make_directory(tree, directory) == found
    assert all(path.strip("/") == path and entry.path == path for path, entry in tree.items())
    assert found == "/" or tree[found[1:]].is_folder
    assert make_directory(tree, found) == found


@pytest.mark.parametrize(
    ("directory", "reason"),
    [
        ("/etc/file", "is no folder"),
        ("/etc/file/x/y", "is no folder"),
        ("/through", "is no folder"),
        ("/loop/x", "circle"),
        ("/loop", "circle"),
        ("/up", "out of the root"),
    ],
)
def test_a_working_directory_that_cannot_be_is_refused(directory: str, reason: str) -> None:
    tree = build_tree(
        build_folder("etc"),
        build_file("etc/file", b""),
        build_symlink("through", "etc/file"),
        build_symlink("loop", "loop"),
        build_symlink("up", "../.."),
    )
    with pytest.raises(InputError, match=f"^WorkingDir '{directory}'.*{reason}"):
        make_directory(tree, directory)


@pytest.mark.parametrize(
    "directory", ["/a\0b", "/" + "x" * 256, "/\ud800"], ids=["zero", "long", "surrogate"]
)
def test_a_working_directory_without_a_possible_name_is_refused(directory: str) -> None:
    with pytest.raises(InputError, match=r"^WorkingDir .*no file system has such a name"):
        make_directory({}, directory)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, bytes])
def test_compressed_archives_are_known_by_their_first_bytes(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    write_tar(LOWER, tmp_path / "plain.tar")
    (tmp_path / "root").write_bytes(pack((tmp_path / "plain.tar").read_bytes()))
    assert set(read_source(str(tmp_path / "root"), tmp_path).tree) == set(LOWER)


@pytest.mark.parametrize(
    "text",
    ['{"name": "app"}', "[]", "[1]", '[{"Config": "a"}]', "{", "", "\udcff", "[" * 100_000],
    ids=["object", "empty list", "numbers", "no layers", "no JSON", "empty", "no text", "deep"],
)
def test_a_manifest_of_the_root_file_systems_own_is_a_file(tmp_path: Path, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    write_tar({**LOWER, "manifest.json": build_file("manifest.json", data)}, tmp_path / "x.tar")
    found = read_source(str(tmp_path / "x.tar"), tmp_path).tree
    assert set(found) == {*LOWER, "manifest.json"}
    assert read_content(found["manifest.json"]) == data


def test_a_saved_image_is_known_by_its_list(tmp_path: Path) -> None:
    text = b'[{"Config": "c.json", "Layers": []}]'
    write_tar({"manifest.json": build_file("manifest.json", text)}, tmp_path / "x.tar")
    with pytest.raises(InputError, match=r"is not whole: it has no c\.json"):
        read_source(str(tmp_path / "x.tar"), tmp_path)


def test_a_compressed_archive_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root.tar.gz"
    path.write_bytes(gzip.compress(bytes(100_000))[:50])
    with pytest.raises(InputError, match="cut short"):
        decompress(path, tmp_path / "out", Budget())


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_a_damaged_archive_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "root.tar"
    data = bytearray(pack(bytes(range(256)) * 4000))
    data[10:30] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"^{path} is cut short or broken: "):
        decompress(path, tmp_path / "out", Budget())


def test_a_disk_that_cannot_be_written_is_not_the_archives_fault(tmp_path: Path) -> None:
    (tmp_path / "root.tar.bz2").write_bytes(bz2.compress(bytes(8 << 20)))
    with pytest.raises(OSError, match="No space left"):
        decompress(tmp_path / "root.tar.bz2", Path("/dev/full"), Budget())


def test_a_layout_gives_the_tree_it_was_made_of(tmp_path: Path) -> None:
    digest = write_tar(LOWER, tmp_path / "x.tar")
    write_layout(tmp_path / "x.tar", digest, "gzip", tmp_path / "layout")
    assert set(read_source(str(tmp_path / "layout"), tmp_path).tree) == set(LOWER)


def test_a_layout_without_its_blobs_is_refused(tmp_path: Path) -> None:
    digest = write_tar(LOWER, tmp_path / "x.tar")
    write_layout(tmp_path / "x.tar", digest, "gzip", tmp_path / "layout")
    for blob in (tmp_path / "layout/blobs/sha256").iterdir():
        blob.unlink()
    with pytest.raises(InputError, match="is not whole"):
        read_source(str(tmp_path / "layout"), tmp_path)


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/nowhere/root does not exist"):
        read_source("/nowhere/root", tmp_path)


def test_a_reference_without_skopeo_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="skopeo is not installed"):
        fetch_layout("docker://debian:12", tmp_path, Budget())
