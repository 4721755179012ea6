"""What can be found in the cache is whole; what is half built never is."""

from pathlib import Path

import pytest

from harness.errors import HostError, InputError
from harness.images import catalog, store
from harness.images.model import Image, Packing
from harness.images.pack import build_mke2fs, size_ext4
from harness.images.rooted import build_rooted, count_ids
from harness.images.workshop import require_space, start_work
from harness.process import run_command

INPUTS = {"agent": "1"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def say_nothing(_: str) -> None:
    pass


def publish(name: str, digest: str, *, replace_same: bool = False) -> Image:
    with start_work(store.images_dir() / name, say_nothing) as folder:
        built = folder / "image"
        (built / "tree").mkdir(parents=True)
        packing = Packing("tree", built / "tree", 1, 4096)
        image = Image(name, f"sha256:{digest * 64}", built, {"tree": packing})
        return store.publish(store.Record(image, "import", INPUTS), replace_same).image


def test_a_published_image_is_found_where_it_says() -> None:
    image = publish("mine", "a")
    found = store.find_record("mine")
    assert found is not None and found.image == image
    assert image.tree == store.images_dir() / "mine" / ("a" * 12) / "tree"
    assert [known.name for known in catalog.list_images()] == ["mine"]


def test_the_newest_digest_is_current_and_the_older_is_outdated() -> None:
    older, newer = publish("mine", "a"), publish("mine", "b")
    found = store.find_record("mine")
    assert found is not None and found.image == newer
    assert store.list_folders("mine") == [older.folder, newer.folder]


def test_the_same_digest_again_leaves_the_files_that_instances_run_from() -> None:
    mark = publish("mine", "a").tree / "mark"
    mark.touch()
    publish("mine", "a")
    assert mark.exists()
    publish("mine", "a", replace_same=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    "words",
    [
        "tar: ./a: Cannot write: No space left on device\ntar: Exiting with failure status",
        "tar: ./a: Wrote only 1024 of 10240 bytes\ntar: Exiting with failure status",
        "mke2fs: No space left on device while populating file system",
    ],
)
def test_a_tool_that_finds_the_disk_full_gives_the_reason_and_the_remedy(words: str) -> None:
    with (
        pytest.raises(HostError, match=r"^mine cannot be built in .*: no space left") as caught,
        start_work(store.images_dir() / "mine", say_nothing),
    ):
        run_command(["sh", "-c", 'echo "$1" >&2; exit 2', "sh", words], timeout=10)
    assert caught.value.hint is not None and "HARNESS_CACHE" in caught.value.hint


def test_a_tool_that_fails_otherwise_keeps_its_own_words() -> None:
    with (
        pytest.raises(HostError, match=r"^sh ended with 2: broken pipe$"),
        start_work(store.images_dir() / "mine", say_nothing),
    ):
        run_command(["sh", "-c", "echo one; echo broken pipe >&2; exit 2"], timeout=10)


@pytest.mark.parametrize("damage", ["no record", "no packing", "cut record", "other version"])
def test_a_half_built_image_is_not_found(damage: str) -> None:
    image = publish("mine", "a")
    record = image.folder / "image.json"
    if damage == "no record":
        record.unlink()
    elif damage == "no packing":
        image.tree.rmdir()
    elif damage == "cut record":
        record.write_text(record.read_text()[:50])
    else:
        record.write_text(record.read_text().replace('"version": 1', '"version": 2'))
    assert store.find_record("mine") is None
    assert catalog.list_images() == []


def test_what_a_dead_build_left_is_removed_by_the_next() -> None:
    parent = store.images_dir() / "mine"
    (parent / ".build-dead" / "image").mkdir(parents=True)
    assert catalog.list_images() == []
    with start_work(parent, say_nothing) as folder:
        assert [path.name for path in parent.glob(".build-*")] == [folder.name]
    assert not list(parent.glob(".build-*"))


def test_an_unknown_image_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'python'"):
        catalog.require_image("pyhton", say_nothing)


@pytest.mark.parametrize("name", ["", "Tiny", "../up", "tiny", "a b"])
def test_an_import_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(InputError):
        catalog.import_image("/", name, say_nothing)


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    with (
        pytest.raises(HostError, match="cannot be built"),
        start_work(store.images_dir() / "mine", say_nothing),
    ):
        pass


def test_a_disk_without_room_is_refused_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="free, and building needs"):
        require_space(tmp_path, 1 << 60)
    require_space(tmp_path, 1)


def test_only_a_user_who_is_not_root_needs_a_user_namespace() -> None:
    assert "--map-auto" not in build_rooted(["true"], root=True)
    assert "--map-auto" in build_rooted(["true"], root=False)
    assert build_rooted(["true"], root=True)[:3] == ["setpriv", "--pdeathsig", "KILL"]


def test_ids_of_a_map_are_counted() -> None:
    assert (
        count_ids("         0       1000          1\n         1     100000      65535\n") == 65536
    )


def test_a_disk_has_room_for_its_files_and_64_mib_more() -> None:
    size, inodes = size_ext4(files=1000, apparent=100 << 20)
    assert size >= (100 << 20) * 1.2 + (64 << 20)
    assert size % (1 << 20) == 0
    assert inodes >= 1000 * 1.2


def test_a_file_system_gets_its_ids_from_the_digest() -> None:
    one = build_mke2fs(Path("tree"), Path("out"), "sha256:1", 10)
    assert one == build_mke2fs(Path("tree"), Path("out"), "sha256:1", 10)
    assert one != build_mke2fs(Path("tree"), Path("out"), "sha256:2", 10)
