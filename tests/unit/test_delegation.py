"""Where a run's control groups may be, from what the kernel says of this process."""

from pathlib import Path

import pytest

from harness import cgroup, delegation
from harness.delegation import locate, parse_membership, parse_mount_root
from harness.errors import HostError

MOUNT = Path("/sys/fs/cgroup")
V2 = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope\n"
HYBRID = "12:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/init.scope\n0::/x\n"


@pytest.mark.parametrize(
    ("text", "controller", "path"),
    [
        (V2, "", "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope"),
        (HYBRID, "", "/x"),
        (HYBRID, "memory", "/docker/abc"),
        (HYBRID, "cpuacct", "/docker/abc"),
        (HYBRID, "systemd", "/init.scope"),
        (HYBRID, "blkio", None),
        ("0::/gone (deleted)\n", "", "/gone"),
    ],
)
def test_a_process_is_told_its_group(text: str, controller: str, path: str | None) -> None:
    assert parse_membership(text, controller) == path


def test_the_uppermost_of_mounts_over_each_other_counts() -> None:
    text = (
        "30 20 0:26 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
        "31 30 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
        "32 20 0:27 / /sys rw - sysfs sysfs rw\n"
    )
    assert parse_mount_root(text, MOUNT) == "/docker/abc"
    assert parse_mount_root("", MOUNT) == "/"


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/", "/", ""),
        ("/a/b", "/", "a/b"),
        ("/docker/abc", "/docker/abc", ""),
        ("/docker/abc/init", "/docker/abc", "init"),
        ("/docker/abcd", "/docker/abc", None),
        ("/../../system.slice", "/", None),
    ],
)
def test_a_group_is_found_below_its_mount_or_not_at_all(
    path: str, root: str, below: str | None
) -> None:
    assert locate(path, root) == below


def make_group(folder: Path, *, opened: bool = False, root: bool = False) -> Path:
    """A group as files, as the kernel shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.subtree_control").write_text("memory\n" if opened else "\n")
    (folder / "cgroup.procs").write_text("")
    if not root:
        (folder / "cgroup.type").write_text("domain\n")
    return folder


@pytest.mark.parametrize(
    ("top", "own", "base"),
    [
        ({"root": True}, "a.scope", ""),
        ({"opened": True}, "a.scope", ""),
        ({}, "a.scope", "a.scope"),
        ({}, f"a.scope/{delegation.HOME}", "a.scope"),
        ({}, "", ""),
    ],
    ids=["host", "container with systemd", "delegated", "already moved", "container"],
)
def test_groups_are_made_at_the_top_or_in_the_own_group(
    top: dict[str, bool], own: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_group(tmp_path, **top)
    make_group(tmp_path / own, **(top if not own else {}))
    make_group(tmp_path / base, **(top if not base else {}))
    monkeypatch.setattr(delegation, "find_own", lambda _: tmp_path / own)
    assert delegation.find_base(tmp_path) == tmp_path / base


def test_a_group_without_memory_is_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_group(tmp_path)
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    monkeypatch.setattr(delegation, "find_own", lambda _: tmp_path)
    assert delegation.find_base(tmp_path) is None
    said = delegation.explain_missing(tmp_path, root=False)
    assert said == "this kernel, or what gives it its groups, has no controller of memory"


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (True, "no control groups can be made in {} (in a container: start it with "
               "`--privileged`)"),
        (False, "control groups of version 1 are root's alone (run it as root, or boot the host "
                "with version 2 only)"),
    ],
)  # fmt: skip
def test_groups_of_version_1_that_cannot_be_made_are_explained(
    root: bool, said: str, tmp_path: Path
) -> None:
    (tmp_path / "memory").mkdir()
    assert delegation.explain_missing(tmp_path, root=root) == said.format(tmp_path / "memory")


def test_memory_that_a_hybrid_host_accounts_beside_version_1_is_explained(tmp_path: Path) -> None:
    make_group(tmp_path / "unified")
    said = delegation.explain_missing(tmp_path, root=True)
    assert said.startswith(f"memory is accounted in {tmp_path}/unified only")


def test_root_is_not_told_to_be_root_and_the_top_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_group(tmp_path)
    monkeypatch.setattr(delegation, "find_own", lambda _: tmp_path)
    monkeypatch.setattr(delegation, "_is_usable", lambda _: False)
    assert delegation.explain_missing(tmp_path, root=True) == (
        "root may not divide the control group / (in a container: start it with `--privileged`)"
    )
    said = delegation.explain_missing(tmp_path, root=False)
    assert said == "the control group / is not this user's to divide (run it as root)"


def test_a_process_whose_group_cannot_be_seen_goes_back_to_the_top_or_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_group(tmp_path / "memory/harness-r")
    top = make_group(tmp_path / "memory", root=True)
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    monkeypatch.setattr(delegation, "find_own", lambda *_: None)
    with cgroup.entered([group]):
        assert (group / "cgroup.procs").read_text() == "0"
        (top / "cgroup.procs").write_text("")
    assert (top / "cgroup.procs").read_text() == "0"
    make_group(top, opened=True)  # with children that are limited
    make_group(group)
    with pytest.raises(HostError, match="could not go back"), cgroup.entered([group]):
        pass
    assert (group / "cgroup.procs").read_text() == ""


def test_a_session_that_is_not_delegated_is_told_what_gives_it_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_group(tmp_path)
    own = tmp_path / "user.slice/session-1.scope"
    monkeypatch.setattr(delegation, "find_own", lambda _: own)
    assert delegation.explain_missing(tmp_path, root=False) == (
        "the control group /user.slice/session-1.scope is not this user's to divide "
        "(systemd-run --user --scope -p Delegate=yes COMMAND gives it one)"
    )


@pytest.mark.parametrize(
    ("path", "levels", "outer"),
    [
        ("u.slice/harness-r/harness-r-3/container", 3, "u.slice"),
        ("harness-ci.service/harness-r/harness-r-3", 2, "harness-ci.service"),
        ("harness-ci.service/x.scope/harness-r/one", 2, "x.scope"),
        ("harness-r/one", 2, "cgroup"),
        ("plain/one", 1, ""),
    ],
)
def test_the_levels_of_a_run_end_below_what_it_lies_in(path: str, levels: int, outer: str) -> None:
    folder = Path("/sys/fs/cgroup") / path
    assert len(cgroup.list_levels([folder])) == levels
    above = cgroup.list_outer([folder])
    assert (above[0].name if above else "") == outer
