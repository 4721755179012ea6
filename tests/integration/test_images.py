"""Images and the guest kernel, built for real: reproducible, whole, and the same in every form."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InputError
from harness.images import kernel, store
from harness.images.catalog import (
    build_image,
    export_image,
    find_image,
    import_image,
    require_image,
)
from harness.images.importer_unpack import Budget, decompress
from harness.images.kernel import require_guest_kernel
from harness.images.model import Image
from harness.images.pack import EXTRA_PATHS, PATHS
from harness.images.vmlinux import has_pvh_entry

pytestmark = pytest.mark.timeout(300)

FILES = ("ext4-raw", "qcow2", "raw-zstd")
LAYOUTS = {"oci-gzip": "tar+gzip", "oci-zstd": "tar+zstd"}


def say_nothing(_: str) -> None:
    pass


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=360, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module")
def tiny() -> Image:
    return require_image("tiny", say_nothing)


@pytest.fixture(scope="module")
def slim() -> Image:
    return require_image("slim", say_nothing)


@pytest.fixture(scope="module")
def python() -> Image:
    return require_image("python", say_nothing)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Reproducible


def test_a_second_build_gives_the_same_bytes_in_every_packing(tiny: Image, own_cache: Path) -> None:
    again = build_image("tiny", say_nothing)
    assert again.folder != tiny.folder
    assert again.digest == tiny.digest
    for name in FILES:
        assert hash_file(again.packings[name].path) == hash_file(tiny.packings[name].path), name
    for name in LAYOUTS:
        index = Path("index.json")
        assert (again.packings[name].path / index).read_text() == (
            tiny.packings[name].path / index
        ).read_text()
    assert find_image("tiny") == again


def test_a_cached_image_is_found_without_a_mirror(
    tiny: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_tree(*_: object) -> None:
        raise AssertionError("it was built again")

    monkeypatch.setattr("harness.images.catalog.build_tree", build_tree)
    started = time.monotonic()
    assert require_image("tiny", say_nothing) == tiny
    assert time.monotonic() - started < 1


def test_the_digest_is_that_of_the_layer_before_it_is_compressed(tiny: Image) -> None:
    layout = tiny.packings["oci-gzip"].path
    config = read_blob(layout, read_manifest(layout)["config"])
    assert config["rootfs"]["diff_ids"] == [tiny.digest]


# Nothing of the host, nothing superfluous


def test_debian_images_have_nothing_of_this_host(slim: Image) -> None:
    etc = slim.tree / "etc"
    assert (etc / "hostname").read_text() == "localhost\n"
    assert (etc / "resolv.conf").read_text() == ""
    assert (etc / "machine-id").read_text() == ""
    assert not list((etc / "apt/sources.list.d").iterdir())
    assert all(
        line.startswith("deb http://deb.debian.org/debian")
        for line in (etc / "apt/sources.list").read_text().splitlines()
    )
    for empty in ("var/log", "var/cache", "var/lib/apt/lists", "tmp", "dev"):
        assert [path for path in (slim.tree / empty).rglob("*") if path.is_file()] == [], empty


def test_tiny_is_tiny_and_has_the_applets_that_workloads_use(tiny: Image) -> None:
    assert tiny.packings["tree"].apparent < 4 << 20
    for applet in ("sh", "sleep", "httpd", "wget"):
        links = [tiny.tree / folder / applet for folder in ("bin", "usr/bin", "usr/sbin", "sbin")]
        assert any(link.is_symlink() for link in links), applet


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_commands_run_in_each_tree(tiny: Image, slim: Image, python: Image) -> None:
    assert run("chroot", tiny.tree, "/bin/sh", "-c", "echo $((6*7))") == "42\n"
    assert "Debian" in run("chroot", slim.tree, "/bin/cat", "/etc/os-release")
    modules = "import asyncio, json, sqlite3, ssl, ctypes; print(json.dumps([1]))"
    assert run("chroot", python.tree, "python3", "-B", "-c", modules) == "[1]\n"


def test_every_tree_has_the_agent_and_its_channel_folder(tiny: Image, slim: Image) -> None:
    for image in (tiny, slim):
        assert (image.tree / ".harness/agent").stat().st_mode & 0o777 == 0o755
        assert not list((image.tree / ".harness/run").iterdir())


# Every packing holds the same tree


def test_the_disk_is_clean_and_holds_the_tree(slim: Image, tmp_path: Path) -> None:
    disk = slim.packings["ext4-raw"].path
    run("e2fsck", "-fn", disk)
    (tmp_path / "out").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'out'}", disk)
    (tmp_path / "out/lost+found").rmdir()
    # debugfs copies neither set-user-id nor sticky bits, so those are read on the disk.
    assert list_tree(tmp_path / "out", ~0o7000) == list_tree(slim.tree, ~0o7000)
    run("diff", "--recursive", "--no-dereference", tmp_path / "out", slim.tree)
    assert "Mode:  04755" in run("debugfs", "-R", "stat /usr/bin/su", disk)
    assert "Mode:  01777" in run("debugfs", "-R", "stat /tmp", disk)


def test_the_other_disks_are_the_same_disk(tiny: Image, tmp_path: Path) -> None:
    raw = tiny.packings["ext4-raw"].path
    run("qemu-img", "check", tiny.packings["qcow2"].path)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, tiny.packings["qcow2"].path)
    plain = decompress(tiny.packings["raw-zstd"].path, tmp_path / "disk", Budget())
    assert hash_file(plain) == hash_file(raw)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_whole_and_its_layer_is_the_tree(
    tiny: Image, name: str, tmp_path: Path
) -> None:
    layout = tiny.packings[name].path
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    manifest = read_manifest(layout)
    (layer,) = manifest["layers"]
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert layer["mediaType"] == f"application/vnd.oci.image.layer.v1.{LAYOUTS[name]}"
    for descriptor in (manifest["config"], layer):
        blob = blob_path(layout, descriptor)
        assert f"sha256:{hash_file(blob)}" == descriptor["digest"]
        assert blob.stat().st_size == descriptor["size"]
    plain = decompress(blob_path(layout, layer), tmp_path / "layer.tar", Budget())
    assert f"sha256:{hash_file(plain)}" == tiny.digest
    with tarfile.open(plain) as archive:
        assert {member.name for member in archive} == set(list_tree(tiny.tree))


def test_skopeo_reads_both_layouts(tiny: Image) -> None:
    if shutil.which("skopeo") is None and not os.environ.get("CI"):
        pytest.skip("skopeo is not installed")
    for name in LAYOUTS:
        shown = json.loads(run("skopeo", "inspect", f"oci:{tiny.packings[name].path}:latest"))
        assert shown["Architecture"] == "amd64"


def test_sizes_are_those_of_the_files(tiny: Image) -> None:
    assert set(PATHS) <= set(tiny.packings) <= {*PATHS, *EXTRA_PATHS}
    disk = tiny.packings["ext4-raw"]
    info = disk.path.stat()
    assert (disk.apparent, disk.allocated) == (info.st_size, info.st_blocks * 512)
    assert disk.virtual == disk.apparent == tiny.packings["qcow2"].virtual
    assert disk.allocated < 2 * tiny.packings["tree"].allocated
    layout = tiny.packings["oci-zstd"]
    files = [path for path in layout.path.rglob("*") if path.is_file()]
    assert layout.apparent == sum(path.stat().st_size for path in files)


# In, out and away


def test_an_exported_tree_comes_in_again_with_the_same_digest(
    tiny: Image, own_cache: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny.folder.parent, own_cache / "images/tiny", symlinks=True)
    out = export_image("tiny", "tree", tmp_path / "out", say_nothing)
    assert import_image(str(out), "mine", say_nothing).digest == tiny.digest
    layout = tiny.packings["oci-zstd"].path
    assert import_image(str(layout), "mine", say_nothing).digest == tiny.digest
    with pytest.raises(InputError, match="exists already"):
        export_image("tiny", "qcow2", out, say_nothing)
    with pytest.raises(InputError, match="'vmdk' is not a packing"):
        export_image("tiny", "vmdk", tmp_path / "new", say_nothing)


def test_an_archive_that_climbs_out_leaves_no_image(own_cache: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../../escape"))
    with pytest.raises(InputError, match="points out of the root"):
        import_image(str(tmp_path / "evil.tar"), "evil", say_nothing)
    assert find_image("evil") is None
    assert not (own_cache / "escape").exists()


BUILD = """
from harness.images.catalog import build_image
build_image("tiny", lambda line: print(line, flush=True))
"""


def test_a_killed_build_leaves_no_image_and_no_process(own_cache: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert b"unpacking" in builder.stdout.readline()
        wait_until(lambda: bool(find_processes(own_cache)))
        builder.send_signal(signal.SIGKILL)
    wait_until(lambda: not find_processes(own_cache))
    assert find_image("tiny") is None
    assert require_image("tiny", say_nothing).tree.is_dir()
    assert not list((store.images_dir() / "tiny").glob(".build-*"))


# The guest kernel


def test_the_kernel_boots_directly_and_is_found_again_without_a_mirror(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = require_guest_kernel(say_nothing)
    monkeypatch.setattr(kernel, "fetch_package", lambda *_: pytest.fail("it was fetched again"))
    assert require_guest_kernel(say_nothing) == first
    assert has_pvh_entry(first.elf.read_bytes())
    assert first.bzimage.read_bytes()[0x202:0x206] == b"HdrS"
    assert "cloud" in first.release


def test_the_initramfs_holds_the_agent_and_modules_after_those_they_need(tiny: Image) -> None:
    guest = require_guest_kernel(say_nothing)
    files = read_cpio(guest.initramfs.read_bytes())
    order = files["modules/order"].decode().split()
    assert files["init"] == (tiny.tree / ".harness/agent").read_bytes()
    assert order == [f"{name}.ko" for name in guest.modules]
    assert {f"modules/{name}" for name in order} <= set(files)
    assert order.index("virtio_ring.ko") < order.index("virtio_blk.ko")
    assert {"dev", "proc", "sys", "newroot", "dev/console"} <= set(files)


def read_cpio(archive: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    position = 0
    while True:
        header = archive[position : position + 110]
        assert header[:6] == b"070701"
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        name = archive[position + 110 : position + 109 + name_size].decode()
        start = position + -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return files
        files[name] = archive[start : start + size]
        position = start + -(-size // 4) * 4


def read_manifest(layout: Path) -> dict[str, Any]:
    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    return read_blob(layout, descriptor)


def read_blob(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(blob_path(layout, descriptor).read_text())
    return document


def blob_path(layout: Path, descriptor: dict[str, Any]) -> Path:
    return layout / "blobs" / str(descriptor["digest"]).replace(":", "/")


def list_tree(root: Path, mask: int = ~0) -> dict[str, tuple[int, int, int]]:
    """Mode (the bits of ``mask``) and owner of every path below ``root``."""
    infos = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
    return {name: (info.st_mode & mask, info.st_uid, info.st_gid) for name, info in infos.items()}


def find_processes(folder: Path) -> list[str]:
    """Command lines of the processes that work in ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/images" in line:
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
