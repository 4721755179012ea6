"""An image's own workload from options, and what runs in an instance."""

from pathlib import Path

import pytest

from harness.errors import InputError
from harness.images.catalog import locate_source, name_source
from harness.images.importer_user import resolve_user
from harness.images.model import Image, ImageConfig, Packing
from harness.launch import build_launch
from harness.one_line import build_own_workloads, build_request, split_command, take_own_options
from harness.workloads import Workload

PASSWD = (
    "# users\nroot:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n1000:x:5:5::/:/x\nbad:x:y\n"
)
GROUP = "root:x:0:\nlogs:x:44:web,other\nadm:x:4:web\nwheel:x:10:root\n"


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("", "0:0,10"),
        ("root", "0:0,10"),
        ("web", "33:34,4,44"),
        ("33", "33:34,4,44"),
        ("web:", "33:34,4,44"),
        ("web:logs", "33:44"),
        ("web:99", "33:99"),
        ("7", "7:0"),
        ("7:logs", "7:44"),
        ("7:8", "7:8"),
        ("1000", "5:5"),
    ],
)
def test_a_user_is_looked_up_in_the_images_own_files(text: str, identity: str) -> None:
    assert resolve_user(text, PASSWD, GROUP).identity == identity


@pytest.mark.parametrize("text", ["nobody", "web:nogroup", "bad", "-1", "5000000000", "\u0663"])
def test_an_unknown_user_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not in the image's /etc/"):
        resolve_user(text, PASSWD, GROUP)


# ---- from the options


def test_the_options_make_a_workload_of_each_image() -> None:
    own = take_own_options(
        {"images": ("a.b", "c"), "ready": "tcp:80", "request": "/x", "command": "sh -c 'a b'"}
    )
    one, other = build_own_workloads(own, ("a.b", "c"))
    assert (one.name, one.image, other.name) == ("a-b", "a.b", "c")
    assert (one.ready, one.request) == ("tcp:80", "http://:80/x")
    assert one.command == ("sh", "-c", "a b")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ready": "exit"}, "--ready needs --image"),
        ({"images": ("a",), "command": "x"}, "--command needs --ready"),
        ({"images": ("a",), "request": "/", "workloads": ("noop",)}, "--workload names another"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        take_own_options(options)


def test_wrong_options_are_one_line() -> None:
    with pytest.raises(InputError, match="--ready: 'soon' is no readiness condition"):
        build_own_workloads({"ready": "soon"}, ("a",))
    with pytest.raises(InputError, match="no port to ask at"):
        build_request("/", "exit")
    with pytest.raises(InputError, match="No closing quotation"):
        split_command("sh 'x")
    with pytest.raises(InputError, match="--command is empty"):
        split_command(" ")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("docker://nginx:alpine", "nginx-alpine"),
        ("docker://127.0.0.1:5000/a/B_c:1", "127-0-0-1-5000-a-b-c-1"),
        ("./some/Root.tar.gz", "root-tar-gz"),
        ("docker://tiny", "tiny-"),
    ],
)
def test_a_source_gives_a_name(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    found = name_source(source)
    assert found == name or (name.endswith("-") and found.startswith(name))


def test_a_relative_source_is_another_one_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    for source in ("root", "./root/", str(tmp_path / "root"), "root/../root"):
        assert locate_source(source) == str(tmp_path / "root")
    assert locate_source("a:b") == str(tmp_path / "a:b")
    assert locate_source("gone") == str(tmp_path / "gone")
    assert locate_source("oci:root:1") == f"oci:{tmp_path}/root:1"
    for reference in ("docker://debian:12", "containers-storage:debian", "docker-daemon:x:1"):
        assert locate_source(reference) == reference
    monkeypatch.chdir("/")
    assert locate_source("root") == "/root"


# ---- the workload over its image


def build_image(config: ImageConfig | None, tree: Path = Path("/nowhere")) -> Image:
    return Image("mine", "sha256:0", Path("/i"), {"tree": Packing("tree", tree, 1, 1)}, config)


CONFIG = ImageConfig(
    entrypoint=("serve",), command=("-p", "80"), environment={"A": "image", "B": "image"},
    directory="/srv", user="web", identity="33:34", home="/home/web",
)  # fmt: skip


def test_an_image_gives_what_the_workload_does_not_state() -> None:
    launch = build_launch(Workload("x", "mine", (), "exit", 1.0), build_image(CONFIG))
    assert launch.command == ("serve", "-p", "80")
    assert launch.environment == {"HOME": "/home/web", "A": "image", "B": "image"}
    assert (launch.directory, launch.user) == ("/srv", "33:34")


def test_what_the_workload_states_wins(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    workload = Workload(
        "x", "mine", ("own",), "exit", 1.0, environment={"A": "own"}, directory="/", user="root"
    )
    launch = build_launch(workload, build_image(CONFIG, tmp_path))
    assert launch.command == ("own",)
    assert launch.environment == {"HOME": "/root", "A": "own", "B": "image"}
    assert (launch.directory, launch.user) == ("/", "0:0")


def test_nothing_is_added_to_images_without_a_configuration() -> None:
    launch = build_launch(Workload("x", "mine", ("a",), "exit", 1.0), build_image(None))
    assert (launch.environment, launch.directory, launch.user) == ({}, "/", None)


def test_an_image_without_a_command_is_an_error_that_says_so() -> None:
    with pytest.raises(InputError, match="the image mine has no command of its own"):
        build_launch(Workload("x", "mine", (), "exit", 1.0), build_image(None))


def test_an_image_with_an_unknown_user_is_an_error_that_says_so() -> None:
    config = ImageConfig(command=("a",), user="ghost", identity="")
    with pytest.raises(InputError, match="wants to run as 'ghost'"):
        build_launch(Workload("x", "mine", (), "exit", 1.0), build_image(config))
