"""What Docker is told, as values; how its daemons' time is counted; which of them are of no use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cgroup, lab
from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.docker_answers import find_container_address, find_store, find_upper
from harness.drivers.docker_api import build_reference, find_daemon_fault
from harness.drivers.docker_engine import DockerDriver
from harness.drivers.dockerd import DockerDaemon, build_daemon_config, find_user_daemon
from harness.drivers.shared import start_shared
from harness.errors import HarnessError, HostError, TrialError
from harness.variants import parse_variant
from tests.unit.fakes import BRIDGED, SPEC

HOSTED = replace(SPEC, host_network=True)
PRIVATE = DockerDaemon("unix:///scratch/docker/socket", private=True, states=Path("/exec"))
CHANNEL = {
    "Type": "bind",
    "Source": "/scratch/t7/run",
    "Target": "/.harness/run",
    "ReadOnly": False,
}
USERS = find_user_daemon("unix:///run/docker.sock", "cgroupfs")


def load(platform: str, daemon: DockerDaemon | None = PRIVATE) -> DockerDriver:
    options = parse_variant(platform).options
    shared: dict[str, object] = {"docker": daemon} if daemon else {}
    driver = load_driver(
        platform,
        Toolbox(Path("/starter"), run_id="r1", platform=platform, options=options, shared=shared),
    )
    assert isinstance(driver, DockerDriver)
    return driver


@pytest.mark.parametrize(
    ("platform", "spec", "expected"),
    [
        ("docker", SPEC, {"network_mode": "none", "runtime": "runc", "mem_limit": 64 << 20}),
        ("docker", SPEC, {"memswap_limit": 64 << 20, "cpu_quota": 200_000, "cpu_period": 100_000}),
        ("docker", SPEC, {"mounts": [CHANNEL], "security_opt": None}),
        ("docker", BRIDGED, {"network_mode": "bridge"}),
        ("docker/host-net", HOSTED, {"network_mode": "host"}),
        ("docker/no-seccomp", SPEC, {"security_opt": ["seccomp=unconfined"], "read_only": None}),
        ("docker/read-only", SPEC, {"read_only": True, "security_opt": None}),
        ("docker/no-limits", replace(SPEC, limits=False), {"mem_limit": None, "cpu_quota": None}),
        ("docker+crun", SPEC, {"runtime": "crun"}),
        ("docker+gvisor", SPEC, {"runtime": "runsc"}),
        ("docker+gvisor", BRIDGED, {"runtime": "runsc-net"}),
        ("docker+gvisor/systrap", SPEC, {"runtime": "runsc-systrap"}),
        ("docker+gvisor/ptrace", BRIDGED, {"runtime": "runsc-net-ptrace"}),
        ("docker+gvisor/host-net", HOSTED, {"runtime": "runsc-host"}),
    ],
)
def test_a_variant_is_said_in_docker_s_words(
    platform: str, spec: InstanceSpec, expected: dict[str, Any]
) -> None:
    options = load(platform).build_options(spec)
    assert {key: options.get(key) for key in expected} == expected


def test_a_user_s_daemon_knows_gvisor_by_one_name() -> None:
    assert load("docker+gvisor", USERS).build_options(HOSTED)["runtime"] == "runsc"


@pytest.mark.parametrize(
    ("driver", "parent"), [("cgroupfs", "/harness-r1/t7"), ("none", "/harness-r1/t7"),
                           ("systemd", None)],
)  # fmt: skip
def test_a_container_lies_in_the_instance_s_group_where_the_daemon_can_do_that(
    driver: str, parent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cgroup.build_path", lambda *_: "/harness-r1/t7")
    daemon = find_user_daemon("unix:///run/docker.sock", driver)
    assert load("docker", daemon).build_options(SPEC).get("cgroup_parent") == parent


def test_what_is_made_carries_the_run_s_id() -> None:
    assert build_reference(SPEC.image, "r1") == "harness/tiny:r1"


def test_a_sandbox_is_told_from_a_container() -> None:
    assert load("docker").kind == load("docker+crun").kind == "container"
    assert load("docker+gvisor").kind == "sandbox"


def test_only_a_private_daemon_is_on_the_lab_s_bridge() -> None:
    assert load("docker", PRIVATE).no_network is None
    assert "--start-engines" in (load("docker", USERS).no_network or "")
    assert load("docker/host-net", USERS).no_network is None


def test_a_private_daemon_changes_nothing_of_the_host_s() -> None:
    folder = Path("/scratch/docker")
    config = build_daemon_config(folder, "/harness-r1")
    for key in ("data-root", "exec-root", "pidfile"):
        assert str(config[key]).startswith(str(folder))
    assert (config["iptables"], config["ip-masq"]) == (False, False)
    assert (config["bridge"], config["fixed-cidr"]) == (lab.BRIDGE, lab.ENGINE_RANGE)
    assert config["cgroup-parent"] == "/harness-r1"
    assert "cgroup-parent" not in build_daemon_config(folder, None)


# ---- the account of a daemon that is not the run's -------------------------------------------


def write_process(proc: Path, pid: int, ticks: int, *words: str) -> None:
    """A process as proc_pid_stat(5) shows it, with all its time as utime."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "cmdline").write_text("\0".join(words))
    (folder / "stat").write_text(f"{pid} (a b) c) S {'0 ' * 10}{ticks} 0 0 0 20 0")


def test_the_shims_of_a_user_s_containers_are_none_of_the_run_s_time(tmp_path: Path) -> None:
    """One that ends while an instance starts would else take its whole life's time away."""
    daemon = replace(USERS, proc=tmp_path)
    assert daemon.read_cpu() is None
    write_process(tmp_path, 1, 300, "/usr/sbin/dockerd")
    write_process(tmp_path, 2, 40, "containerd", "--config", "c")
    write_process(tmp_path, 3, 9000, "/usr/bin/containerd-shim-runc-v2", "-id", "theirs")
    write_process(tmp_path, 5, 777, "sleep", "ours")
    before = daemon.read_cpu()
    assert before is not None and before == pytest.approx(3.4)
    daemon.serving.add("ours")
    write_process(tmp_path, 1, 310, "/usr/sbin/dockerd")
    write_process(tmp_path, 4, 5, "/usr/bin/containerd-shim-runc-v2", "-id", "ours")
    (tmp_path / "3" / "stat").unlink()
    (tmp_path / "3" / "cmdline").unlink()
    after = daemon.read_cpu()
    assert after is not None
    assert after - before == pytest.approx(0.15)
    assert set(daemon.processes().inside) == {1, 2}
    assert daemon.find_shims("ours") == (4,)


# ---- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:2375", "ssh://somewhere", "/run/docker.sock", "foo", "unix://", ""]
)
def test_what_is_no_unix_socket_is_refused_in_one_line_with_the_remedy(host: str) -> None:
    fault = find_daemon_fault(host)
    assert fault is not None
    reason, remedy = fault
    assert "a Unix socket only" in reason and "\n" not in reason
    assert "unix:///PATH" in remedy and "--start-engines" in remedy


# ---- what daemons of 20 to 29 say ------------------------------------------------------------

OLD = {
    "NetworkSettings": {
        "IPAddress": "172.17.0.2",
        "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
    },
    "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/data/overlay2/a/diff"}},
}
NEW = {
    "NetworkSettings": {"Networks": {"none": {"IPAddress": ""}, "mine": {"IPAddress": "10.0.0.9"}}},
    "Storage": {"RootFS": {"Snapshot": {"Name": "overlayfs"}}},
}
BARE: dict[str, Any] = {"NetworkSettings": {"Networks": None}, "GraphDriver": None}


@pytest.mark.parametrize(
    ("found", "address", "upper", "store"),
    [
        (OLD, "172.17.0.2", Path("/data/overlay2/a/diff"), "overlay2"),
        (NEW, "10.0.0.9", None, "overlayfs"),
        (BARE, None, None, None),
        ({**BARE, "GraphDriver": {"Name": "overlayfs", "Data": None}}, None, None, "overlayfs"),
    ],
    ids=["20-28", "29", "bare", "containerd"],
)
def test_what_a_daemon_says_of_a_container_is_read_in_every_release(
    found: dict[str, Any], address: str | None, upper: Path | None, store: str | None
) -> None:
    assert find_container_address(found) == address
    assert find_upper(found) == upper
    assert find_store(found) == store


# ---- which daemon ----------------------------------------------------------------------------

ANSWERS, SILENT = "unix:///run/docker.sock", "unix:///nowhere"


@pytest.mark.parametrize(
    ("start", "named", "variable", "possible", "own"),
    [
        (False, None, "", True, False),
        (True, None, "", True, True),
        (True, None, "", False, False),
        (True, ANSWERS, "", True, False),
        (True, SILENT, "", True, True),
        (True, None, ANSWERS, True, False),
        (True, None, SILENT, True, True),
    ],
)
def test_engines_are_started_unless_one_that_answers_is_named(
    monkeypatch: pytest.MonkeyPatch,
    start: bool,
    named: str | None,
    variable: str,
    possible: bool,
    own: bool,
) -> None:
    module = "harness.drivers.docker_engine"
    monkeypatch.setenv("DOCKER_HOST", variable)
    monkeypatch.setattr(f"{module}._find_own_fault", lambda: None if possible else "no root")
    silent = ("no Docker daemon answers", "start it")
    monkeypatch.setattr(
        f"{module}.find_daemon_fault", lambda host: silent if host == SILENT else None
    )
    toolbox = Toolbox(Path("/starter"), start_engines=start, docker_host=named)
    driver = load_driver("docker", toolbox)
    assert isinstance(driver, DockerDriver)
    assert driver._starts_own() is own


def test_what_a_running_daemon_cannot_do_comes_with_a_remedy_that_works() -> None:
    words = load("docker", USERS).no_network or ""
    assert "say --start-engines for one of the run's own" in words
    named = Toolbox(Path("/starter"), docker_host=ANSWERS, shared={"docker": USERS})
    assert "--start-engines and no --docker-host" in (load_driver("docker", named).no_network or "")


def test_a_private_daemon_knows_gvisor_with_and_without_a_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "harness.drivers.dockerd"
    monkeypatch.setattr(f"{module}.find_program", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(f"{module}.read_platforms", lambda: ("systrap", "kvm"))
    runtimes = build_daemon_config(Path("/scratch/docker"), None)["runtimes"]
    assert isinstance(runtimes, dict)
    names = {"crun"} | {f"runsc{net}{platform}" for net in ("", "-host", "-net")
                        for platform in ("", "-systrap", "-kvm")}  # fmt: skip
    assert set(runtimes) == names
    assert not any("--platform" in word for word in runtimes["runsc-net"]["runtimeArgs"])
    assert "--platform=kvm" in runtimes["runsc-host-kvm"]["runtimeArgs"]


def test_a_running_daemon_s_gvisor_has_no_other_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "harness.drivers.docker_engine"
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(f"{module}.find_daemon_fault", lambda _: None)
    monkeypatch.setattr(f"{module}.find_runtime_fault", lambda *_: None)
    assert load("docker+gvisor", None).unavailable() is None
    reason = load("docker+gvisor/ptrace", None).unavailable() or ""
    assert "its own configuration" in reason and "--start-engines" in reason


# ---- groups that systemd makes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "folders", "found"),
    [
        ("0::/system.slice/docker-1.scope\n", ["system.slice/docker-1.scope"], 1),
        ("0::/system.slice/docker-1.scope\n", [], 0),
    ],
)
def test_the_groups_of_a_process_are_where_its_cgroup_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, folders: list[str], found: int
) -> None:
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    (tmp_path / "cgroup.controllers").touch()
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert cgroup.parse_memberships(text) == tuple(tmp_path / each for each in folders)
    assert len(folders) == found


def test_the_groups_of_a_process_on_v1_are_those_with_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    for name in ("memory", "cpu,cpuacct", "freezer"):
        (tmp_path / name / "docker/1").mkdir(parents=True)
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "cpuacct").symlink_to("cpu,cpuacct")
    text = "4:freezer:/docker/1\n3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n1:name=systemd:/x\n"
    found = cgroup.parse_memberships(text)
    assert found == (tmp_path / "memory/docker/1", tmp_path / "cpu,cpuacct/docker/1")


@pytest.mark.parametrize(("driver", "asks"), [("systemd", True), ("cgroupfs", False)])
def test_limits_are_asked_of_a_daemon_whose_groups_are_not_the_run_s(
    driver: str, asks: bool
) -> None:
    daemon = find_user_daemon("unix:///run/docker.sock", driver)
    loaded = load("docker", daemon)
    assert isinstance(loaded, DockerDriver)
    assert loaded.sets_limits is asks


# ---- what variants share ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [HostError("no room", hint="more"), TrialError("no room", hint="more")]
)
def test_what_could_not_be_made_for_one_variant_is_not_tried_again(error: HarnessError) -> None:
    shared: dict[str, object] = {}
    tried: list[int] = []

    @contextmanager
    def start() -> Iterator[object]:
        tried.append(1)
        raise error
        yield

    for _ in range(2):
        with pytest.raises(HostError, match="no room"), start_shared(shared, "store", start):
            pass
    assert tried == [1]


def test_what_failed_as_nobody_expected_is_not_tried_again_either() -> None:
    shared: dict[str, object] = {}

    @contextmanager
    def start() -> Iterator[object]:
        raise KeyError("Id")
        yield

    with pytest.raises(KeyError), start_shared(shared, "store", start):
        pass
    with (
        pytest.raises(HostError, match="internal error: KeyError: 'Id'"),
        start_shared(shared, "store", start),
    ):
        pass


def test_what_variants_share_is_made_once_and_taken_away_at_the_end() -> None:
    shared: dict[str, object] = {}
    steps: list[str] = []

    @contextmanager
    def start() -> Iterator[object]:
        steps.append("made")
        yield "daemon"
        steps.append(f"gone {shared}")

    with start_shared(shared, "d", start), start_shared(shared, "d", start):
        assert shared["d"] == "daemon"
    assert steps == ["made", "gone {}"]
