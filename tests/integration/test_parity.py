"""One tree in containers and guests, compared from inside: exact, and refused where it is not."""

import json
import os
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.images.catalog import export_image, import_image
from harness.images.model import GuestKernel, Image
from harness.images.programs import build_programs
from harness.parity import find_differences, parse_listing
from harness.starter import read_clock
from tests.integration.import_rig import (
    CAPABILITY,
    build_sparse,
    build_tar,
    member,
    read_layer,
    remove,
    torture,
    write_image,
)
from tests.integration.laboratory import look_inside, run_in_lab
from tests.integration.machines import Parts
from tests.integration.test_run import run_harness

pytestmark = pytest.mark.timeout(300)

SMALL = int(os.environ.get("HARNESS_TORTURE", "5000"))
"""Small files of the torture image; 100000 takes some two minutes where guests are emulated."""


def say_nothing(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def tortured(tiny_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Every kind of entry, the small files, and busybox to run something."""
    folder = tmp_path_factory.mktemp("torture")
    layers = [
        build_tar(read_layer(tiny_image.tree)),
        build_tar(torture(SMALL)),
        build_tar(remove()),
    ]
    layout = write_image(folder / "layout", layers, {"Cmd": ["true"]})
    return import_image(str(layout), "test-torture", say_nothing)


def list_tree(folder: Path) -> str:
    program = build_programs().agent
    return subprocess.run(
        [program, "--list", folder], check=True, capture_output=True, timeout=60
    ).stdout.decode()


# ---- exact -----------------------------------------------------------------------------------


def test_the_torture_image_is_the_same_in_a_container_and_in_a_guest(
    tortured: Image, guest_kernel: GuestKernel
) -> None:
    done = run_harness("images", "check", tortured.name)
    assert done.returncode == 0, done.stdout + done.stderr
    listing = parse_listing(list_tree(tortured.tree))
    outside = {"/lost+found", "/dev", "/proc", "/sys", "/.harness/run"}
    assert not outside & listing.records.keys()
    assert done.stdout == f"namespace and vm-direct: {listing.count} entries, all the same\n"
    assert listing.count > SMALL


def test_engines_show_the_same_but_for_what_they_mount(tortured: Image) -> None:
    platforms = ("process", "crun", "runc", "podman")
    words = [word for each in platforms for word in ("--platform", each)]
    done = run_harness("images", "check", tortured.name, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"process and {each}" for each in platforms[1:]
    ]


LOOK = (
    "stat -c '%s %b' /sparse; dd if=/sparse bs=1M skip=20 count=1 2>/dev/null | head -c 13; echo;"
)
LOOK += " cd /; ls folder hidden"


def test_holes_are_holes_from_inside_and_what_a_layer_removes_is_gone(
    tortured: Image, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    programs = build_programs()
    parts = Parts(tortured, programs, guest_kernel)

    def look(run_id: str) -> str:
        with parts.start("vm-direct", run_id, command=("sh", "-c", LOOK)) as instance:
            instance.channel.wait_exit(read_clock() + 30_000_000_000)
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    for shown in (
        look_inside("namespace", tortured, programs, tmp_path, LOOK),
        run_in_lab(look, tmp_path).splitlines(),
    ):
        size, blocks = map(int, shown[0].split())
        assert (size, 0 < blocks * 512 < 1 << 20) == (64 << 20, True)
        assert shown[1:] == ["in the middle", "folder:", "", "hidden:", "new"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_every_kind_of_entry_is_in_the_tree(tortured: Image) -> None:
    tree = tortured.tree
    info = (tree / "char").lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
    info = (tree / "block").lstat()
    assert stat.S_ISBLK(info.st_mode) and (info.st_rdev, info.st_gid) == (os.makedev(7, 200), 6)
    assert stat.S_ISFIFO((tree / "fifo").lstat().st_mode)
    assert (tree / "setuid").stat().st_mode & 0o7777 == 0o4755
    assert os.getxattr(tree / "capable", "security.capability") == CAPABILITY
    assert os.getxattr(tree / "attributes", "user.bytes") == b"\xff\x00\x01"
    assert (tree / "first").stat().st_nlink == 3
    assert (tree / "empty").stat().st_uid == 1234
    assert b"\xff\xfe-bytes" in os.listdir(os.fsencode(tree / "odd"))


def test_files_that_are_all_hole_stay_two(tortured: Image) -> None:
    one, two = ((tortured.tree / name).stat() for name in ("hole-one", "hole-two"))
    assert one.st_ino != two.st_ino
    assert (one.st_nlink, one.st_uid, one.st_gid, one.st_mode & 0o7777) == (1, 11, 12, 0o600)
    assert (two.st_nlink, two.st_uid, two.st_gid, two.st_mode & 0o7777) == (1, 21, 22, 0o644)
    assert (one.st_size, one.st_blocks) == (two.st_size, two.st_blocks) == (8 << 20, 0)


def test_files_that_are_all_hole_survive_export_and_import(tmp_path: Path) -> None:
    holes = [
        build_sparse("one", 0, b"", 8 << 20, uid=11),
        build_sparse("two", 0, b"", 8 << 20, uid=21),
        member("same", kind=tarfile.LNKTYPE, linkname="one"),
    ]
    layout = write_image(tmp_path / "layout", [build_tar(holes)])
    image = import_image(str(layout), "test-all-hole", say_nothing)
    again = import_image(str(layout), "test-all-hole-again", say_nothing)
    disks = [each.packings["ext4-raw"].path.read_bytes() for each in (image, again)]
    assert (again.digest, disks[0]) == (image.digest, disks[1])
    for packing in ("tree", "oci-zstd"):
        out = export_image(image.name, packing, tmp_path / packing, say_nothing)
        back = import_image(str(out), f"test-all-hole-{packing}", say_nothing)
        assert back.digest == image.digest, packing
    assert (image.tree / "same").stat().st_ino == (image.tree / "one").stat().st_ino
    assert (image.tree / "two").stat().st_nlink == 1


def test_a_folder_with_holes_and_sockets_comes_in_and_again_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "sparse").open("wb") as file:
        file.seek(20 << 20)
        file.write(b"in the middle")
        file.truncate((64 << 20) + 5)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    said: list[str] = []
    image = import_image(str(root), "test-holes", said.append)
    assert "test-holes: 1 sockets were left out: they live with the program" in said
    info = (image.tree / "sparse").stat()
    assert (info.st_size, info.st_blocks * 512 < 1 << 20) == ((64 << 20) + 5, True)
    assert image.packings["ext4-raw"].allocated < 16 << 20
    assert (
        list_tree(image.tree).split("/sparse ")[1].split("\n")[0]
        == (list_tree(root).split("/sparse ")[1].split("\n")[0])
    )
    again = import_image(str(image.tree), "test-holes-again", say_nothing)
    assert again.digest == image.digest


# ---- not exact -------------------------------------------------------------------------------


@pytest.fixture
def doctored(tortured: Image, tmp_path: Path) -> Iterator[Image]:
    """The image with another mode of one file on its disk."""
    disk = tortured.packings["ext4-raw"].path
    kept = disk.with_name("kept")
    subprocess.run(["cp", "--sparse=always", disk, kept], check=True)
    change = "set_inode_field /setuid mode 0100755"
    subprocess.run(["debugfs", "-w", "-R", change, disk], check=True, capture_output=True)
    try:
        yield tortured
    finally:
        os.replace(kept, disk)


def test_a_run_refuses_trees_that_differ_unless_allowed(
    doctored: Image, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('platforms = ["namespace", "vm-direct"]\nblocks = 1\nwarmup = 0\ndensity = 0\n')
    words = ["run", str(plan), "--image", doctored.name, "--ready", "exit"]
    done = run_harness(*words, "--out", str(tmp_path / "refused"))
    assert done.returncode == 3, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert "1 of" in line and "/setuid: mode 4755, 0755" in line
    assert "--allow-different-trees" in line
    assert not (tmp_path / "refused/journal.jsonl").exists()
    allowed = tmp_path / "allowed"
    done = run_harness(*words, "--allow-different-trees", "--out", str(allowed))
    assert done.returncode == 0, done.stderr
    assert "comparing" not in done.stderr, "what was found is kept"
    (found,) = json.loads((allowed / "manifest.json").read_text())["parity"][doctored.name]
    assert found["differing"] == 1
    assert "entries differ" in (allowed / "report.md").read_text()


# ---- the comparison --------------------------------------------------------------------------

TOTAL = "total 2 00\n"
ONE = "/a f 0644 0 0 1 - - - - aa -\n/b d 0755 0 0 - - - - - - -\n"


@pytest.mark.parametrize(
    ("other", "differences"),
    [
        (ONE, []),
        (ONE.replace("0644", "0600"), ["/a: mode 0644, 0600"]),
        (ONE.replace(" aa ", " bb "), ["/a: content aa, bb"]),
        ("/b d 0755 0 0 - - - - - - -\n", ["/a: only the first has it"]),
        (ONE + "/c/x f 0644 0 0 1 - - - - aa -\n", ["/c/x: only the second has it"]),
        ("/b d 0755 0 0 - - - - - - -\nmount /a\n", []),
        (ONE + "mount /c\n/c/x f 0644 0 0 1 - - - - aa -\n", []),
        (ONE + "/.dockerenv f 0755 0 0 0 - - - - aa -\n", []),
    ],
)
def test_differences_are_named_by_path_and_field(other: str, differences: list[str]) -> None:
    one, two = parse_listing(ONE + TOTAL), parse_listing(other + TOTAL)
    assert find_differences(one, two) == differences
