"""Images from elsewhere, end to end: from a registry to a run, alike everywhere, or refused."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, HostError, InputError
from harness.images import store
from harness.images.bootable import require_disk
from harness.images.catalog import export_image, import_image
from harness.images.model import GuestKernel, Image, Programs
from harness.launch import build_launch
from harness.one_line import require_sources
from harness.workloads import Workload
from tests.integration.docker_rig import Bench
from tests.integration.import_rig import (
    CAPABILITY,
    Member,
    build_tar,
    find_layer,
    join_layouts,
    member,
    push,
    read_layer,
    start_breaking_proxy,
    start_registry,
    write_image,
    write_saved,
)
from tests.integration.laboratory import look_inside, run_in_lab
from tests.integration.machines import Parts
from tests.integration.test_run import read_outcomes, run_harness

pytestmark = pytest.mark.timeout(300)

FOLDER, LINK, SYMLINK = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
CONFIG = {
    "Entrypoint": ["busybox", "httpd", "-f", "-p", "8080"],
    "Cmd": ["-h", "/srv/www"],
    "Env": ["PATH=/bin:/usr/bin", "GREETING=from the image", "ODD=a=b", "EMPTY="],
    "WorkingDir": "/srv/app/deep",
    "User": "web",
}
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:1001:1002:web:/home/web:/bin/sh\n"
GROUP = b"root:x:0:\nweb:x:1002:\nlogs:x:44:web\ndisk:x:6:web,other\nother:x:77:\n"


def say_nothing(_: str) -> None:
    pass


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


ABLE = "/usr/bin/busybox-able"
"""A program that may bind low ports whoever runs it, by a file capability."""


def find_busybox(image: Image) -> bytes:
    paths = (image.tree / name for name in ("usr/bin/busybox", "bin/busybox"))
    return next(path for path in paths if path.is_file()).read_bytes()


@pytest.fixture(scope="module")
def layers(tiny_image: Image) -> list[bytes]:
    """Busybox below, and above it a page, users, and a file that hides one below."""
    app = [
        member("etc/passwd", PASSWD),
        member("etc/group", GROUP),
        member("etc/.wh.hosts"),
        member("srv/www", kind=FOLDER, mode=0o755),
        member("srv/www/index.html", b"up\n"),
        member(ABLE[1:], find_busybox(tiny_image), mode=0o755,
               xattrs={"security.capability": CAPABILITY}),
    ]  # fmt: skip
    return [build_tar(read_layer(tiny_image.tree)), build_tar(app)]


@pytest.fixture(scope="module")
def app(layers: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The same as a `docker save` archive, imported."""
    folder = tmp_path_factory.mktemp("saved")
    saved = write_saved(folder / "app.tar", layers, CONFIG)
    return import_image(str(saved), "test-app", say_nothing)


# ---- one line, from a registry ---------------------------------------------------------------


def test_a_reference_becomes_a_run_in_one_line(
    layers: list[bytes], guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    layout = write_image(tmp_path / "layout", layers, CONFIG)
    with start_registry(tmp_path) as (port, _):
        reference = push(layout, port, "test/app:1")
        platforms = ("--platform", "namespace", "--platform", "vm-direct")
        words = ("--ready", "tcp:8080", "--request", "/index.html", "--blocks", "1")
        out = tmp_path / "out"
        done = run_harness("run", "--image", reference, *words, *platforms, "--out", str(out))
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(out)
    assert {each["platform"] for each in outcomes} >= {"namespace", "vm-direct"}
    assert [each["error"] for each in outcomes if each["status"] != "ok"] == []
    assert all("response" in each["milestones"] for each in outcomes if each["milestones"])
    name = f"127-0-0-1-{port}-test-app-1"
    (found,) = json.loads((out / "manifest.json").read_text())["parity"][name]
    assert (found["platforms"], found["differing"]) == (["namespace", "vm-direct"], 0)
    assert "from inside" in (out / "report.md").read_text()


def test_the_image_is_kept_with_its_configuration(app: Image) -> None:
    assert app.config is not None and app.imported
    assert app.config.argv == ("busybox", "httpd", "-f", "-p", "8080", "-h", "/srv/www")
    assert app.config.identity == "1001:1002,6,44"
    assert app.config.home == "/home/web"
    assert not (app.tree / "etc/hosts").exists()
    listed = json.loads(run_harness("images", "list", "--json").stdout)
    assert any((each["config"] or {}).get("user") == "web" for each in listed)


# ---- alike everywhere ------------------------------------------------------------------------

SCRIPT = "id; pwd; env | sort; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status; echo >/dev/stderr"


@pytest.fixture(scope="module")
def expected(app: Image, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return look_inside(
        "namespace", app, programs, tmp_path_factory.mktemp("n"), SCRIPT, **words(app)
    )


def words(image: Image) -> dict[str, Any]:
    launch = build_launch(Workload("look", image.name, ("sh", "-c", SCRIPT), "exit", 30.0), image)
    return {
        "environment": dict(launch.environment),
        "directory": launch.directory,
        "user": launch.user,
    }


def test_user_folder_and_environment_are_the_images_own(expected: list[str]) -> None:
    assert expected[0] == "uid=1001(web) gid=1002(web) groups=6(disk),44(logs)"
    assert expected[1] == "/srv/app/deep"
    assert {"GREETING=from the image", "ODD=a=b", "EMPTY=", "HOME=/home/web"} <= set(expected)
    assert [line for line in expected if line.startswith("Cap")] == [
        f"Cap{each}:\t0000000000000000" for each in ("Inh", "Prm", "Eff", "Amb")
    ]


@pytest.mark.parametrize("platform", ["process", "crun", "runc", "podman", "gvisor"])
def test_containers_honour_it_alike(
    platform: str, app: Image, programs: Programs, tmp_path: Path, expected: list[str]
) -> None:
    found = look_inside(platform, app, programs, tmp_path, SCRIPT, **words(app))
    told = [line for line in expected if platform != "gvisor" or not line.startswith("CapAmb")]
    assert without_shell(found) == without_shell(told)  # gVisor's kernel has no ambient ones


@pytest.mark.parametrize("platform", ["process", "namespace", "crun", "runc", "podman", "lxc"])
def test_file_capabilities_have_their_effect(
    platform: str, app: Image, programs: Programs, tmp_path: Path
) -> None:
    script = f"{ABLE} grep CapEff /proc/self/status"
    found = look_inside(platform, app, programs, tmp_path, script, **words(app))
    assert found == ["CapEff:\t0000000000000400"]  # CAP_NET_BIND_SERVICE, for user 1001


def test_docker_honours_it_alike(
    app: Image, programs: Programs, tmp_path: Path, expected: list[str]
) -> None:
    def look(run_id: str) -> str:
        changes = {"command": ("sh", "-c", SCRIPT), **words(app)}
        with (
            Bench(app, programs, run_id, None) as bench,
            bench.instance("one", **changes) as instance,
        ):
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    found = run_in_lab(look, tmp_path).splitlines()
    assert without_shell(found) == without_shell(expected)


@pytest.mark.parametrize("platform", ["vm-direct", "vm-disk"])
def test_a_guest_honours_it_alike(
    platform: str,
    app: Image,
    programs: Programs,
    guest_kernel: GuestKernel,
    tmp_path: Path,
    expected: list[str],
) -> None:
    parts = Parts(app, programs, guest_kernel)
    if platform == "vm-disk":
        require_disk(app, print)

    def look(run_id: str) -> str:
        changes = {"command": ("sh", "-c", SCRIPT), **words(app)}
        with parts.start(platform, run_id, timeout=90.0, **changes) as instance:
            instance.stop()
            output: str = instance.channel.output.decode()
            return output

    assert without_shell(run_in_lab(look, tmp_path).splitlines()) == without_shell(expected)


def without_shell(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("SHLVL=")]


@pytest.mark.parametrize("packing", ["oci-zstd", "oci-gzip"])
def test_an_exported_layout_keeps_the_configuration(
    packing: str, app: Image, tmp_path: Path
) -> None:
    before = (app.packings[packing].path / "index.json").read_text()
    out = export_image(app.name, packing, tmp_path / "out", say_nothing)
    for source in (str(out), f"oci:{out}:latest"):
        again = import_image(source, "test-app-again", say_nothing)
        assert (again.config, again.digest) == (app.config, app.digest)
    assert len(list((out / "blobs/sha256").iterdir())) == 3
    assert (app.packings[packing].path / "index.json").read_text() == before
    inspect = ["skopeo", "inspect", "--config", f"oci:{out}:latest"]
    shown = json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)
    assert shown["config"] == {**CONFIG, "Env": shown["config"]["Env"]}
    assert set(shown["config"]["Env"]) == set(CONFIG["Env"])


# ---- bad input -------------------------------------------------------------------------------

EVIL: dict[str, list[Member]] = {
    "dots": [member("a/../../evil")],
    "absolute": [member("/evil")],
    "hard link out": [member("evil", kind=LINK, linkname="../../etc/shadow")],
    "hard link to nothing": [member("evil", kind=LINK, linkname="etc/not-there")],
    "through a link": [
        member("up", kind=SYMLINK, linkname="../../.."), member("up/evil", b"x"),
    ],
    "hard link through a link": [
        member("up", kind=SYMLINK, linkname=".."), member("evil", kind=LINK, linkname="up/etc/x"),
    ],
    "below a file": [member("etc/passwd", b""), member("etc/passwd/evil")],
    "no tar": [],
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_a_layer_that_climbs_out_is_refused(name: str, own_cache: Path, tmp_path: Path) -> None:
    layer = build_tar(EVIL[name]) if EVIL[name] else b"neither here nor there" * 100
    layout = write_image(tmp_path / "layout", [build_tar([member("etc/x", b"1")]), layer])
    assert_refused(layout, own_cache, "layer 2 of 2" if name == "no tar" else "")


def test_an_absolute_link_stays_within_the_root(own_cache: Path, tmp_path: Path) -> None:
    layer = [member("evil", kind=SYMLINK, linkname="/etc"), member("evil/inside", b"x")]
    layout = write_image(tmp_path / "layout", [build_tar(layer)])
    image = import_image(str(layout), "linked", say_nothing)
    assert (image.tree / "etc/inside").read_bytes() == b"x"
    assert not Path("/etc/inside").exists()


def test_a_relative_source_is_what_it_means_in_this_folder(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder / "root").mkdir(parents=True)
        (tmp_path / folder / "root/name").write_text(folder)
    monkeypatch.chdir(tmp_path / "one")
    (one,) = require_sources(["./root"], say_nothing, dry=False)
    assert require_sources(["./root"], say_nothing, dry=False) == (one,)
    monkeypatch.chdir(tmp_path / "other")
    (other,) = require_sources(["./root"], say_nothing, dry=False)
    found = [store.find_record(name) for name in (one, other)]
    assert [(each.image.tree / "name").read_text() for each in found if each] == ["one", "other"]
    assert require_sources([f"{tmp_path}/one/root"], say_nothing, dry=False) == (one,)


LINKED = [
    member("run", kind=FOLDER, mode=0o755),
    member("var/run", kind=SYMLINK, linkname="/run"),
    member("etc/file", b""),
]


@pytest.mark.parametrize(
    ("directory", "found"),
    [("/srv//app/", "/srv/app"), ("/var/run/app", "/run/app"), ("/../../etc/../x", "/x")],
)
def test_the_working_directory_is_where_it_leads(
    directory: str, found: str, own_cache: Path, tmp_path: Path
) -> None:
    config = {"WorkingDir": directory, "Cmd": ["true"]}
    layout = write_image(tmp_path / "layout", [build_tar(LINKED)], config)
    image = import_image(str(layout), "where", say_nothing)
    assert (image.tree / found[1:]).is_dir()
    assert build_launch(Workload("w", "where", (), "exit", 9.0), image).directory == found
    assert (image.tree / "var/run").is_symlink()


def test_a_working_directory_below_a_file_is_refused(own_cache: Path, tmp_path: Path) -> None:
    config = {"WorkingDir": "/etc/file/x"}
    layout = write_image(tmp_path / "layout", [build_tar(LINKED)], config)
    assert_refused(layout, own_cache, "WorkingDir '/etc/file/x'")


def cut(layout: Path) -> None:
    blob = find_layer(layout)
    blob.write_bytes(blob.read_bytes()[:-100])


def change(layout: Path) -> None:
    blob = find_layer(layout)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


def remove(layout: Path) -> None:
    find_layer(layout).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (cut, "does not match its digest"),
    "changed": (change, "does not match its digest"),
    "missing": (remove, "is not whole"),
    "no index": (lambda layout: (layout / "index.json").unlink(), "is not whole"),
    "no JSON": (lambda layout: (layout / "index.json").write_text("{"), "not a whole OCI layout"),
    "no list": (lambda layout: (layout / "index.json").write_text("[]"), "not a whole OCI layout"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_layout_is_refused(name: str, own_cache: Path, tmp_path: Path) -> None:
    harm, reason = DAMAGE[name]
    layout = write_image(tmp_path / "layout", [build_tar([member("a", os.urandom(5000))])])
    harm(layout)
    assert_refused(layout, own_cache, reason)


def test_a_saved_layer_that_is_not_what_it_says_is_refused(own_cache: Path, tmp_path: Path) -> None:
    layers = [build_tar([member("a", b"x")])]
    saved = write_saved(tmp_path / "saved.tar", layers, {}, broken=True)
    assert_refused(saved, own_cache, "does not match its digest")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"digests": [f"sha256:{'1' * 64}"]}, "layer 1 of 1, unpacked, does not match its digest"),
        ({"digests": ["sha256:1"]}, "no digest that can be checked"),
        ({"digests": []}, "has 1 layers, and its configuration names 0"),
        ({"excess": 1}, "bytes, and its descriptor says"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(
    faults: dict[str, Any], reason: str, own_cache: Path, tmp_path: Path
) -> None:
    layout = write_image(tmp_path / "layout", [build_tar([member("a", b"x")])], **faults)
    assert_refused(layout, own_cache, reason)


def test_another_architecture_is_refused(own_cache: Path, tmp_path: Path) -> None:
    layers = [build_tar([member("a", b"x")])]
    layout = write_image(tmp_path / "layout", layers, architecture="arm64")
    assert_refused(layout, own_cache, "linux/arm64, and this harness runs linux/amd64")


def test_a_layout_of_several_images_must_be_told_which(own_cache: Path, tmp_path: Path) -> None:
    made = {
        tag: write_image(tmp_path / tag, [build_tar([member("tag", tag.encode())])])
        for tag in ("1.0", "2.0")
    }
    both = join_layouts(tmp_path / "both", made)
    assert_refused(both, own_cache, "holds 2 images for linux/amd64: 1.0, 2.0")
    with pytest.raises(InputError, match=f"oci:{both}:TAG"):
        import_image(str(both), "bad", say_nothing)
    run_shell("tar -cf both.tar -C both .", tmp_path)
    with pytest.raises(InputError, match=f"oci-archive:{both}.tar:TAG"):
        import_image(f"{both}.tar", "bad", say_nothing)
    for source in (f"oci:{both}:2.0", f"oci-archive:{both}.tar:2.0"):
        image = import_image(source, "chosen", say_nothing)
        assert (image.tree / "tag").read_text() == "2.0"
    twice = join_layouts(tmp_path / "twice", {"1.0": made["1.0"], "latest": made["1.0"]})
    image = import_image(str(twice), "chosen", say_nothing)
    assert (image.tree / "tag").read_text() == "1.0"


@pytest.mark.parametrize("kind", ["gzip layer", "zstd archive", "sparse file"])
def test_a_bomb_is_stopped_at_the_limit(kind: str, own_cache: Path, tmp_path: Path) -> None:
    if kind == "gzip layer":
        blown = build_tar([member("zeros", bytes(64 << 20))])
        source = write_image(tmp_path / "layout", [blown])
    else:
        source = tmp_path / "bomb.tar"
        with source.open("wb") as file:
            file.truncate(64 << 20)
        command = "zstd -q --rm bomb.tar && mv bomb.tar.zst bomb.tar"
        if kind == "sparse file":
            command = "mkdir d && mv bomb.tar d/ && tar -C d -Scf bomb.tar ."
        run_shell(command, tmp_path)
    assert source.is_dir() or source.stat().st_size < 1 << 20
    begun = time.monotonic()
    assert_refused(source, own_cache, "holds more than 8 MiB", limit=8 << 20)
    assert time.monotonic() - begun < 5


def test_a_reference_beyond_the_limit_is_told_of_it(own_cache: Path, tmp_path: Path) -> None:
    large = build_tar([member("a", os.urandom(4 << 20))])
    layout = write_image(tmp_path / "layout", [large])
    reference = f"oci:{layout}"
    assert_refused(reference, own_cache, "holds more than 1 MiB", limit=1 << 20)


def run_shell(command: str, folder: Path) -> None:
    subprocess.run(["sh", "-c", command], cwd=folder, check=True, timeout=60)


def test_a_reference_that_does_not_resolve_is_one_line(own_cache: Path, tmp_path: Path) -> None:
    with start_registry(tmp_path) as (port, _):
        assert_refused(f"docker://127.0.0.1:{port}/no/such:1", own_cache, "manifest unknown")
    assert_refused(f"docker://127.0.0.1:{port}/no/such:1", own_cache, "connection refused")


def test_a_registry_that_dies_in_mid_pull_leaves_nothing(own_cache: Path, tmp_path: Path) -> None:
    layout = write_image(tmp_path / "layout", [build_tar([member("a", os.urandom(8 << 20))])])
    with start_registry(tmp_path) as (port, process):
        push(layout, port, "app:1")
        with start_breaking_proxy(port, process, after=2 << 20) as proxy:
            assert_refused(f"docker://127.0.0.1:{proxy}/app:1", own_cache, "")
        assert process.wait(10) == -9


@pytest.mark.parametrize("size", ["40m", "62m", "100m"], ids=["tree", "layout", "disk"])
def test_a_full_disk_is_one_line_and_the_cache_stays_sound(size: str, tmp_path: Path) -> None:
    layer = build_tar([member("a", os.urandom(30 << 20))])
    layout = write_image(tmp_path / "layout", [layer])
    (tmp_path / "cache").mkdir()
    command = (
        f"mount -t tmpfs -o size={size} tmpfs {tmp_path}/cache && cd {os.getcwd()} && "
        f"{sys.executable} -m harness images import {layout} --name full; "
        f"echo code $?; find {tmp_path}/cache/images -name image.json -o -name '.build-*'"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        env={**os.environ, "HARNESS_CACHE": str(tmp_path / "cache"), "HARNESS_DEBUG": ""},
        capture_output=True, text=True, timeout=360, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["code 3"], done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "no space left on the disk (free some" in errors[0], done.stderr


def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(
    app: Image, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = (
        f"mount -t tmpfs -o size=100k tmpfs {small} && {sys.executable} -m harness images export "
        f"{app.name} --out {small}/out; echo code $?; ls {small}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["code 3"], done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{small}/out cannot be written: no space left on the disk (name a" in line


def test_a_failed_import_spares_the_image_that_is_there(own_cache: Path, tmp_path: Path) -> None:
    good = write_image(tmp_path / "good", [build_tar([member("a", b"x")])])
    before = import_image(str(good), "kept", say_nothing)
    bad = write_image(tmp_path / "bad", [build_tar([member("a", os.urandom(5000))])])
    cut(bad)
    with pytest.raises(InputError):
        import_image(str(bad), "kept", say_nothing)
    record = store.find_record("kept")
    assert record is not None and record.image.digest == before.digest


def assert_refused(source: Path | str, cache: Path, reason: str, **options: Any) -> None:
    """One line, naming the source; nothing of it is left in the cache, and nothing was outside."""
    with pytest.raises(HarnessError) as caught:
        import_image(str(source), "bad", say_nothing, **options)
    assert "\n" not in str(caught.value)
    assert str(source) in caught.value.message
    assert reason in caught.value.message
    assert not isinstance(caught.value, HostError) or "space" in reason
    assert store.find_record("bad") is None
    left = [each for each in (cache / "images/bad").iterdir() if each.name != ".lock"]
    assert left == []
    assert not list(cache.rglob("evil"))


# ---- speed and sameness ----------------------------------------------------------------------


def test_two_imports_give_the_same_bytes(
    layers: list[bytes], own_cache: Path, tmp_path: Path
) -> None:
    layout = write_image(tmp_path / "layout", layers, CONFIG)
    one = import_image(str(layout), "one", say_nothing)
    other = import_image(str(layout), "other", say_nothing)
    assert one.digest == other.digest
    for name in ("ext4-raw", "qcow2", "raw-zstd"):
        assert digest(one.packings[name].path) == digest(other.packings[name].path), name
    indexes = [each.packings["oci-zstd"].path / "index.json" for each in (one, other)]
    assert indexes[0].read_text() == indexes[1].read_text()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
