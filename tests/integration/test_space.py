"""Disk space for real: shared blocks, growth while something runs, a cache that is freed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import fiemap
from harness.drivers.accelerator import build_direct_guest, prove_accelerator
from harness.images.model import GuestKernel, Image, Programs
from harness.paths import scratch_root
from harness.probes import disk
from harness.process import run_command
from harness.stock.usage import start_use
from harness.store import write_manifest
from harness.workloads import read_workload
from tests.integration.laboratory import instance_of, run_in_lab
from tests.integration.machines import Parts

MIB = 1 << 20
WRITER = read_workload("writer", folder=Path(), timeout=60)


# ---- blocks that are shared --------------------------------------------------------------------


def test_this_file_system_tells_the_extents_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as out:
        for _ in range(600):  # more extents than one request has room for
            out.write(os.urandom(4096))
            out.seek(4096, os.SEEK_CUR)
        os.fsync(out.fileno())
    extents = fiemap.find_extents(file)
    if extents is None:
        assert disk.find_shared([tmp_path]) is None
        return
    assert sum(each.length for each in extents) == 600 * 4096
    assert [each.logical for each in extents] == [8192 * number for number in range(600)]
    assert disk.find_shared([tmp_path]) == 0


def test_a_file_system_that_does_not_tell_has_no_row() -> None:
    shared = Path("/dev/shm") / f"harness-{os.getpid()}"
    shared.write_bytes(b"x" * 10_000)
    try:
        assert fiemap.find_extents(shared) is None
        rows = {row.metric for row in disk.read_instance([shared])}
        assert rows == {"disk.instance_growth", "disk.instance_apparent"}
    finally:
        shared.unlink()


def test_what_a_reflink_shares_is_counted_once(tmp_path: Path) -> None:
    """On btrfs, in a mount namespace of its own."""

    def copy(_: str) -> list[Any]:
        place = tmp_path / "btrfs"
        place.mkdir()
        run_command(["truncate", "--size=256M", tmp_path / "disk"], timeout=10)
        run_command(["mkfs.btrfs", "-q", tmp_path / "disk"], timeout=60)
        run_command(["mount", "-o", "loop", tmp_path / "disk", place], timeout=30)
        image, copied = place / "image", place / "copy"
        image.write_bytes(os.urandom(8 * MIB))
        os.sync()
        alone = disk.find_shared([image])
        run_command(["cp", "--reflink=always", image, copied], timeout=10)
        with copied.open("r+b") as file:
            file.write(os.urandom(MIB))
        os.sync()
        found = [alone, disk.find_shared([copied]), disk.read_occupied([image], [copied])]
        run_command(["umount", place], timeout=30)
        return found

    alone, shared, occupied = run_in_lab(copy, tmp_path, network=False)
    assert (alone, shared, occupied) == (0, 7 * MIB, 9 * MIB)


# ---- growth ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tiny_image: Image, programs: Programs, guest_kernel: GuestKernel) -> Parts:
    prove_accelerator(build_direct_guest(guest_kernel))
    return Parts(tiny_image, programs, guest_kernel)


@pytest.mark.parametrize(
    ("platform", "given_back"),
    [
        ("vm-direct", 0),
        ("vm-direct/discard", 16),
        ("vm-direct/disk=raw/discard", 16),
        ("vm-microvm/disk=qcow2/discard", 16),
    ],
)
def test_what_a_guest_deletes_comes_back_with_discard_alone(
    parts: Parts, tmp_path: Path, platform: str, given_back: int
) -> None:
    def write(run_id: str) -> list[list[Any]]:
        driver = parts.driver(platform, run_id)
        spec = parts.spec(run_id, command=WRITER.command, ready=WRITER.ready, timeout=60)
        with driver.start_instance(spec) as instance:
            return read_marks(instance)

    (written, kept) = run_in_lab(write, tmp_path)
    assert [written[0], kept[0]] == ["written", "kept"]
    assert 32 * MIB <= written[1] < 36 * MIB
    assert written[1] - kept[1] == pytest.approx(given_back * MIB, abs=MIB)


@pytest.mark.parametrize("platform", ["namespace", "crun", "podman"])
def test_what_a_container_deletes_comes_back_at_once(
    tiny_image: Image, programs: Programs, tmp_path: Path, platform: str
) -> None:
    def write(run_id: str) -> list[list[Any]]:
        changes: dict[str, Any] = {"command": WRITER.command, "ready": WRITER.ready}
        with instance_of(platform, tiny_image, programs, run_id, **changes) as instance:
            files = instance.files()
            inside = all(str(path).startswith(str(scratch_root())) for path in files)
            return [["inside", inside], ["growth", disk.read_sizes(files)[1]]]

    (inside, growth) = run_in_lab(write, tmp_path)
    assert inside == ["inside", True]
    assert 16 * MIB <= growth[1] < 17 * MIB


def read_marks(instance: Any) -> list[list[Any]]:
    """[name, bytes] of every mark, once the instance is ready."""
    marks = disk.Marks(instance.files)
    instance.listen(marks.take)
    instance.wait_ready()
    return [[row.phase, row.value] for row in marks.rows]


# ---- the cache ---------------------------------------------------------------------------------


def prune(folder: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HARNESS_CACHE": str(cache)}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = str(root)
    return subprocess.run(
        [sys.executable, "-m", "harness", "images", "prune", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def cache(tiny_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own with a copy of the image in it."""
    cache = tmp_path / "cache"
    (cache / "images/tiny").mkdir(parents=True)
    place = cache / "images/tiny" / tiny_image.folder.name
    run_command(["cp", "-a", "--sparse=always", tiny_image.folder, place], timeout=60)
    (place.parent / "current").symlink_to(place.name)
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    return cache


def test_what_a_stored_run_needs_and_what_a_run_uses_stays(
    tiny_image: Image, cache: Path, tmp_path: Path
) -> None:
    place = cache / "images/tiny" / tiny_image.folder.name
    stored = tmp_path / "results/r1"
    stored.mkdir(parents=True)
    images = {"tiny": {"digest": tiny_image.digest}}
    write_manifest(stored, {"run_id": "r1", "images": images})
    kept = prune(tmp_path, cache, "tiny")
    assert (kept.returncode, kept.stdout) == (0, "")
    assert f"kept {place}" in kept.stderr and "results/r1 needs it" in kept.stderr
    shown = prune(tmp_path, cache, "tiny", "--force", "--dry-run", "--json")
    (row,) = [each for each in json.loads(shown.stdout) if each["kind"] == "image"]
    assert (row["goes"], row["removed"], row["why"]) == (True, False, "it was named")
    with start_use([place / "tree"]):
        used = prune(tmp_path, cache, "tiny", "--force")
    assert "a run uses it now" in used.stderr and place.is_dir()
    gone = prune(tmp_path, cache, "tiny", "--force")
    assert gone.stdout.startswith(f"removed {place}")
    assert "are free again" in gone.stderr and not place.exists()


def test_a_stored_run_elsewhere_is_named(tiny_image: Image, cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere/r2"
    elsewhere.mkdir(parents=True)
    images = {"tiny": {"digest": tiny_image.digest}}
    write_manifest(elsewhere, {"run_id": "r2", "images": images})
    kept = prune(tmp_path, cache, "--all", "--results", str(elsewhere.parent))
    assert "elsewhere/r2 needs it" in kept.stderr
    assert (cache / "images/tiny" / tiny_image.folder.name).is_dir()
    unknown = prune(tmp_path, cache, "tinny")
    assert unknown.returncode == 2 and "did you mean 'tiny'" in unknown.stderr
