"""Rebuilds for real: buildah's cache in good and in bad order, and a disk that is updated."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HostError
from harness.images.catalog import require_image
from harness.paths import scratch_root
from harness.process import run_command
from harness.rebuild import layers
from harness.rebuild.cases import Case, ScheduledCase
from harness.rebuild.material import require_packages
from harness.rebuild.trials import MARK, prepare_site, run_case
from harness.units import parse_size
from tests.integration.laboratory import run_in_lab

CASES = (
    Case("code", "good"), Case("code", "bad"), Case("code", "good"), Case("code", "update"),
    Case("dependency", "update"),
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)  # the base is pulled twice and built twice first

needs_buildah = pytest.mark.skipif(layers.find_reason() is not None, reason="no buildah")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The outcomes of CASES, and what a check of each updated disk says, as JSON has them."""
    image = require_image("python", print)
    packages = require_packages(image, print)

    def measure(run_id: str) -> list[Any]:
        folder = scratch_root() / run_id / ".hidden"  # as the cache in a home directory is
        folder.mkdir(parents=True)
        site = prepare_site(image, packages, folder, print)
        return [asdict(run_case(ScheduledCase(0, number, number, case), site, folder / "logs"))
                for number, case in enumerate(CASES)]  # fmt: skip

    found: list[Any] = run_in_lab(measure, tmp_path_factory.mktemp("layers"))
    return found


def find_value(outcome: Any, metric: str, packing: str = "") -> float:
    values = [float(row["value"]) for row in outcome["measurements"]
              if row["metric"] == metric and row["phase"].endswith(packing)]  # fmt: skip
    assert values, outcome["error"]
    return values[0]


@needs_buildah
def test_in_good_order_new_code_ships_less_and_the_cache_says_so(rebuilt: list[Any]) -> None:
    good, bad = rebuilt[0], rebuilt[1]
    assert (good["status"], bad["status"]) == ("ok", "ok"), (good["error"], bad["error"])
    assert good["details"]["rebuild"] == {"steps": 4, "cached": 2, "expected": 2}
    assert bad["details"]["rebuild"] == {"steps": 3, "cached": 0, "expected": 0}
    assert MARK not in good["marks"] + bad["marks"]
    for packing in ("oci-gzip", "oci-zstd"):
        less, more = (find_value(each, "rebuild.shipped", packing) for each in (good, bad))
        assert 20 * less < more
    assert len(good["details"]["new_layers"]) == 1
    assert len(bad["details"]["new_layers"]) == 2
    # what was written is counted before compression
    assert find_value(bad, "rebuild.bytes") > 2 * find_value(bad, "rebuild.shipped")


@needs_buildah
def test_every_rebuild_starts_from_the_same_warm_cache(rebuilt: list[Any]) -> None:
    assert [each["details"]["warm"] for each in rebuilt[:3]] == [
        {"steps": 4, "cached": 4}, {"steps": 3, "cached": 3}, {"steps": 4, "cached": 4},
    ]  # fmt: skip
    first, again = (find_value(rebuilt[number], "rebuild.bytes") for number in (0, 2))
    assert first == pytest.approx(again, rel=0.01)


@needs_buildah
def test_an_updated_disk_ships_its_changed_blocks(rebuilt: list[Any]) -> None:
    code, dependency = rebuilt[3], rebuilt[4]
    assert (code["status"], dependency["status"]) == ("ok", "ok")
    assert 0 < find_value(code, "rebuild.shipped", "overlay-zstd") < parse_size("1MiB")
    assert code["details"]["changed_blocks"] < dependency["details"]["changed_blocks"]


def test_without_buildah_one_line_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError) as error:
        layers.require_buildah()
    assert str(error.value) == "rebuild: buildah is not installed (install the package buildah)"


@needs_buildah
def test_a_build_that_fails_is_told_in_its_own_last_words(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()

    def build(run_id: str) -> str:
        from harness.errors import TrialError
        from harness.rebuild.recipe import Version

        folder = scratch_root() / run_id
        folder.mkdir(parents=True)
        builder = layers.Builder(folder, packages)
        try:
            builder.build("good", Version("1", ("none.deb",)), "broken")
        except TrialError as error:
            return error.message
        return ""

    message: str = run_in_lab(build, tmp_path)
    assert message.startswith("buildah build failed: ")
    assert "localhost/base:1" in message


def test_a_disk_that_debugfs_updated_is_sound_and_has_the_files(tmp_path: Path) -> None:
    from harness.images.pack import write_ext4
    from harness.rebuild.disks import update_disk, write_overlay

    tree, upper = tmp_path / "tree", tmp_path / "upper"
    for path, text in (("srv/app/app.py", "old"), ("etc/keep", "kept"), ("srv/gone", "x")):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    for path, text in (("srv/app/app.py", "new" * 50_000), ("srv/more/a b", "added")):
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).write_text(text)
    (upper / "srv/more/link").symlink_to("a b")
    before, after = tmp_path / "before.raw", tmp_path / "after.raw"
    write_ext4(tree, before, f"sha256:{'0' * 64}", 10, 1000)
    update_disk(before, upper, after)
    assert run_command(["/sbin/e2fsck", "-f", "-n", after], timeout=60, check=False).returncode == 0
    for path, size in (("/srv/app/app.py", 150_000), ("/srv/more/a b", 5), ("/etc/keep", 4)):
        shown = run_command(["/sbin/debugfs", "-R", f'stat "{path}"', after], timeout=60).stdout
        assert f"Size: {size}" in shown
    overlay = tmp_path / "overlay.qcow2"
    write_overlay(before, after, overlay)
    compare: list[str | Path] = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", overlay, after]
    assert run_command(compare, timeout=60, check=False).returncode == 0
    assert overlay.stat().st_size < before.stat().st_size // 10
