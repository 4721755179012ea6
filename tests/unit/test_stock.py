"""What the cache has, what of it is pruned and what is kept: decisions, records and locks."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import HostError, InputError
from harness.images import store
from harness.images.model import Image, Packing
from harness.images.workshop import start_work
from harness.stock.decide import Verdict, Wish, decide, sum_left
from harness.stock.digests import find_digests
from harness.stock.inventory import Item, Kind, find_virtual, list_items, list_packed
from harness.stock.prune import carry_out, require_names
from harness.stock.usage import MARK, find_entry, is_used, start_use
from harness.store import write_manifest
from harness.store.needs import list_needs, list_noted, note_run, read_needs

DAY = 86_400.0
NOW = 100 * DAY
MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build_item(
    kind: Kind, name: str, mib: int, days: float, *, fault: str = "", digest: str = ""
) -> Item:
    used = NOW - days * DAY
    path = Path(f"/{kind}/{name}/{digest or mib}")
    return Item(kind, name, path, mib * MIB, used, used, digest or f"sha256:{name}", fault)


TINY = build_item("image", "tiny", 10, 1)
OLD_TINY = build_item("image", "tiny", 9, 20, fault="another image has its name", digest="sha256:o")
SLIM = build_item("image", "slim", 300, 40)
SLIM_DISK = build_item("disk", "slim", 400, 2)
SNAPSHOT = build_item("snapshot", "slim", 90, 3)
KERNEL = build_item("kernel", "6.1.0", 45, 5)
LEFTOVER = build_item("leftover", "slim", 7, 1, fault="a build was broken off")
ALL = (TINY, OLD_TINY, SLIM, SLIM_DISK, SNAPSHOT, KERNEL, LEFTOVER)


def list_gone(verdicts: Sequence[Verdict]) -> list[Item]:
    return [each.item for each in verdicts if each.goes]


@pytest.mark.parametrize(
    ("wish", "gone"),
    [
        (Wish(), [OLD_TINY, LEFTOVER]),
        (Wish(older_than=30 * DAY), [OLD_TINY, LEFTOVER, SLIM, SLIM_DISK, SNAPSHOT]),
        (Wish(older_than=4 * DAY), [OLD_TINY, LEFTOVER, SLIM, KERNEL, SLIM_DISK, SNAPSHOT]),
        (Wish(names=("tiny",)), [OLD_TINY, TINY]),
        (Wish(names=("slim",)), [LEFTOVER, SLIM, SNAPSHOT, SLIM_DISK]),
        (Wish(names=("slim",), older_than=90 * DAY), [LEFTOVER]),
        (Wish(names=("slim",), older_than=30 * DAY), [LEFTOVER, SLIM, SLIM_DISK, SNAPSHOT]),
        (Wish(until=2000 * MIB), [OLD_TINY, LEFTOVER]),
        (Wish(until=60 * MIB), [OLD_TINY, LEFTOVER, SLIM, SLIM_DISK, SNAPSHOT]),
        (Wish(until=0), [OLD_TINY, LEFTOVER, SLIM, SLIM_DISK, SNAPSHOT, KERNEL, TINY]),
        (Wish(everything=True), [OLD_TINY, LEFTOVER, SLIM, KERNEL, SNAPSHOT, SLIM_DISK, TINY]),
    ],
)
def test_what_is_out_of_date_goes_first_then_the_least_recently_used(
    wish: Wish, gone: list[Item]
) -> None:
    assert list_gone(decide(ALL, wish, {}, NOW)) == gone


def test_what_a_stored_run_needs_is_kept_unless_it_is_told() -> None:
    needs = {("image", SLIM.digest): "results/r1", ("disk", SLIM.digest): "results/r1"}
    verdicts = decide(ALL, Wish(everything=True), needs, NOW)
    kept = {each.item: each.why for each in verdicts if not each.goes}
    assert kept == {SLIM: "results/r1 needs it", SLIM_DISK: "results/r1 needs it"}
    forced = decide(ALL, Wish(everything=True, force=True), needs, NOW)
    assert len(list_gone(forced)) == len(ALL)


def test_what_is_out_of_date_is_kept_for_a_stored_run_too() -> None:
    (verdict,) = decide([OLD_TINY], Wish(), {("image", OLD_TINY.digest): "results/r1"}, NOW)
    assert (verdict.goes, verdict.why) == (False, "results/r1 needs it")


def test_what_a_run_uses_now_is_kept_even_by_force() -> None:
    busy = replace(TINY, busy="a run uses it now")
    (verdict,) = decide([busy], Wish(everything=True, force=True), {}, NOW)
    assert (verdict.goes, verdict.why) == (False, "a run uses it now")


def test_a_size_that_cannot_be_reached_takes_what_it_can() -> None:
    needs = {("image", SLIM.digest): "results/r1"}
    verdicts = decide(ALL, Wish(until=50 * MIB), needs, NOW)
    assert SLIM not in list_gone(verdicts)
    assert sum_left(ALL, verdicts) == SLIM.allocated


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'slin'.*did you mean 'slim'"):
        require_names(ALL, ["tiny", "slin"])


# ---- what stored runs need ---------------------------------------------------------------------


def test_a_run_needs_its_images_and_what_its_platforms_start_from() -> None:
    manifest: dict[str, object] = {
        "images": {"slim": {"digest": "sha256:s"}},
        "platforms": {"namespace": {}, "vm-disk/uefi": {}, "vm-restore": {}},
        "guest_kernel": {"release": "6.1.0"},
    }
    assert list_needs(manifest) == [
        ("image", "sha256:s"), ("disk", "sha256:s"), ("snapshot", "slim"), ("kernel", "6.1.0"),
    ]  # fmt: skip
    assert list_needs({"guest_kernel": None}) == []


def test_runs_are_found_below_a_folder_and_a_damaged_one_stops_it(tmp_path: Path) -> None:
    for place in ("r0", "deep/er"):
        (tmp_path / place).mkdir(parents=True)
        images = {"tiny": {"digest": f"sha256:{place}"}}
        write_manifest(tmp_path / place, {"run_id": "r", "images": images})
    needs = read_needs([tmp_path, tmp_path / "r0", tmp_path / "nowhere"])
    assert needs == {
        ("image", f"sha256:{place}"): str(tmp_path / place) for place in ("deep/er", "r0")
    }
    (tmp_path / "r0/manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"is unknown.*r0.*damaged"):
        read_needs([tmp_path])


# ---- who uses what -----------------------------------------------------------------------------


def test_a_file_of_the_cache_belongs_to_what_is_kept_as_a_whole(cache: Path) -> None:
    (cache / "images/tiny/abc/tree/bin").mkdir(parents=True)
    (cache / "images/tiny/current").symlink_to("abc")
    entry = cache / "images/tiny/abc"
    assert find_entry(cache / "images/tiny/current/tree/bin") == entry
    assert find_entry(cache / "kernels/6.1/vmlinux") == cache / "kernels/6.1"
    assert find_entry(cache / "images/tiny") is None
    assert find_entry(cache / "scratch/run/t0/disk.raw") is None
    assert find_entry(Path("/usr/bin/env")) is None


def publish(name: str, digest: str) -> Image:
    with start_work(store.images_dir() / name, lambda _: None) as folder:
        built = folder / "image"
        (built / "tree").mkdir(parents=True)
        (built / "disk.raw").write_bytes(b"disk")
        packings = {
            "tree": Packing("tree", built / "tree", 1, 4096),
            "ext4-raw": Packing("ext4-raw", built / "disk.raw", 4, 4096, 4),
        }
        image = Image(name, f"sha256:{digest * 64}", built, packings)
        return store.publish(store.Record(image, "import", {}), replace_same=False).image


def test_a_use_is_noted_and_lasts_as_long_as_it_is_held(cache: Path) -> None:
    image = publish("mine", "a")
    os.utime(image.folder / "image.json", (0, 0))
    assert [(each.used, each.busy) for each in list_packed()] == [(0, "")]
    with start_use([image.tree, cache / "scratch"]):
        assert is_used(image.folder)
        assert [each.busy for each in list_packed()] == ["a run uses it now"]
    (item,) = list_packed()
    assert (item.busy, item.used == pytest.approx(time.time(), abs=60)) == ("", True)


def test_an_image_that_vanished_is_one_clear_error(cache: Path) -> None:
    image = publish("mine", "a")
    (verdict,) = carry_out([Verdict(list_packed()[0], goes=True, why="it was named")])
    assert verdict.goes and not image.folder.exists()
    assert list((cache / "images/mine").glob("[!.]*")) == []
    with (
        pytest.raises(HostError, match=r"images/mine/a{12} vanished.*run again"),
        start_use([image.folder / "tree"]),
    ):
        pass


def test_nothing_is_removed_from_under_a_run_or_a_build(cache: Path) -> None:
    image = publish("mine", "a")
    doomed = Verdict(list_packed()[0], goes=True, why="it was named")
    with start_use([image.tree]):
        (verdict,) = carry_out([doomed])
        assert (verdict.goes, verdict.why) == (False, "a run uses it now")
    with start_work(cache / "images/mine", lambda _: None):
        (verdict,) = carry_out([doomed])
        assert (verdict.goes, verdict.why) == (False, "a build is at work there")
    assert image.folder.exists()


def test_the_older_image_and_what_is_damaged_is_found(cache: Path) -> None:
    older, newer, damaged = publish("mine", "a"), publish("mine", "b"), publish("other", "c")
    (damaged.folder / "image.json").write_text("{")
    dead = cache / "images/mine/.build-dead"
    dead.mkdir()
    os.utime(dead, (0, 0))
    (cache / "disks/mine/0123456789ab").mkdir(parents=True)
    found = {each.path: each for each in list_items() if each.kind != "programs"}
    faults = {path.relative_to(cache).as_posix(): each.fault for path, each in found.items()}
    assert faults == {
        older.folder.relative_to(cache).as_posix(): "another image has its name",
        newer.folder.relative_to(cache).as_posix(): "",
        damaged.folder.relative_to(cache).as_posix(): "it is damaged, or another version made it",
        "disks/mine/0123456789ab": "it is damaged, or another version made it",
        "images/mine/.build-dead": "a build was broken off",
    }
    list(carry_out(decide(list(found.values()), Wish(), {}, time.time())))
    assert [each.path for each in list_items() if each.kind != "programs"] == [newer.folder]


@pytest.mark.usefixtures("cache")
def test_programs_of_another_source_are_out_of_date() -> None:
    (present,) = list_items()
    assert (present.kind, present.fault) == ("programs", "")
    old = present.path.with_name("0" * 16)
    old.mkdir()
    assert {each.path: each.fault for each in list_items()} == {
        old: "made from other sources",
        present.path: "",
    }


@pytest.mark.usefixtures("cache")
def test_a_run_is_known_wherever_its_folder_is_and_forgotten_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    images = {"images": {"mine": {"digest": "sha256:m"}}}
    write_manifest(folder, {"run_id": "r1", **images})
    note_run("r1", folder)
    assert read_needs(list_noted()) == {("image", "sha256:m"): str(folder)}
    shutil.rmtree(folder)
    assert list_noted() == []
    folder.mkdir()
    write_manifest(folder, {"run_id": "r1", **images})
    assert list_noted() == [], "the note is gone too"


@pytest.mark.usefixtures("cache")
def test_systems_and_packages_go_with_the_images_that_they_are_for(cache: Path) -> None:
    image = publish("mine", "a")
    for name in (store.short_digest(image.digest), "f" * 12):
        (cache / "rebuild" / name / "debs").mkdir(parents=True)
    system, broken = cache / "systems" / ("0" * 12), cache / "systems" / ("1" * 12)
    broken.mkdir(parents=True)
    system.mkdir()
    (system / "root.ext4").write_bytes(b"root")
    record = {"version": 1, "digest": "d", "size": 4, "kernel": "6.1", "packages": []}
    (system / "system.json").write_text(json.dumps(record))
    found = {(each.kind, each.path.name): each.fault for each in list_items()}
    assert found["packages", store.short_digest(image.digest)] == ""
    assert found["packages", "f" * 12] == "its image is gone, or has changed"
    assert found["system", "0" * 12] == "slim, or what is added to it, has changed"
    assert found["leftover", "1" * 12] == "it is damaged, or another version made it"
    list(carry_out(decide(list_items(), Wish(), {}, time.time())))
    assert [each.name for each in (cache / "rebuild").iterdir() if each.is_dir()] == [
        store.short_digest(image.digest)
    ]
    assert not system.exists() and not broken.exists()


# ---- digests -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("cache")
def test_a_digest_is_computed_once_and_again_for_a_changed_file() -> None:
    image, said = publish("mine", "a"), list[str]()
    first = find_digests(list_packed()[0], said.append)
    assert first["tree"] == image.digest
    assert first["ext4-raw"].startswith("sha256:") and len(first["ext4-raw"]) == 71
    assert find_digests(list_packed()[0], said.append) == first
    assert said == ["mine: digest of ext4-raw"]
    (image.folder / "disk.raw").write_bytes(b"other")
    assert find_digests(list_packed()[0], said.append)["ext4-raw"] != first["ext4-raw"]
    assert len(said) == 2


@pytest.mark.usefixtures("cache")
def test_a_layout_has_the_digest_of_its_manifest_and_a_damaged_record_is_made_anew() -> None:
    image = publish("mine", "a")
    layout = image.folder / "oci-gzip"
    layout.mkdir()
    (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": "sha256:m"}]}))
    item = replace(list_packed()[0], packings=(Packing("oci-gzip", layout, 1, 1),))
    (image.folder / "digests.json").write_text("[]")
    assert find_digests(item, lambda _: None) == {"oci-gzip": "sha256:m"}


def test_the_size_of_the_disk_is_in_the_head_of_a_qcow2_file(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"QFI\xfb" + bytes(20) + (5 << 30).to_bytes(8, "big"))
    (tmp_path / "memory").write_bytes(b"LibvirtQemudSave" * 4)
    assert find_virtual(tmp_path / "disk") == 5 << 30
    assert find_virtual(tmp_path / "memory") is None


def test_the_mark_of_use_is_no_part_of_an_image() -> None:
    assert MARK.startswith(".")
