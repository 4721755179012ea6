"""What Podman is told, as values: its command line, its configuration and its network."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from harness.drivers import load_driver
from harness.drivers.base import InstanceSpec, Toolbox
from harness.drivers.commanded import Command
from harness.drivers.podman import PodmanDriver
from harness.drivers.podman_network import (
    Maker,
    build_cni_network,
    build_netavark_network,
    choose_maker,
    read_maker,
)
from harness.drivers.podman_store import (
    PodmanStore,
    build_engine_config,
    find_layer,
)
from harness.variants import parse_variant
from tests.unit.fakes import BRIDGED, SPEC

FOLDER = Path("/scratch/podman")
STORE = PodmanStore(FOLDER, "r1")


def build(platform: str, spec: InstanceSpec = SPEC) -> Command:
    toolbox = Toolbox(
        Path("/starter"), run_id="r1", platform=platform, options=parse_variant(platform).options
    )
    driver = load_driver(platform, toolbox)
    assert isinstance(driver, PodmanDriver)
    assert driver.name == platform
    return driver.build_command(spec, STORE)


def value_of(command: Command, option: str) -> str:
    return command.argv[command.argv.index(option) + 1]


def test_everything_is_in_the_run_s_own_folder() -> None:
    command = build("podman")
    for option in ("--root", "--tmpdir"):
        assert value_of(command, option).startswith(str(FOLDER))
    for name in ("HOME", "TMPDIR", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF"):
        assert command.environment[name].startswith(str(FOLDER))
    assert value_of(command, "--label") == "harness.run=r1"


def test_a_container_is_removed_by_a_command_of_its_own_so_that_its_layer_is_synced() -> None:
    command = build("podman")
    assert "--rm" not in command.argv and command.stays
    assert command.cleanup[0][-5:] == ("rm", "--force", "--time", "0", SPEC.name)


@pytest.mark.parametrize(
    ("platform", "spec", "present", "absent"),
    [
        ("podman", SPEC, ("--network none", "--memory=67108864b", "--cpus=2"), ("seccomp",)),
        ("podman", BRIDGED, ("--network harness-r1 --ip 10.87.0.9 ",), ("--network none",)),
        ("podman/host-net", replace(SPEC, host_network=True), ("--network host",), ()),
        ("podman/no-seccomp", SPEC, ("--security-opt seccomp=unconfined",), ("--read-only",)),
        ("podman/read-only", SPEC, ("--read-only",), ("seccomp",)),
        ("podman/no-limits", replace(SPEC, limits=False), (), ("--memory", "--cpus")),
        ("podman+crun", SPEC, ("--runtime crun",), ("platform=",)),
        ("podman+gvisor", SPEC, ("--runtime-flag network=none",), ("platform=",)),
        ("podman+gvisor/ptrace", SPEC, ("--runtime-flag platform=ptrace",), ()),
        ("podman+gvisor", BRIDGED, ("--runtime-flag network=sandbox",), ()),
    ],
)
def test_a_variant_is_said_in_podman_s_words(
    platform: str, spec: InstanceSpec, present: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    line = " ".join(build(platform, spec).argv)
    assert all(words in line for words in present)
    assert not any(words in line for words in absent)


def test_milestones_are_the_files_of_the_engine_and_of_its_runtime() -> None:
    state = Path("/scratch/t7/runtime/*")
    watches = build("podman").watches
    assert watches == {"created": Path("/scratch/t7/id"), "started": state / "state.json"}
    assert build("podman+crun").watches["started"] == state / "status"
    assert set(build("podman+gvisor").watches) == {"created"}


def test_the_engine_is_configured_apart_from_the_host_s() -> None:
    config = tomllib.loads(build_engine_config(FOLDER, {"gvisor": "/usr/bin/runsc"}))
    assert config["engine"]["lock_type"] == "file"
    assert config["engine"]["cgroup_manager"] == "cgroupfs"
    assert config["engine"]["runtimes"] == {"gvisor": ["/usr/bin/runsc"]}
    assert config["network"]["network_config_dir"] == str(FOLDER / "net")


def test_the_network_is_the_lab_s_bridge_and_filters_nothing() -> None:
    network = json.loads(build_cni_network("harness-r1", FOLDER))
    (plugin,) = network["plugins"]
    assert (plugin["type"], plugin["bridge"]) == ("bridge", "hbr0")
    assert plugin["ipMasq"] is False and plugin["isGateway"] is False
    assert plugin["ipam"]["dataDir"].startswith(str(FOLDER))


def test_netavark_makes_no_bridge_and_no_rule_of_its_own() -> None:
    network = json.loads(build_netavark_network("harness-r1"))
    assert (network["driver"], network["network_interface"]) == ("bridge", "hbr0")
    assert network["options"] == {"mode": "unmanaged"}
    assert network["dns_enabled"] is False and network["internal"] is False
    assert re.fullmatch("[0-9a-f]{64}", network["id"])


def test_who_makes_networks_is_asked_of_podman_and_not_stated() -> None:
    config = tomllib.loads(build_engine_config(FOLDER, {}))
    assert "network_backend" not in config["network"]
    config = tomllib.loads(build_engine_config(FOLDER, {}, "cni"))
    assert config["network"]["network_backend"] == "cni"


OLD = "netavark 1.4.0"
REMOVES = f"{OLD} would remove the lab's bridge, which 1.14 and newer leave alone"
LACKING = "the network plugins are not installed: install containernetworking-plugins"


@pytest.mark.parametrize(
    ("found", "takes_plugins", "has_them", "backend", "fault"),
    [
        (Maker("cni"), False, True, "cni", None),
        (Maker("cni"), False, False, "cni", LACKING),
        (Maker("netavark", "netavark 1.14.0"), False, False, "netavark", None),
        (Maker("netavark", "netavark 1.15.2-rc1"), False, True, "netavark", None),
        (Maker("netavark", "netavark 2.0.0"), False, False, "netavark", None),
        (Maker("netavark", OLD), True, True, "cni", None),
        (Maker("netavark", "netavark 1.13.1"), True, True, "cni", None),
        (Maker("netavark", OLD), True, False, "cni", f"{REMOVES}, and {LACKING}"),
        (Maker("netavark", OLD), False, True, "netavark", f"{REMOVES}: install a newer netavark"),
        (Maker("netavark"), True, True, "cni", None),
        (
            Maker("netavark"), False, False, "netavark",
            "this netavark, which does not say its release, would remove the lab's bridge, which "
            "1.14 and newer leave alone: install a newer netavark",
        ),
    ],
)  # fmt: skip
def test_networks_are_made_by_what_leaves_the_bridge_alone(
    found: Maker, takes_plugins: bool, has_them: bool, backend: str, fault: str | None
) -> None:
    assert choose_maker(found, takes_plugins, has_them) == (backend, fault)


@pytest.mark.parametrize(
    ("host", "maker"),
    [
        ({"networkBackend": "cni"}, Maker("cni")),
        ({"networkBackend": "netavark"}, Maker("netavark", "netavark 1.4.0")),
        (
            {"networkBackend": "netavark", "networkBackendInfo": {"version": "netavark 1.14.0"}},
            Maker("netavark", "netavark 1.14.0"),
        ),
        ({"networkBackend": "netavark", "networkBackendInfo": {"path": "/no"}}, Maker("netavark")),
    ],
    ids=["plugins", "before 4.6", "told", "gone"],
)
def test_who_makes_them_is_read_from_podman_and_the_release_from_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: dict[str, object], maker: Maker
) -> None:
    program = tmp_path / "netavark"
    program.write_text("#!/bin/sh\necho netavark 1.4.0\n")
    program.chmod(0o755)
    folders = ("/nowhere", str(tmp_path))
    monkeypatch.setattr("harness.drivers.podman_network._HELPERS", folders)
    assert read_maker(json.dumps(host)) == maker


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "caché", "a'b"])
def test_a_path_with_odd_letters_stands_in_the_configuration(name: str) -> None:
    config = tomllib.loads(build_engine_config(Path("/x") / name, {"crun": f"/y/{name}"}))
    assert config["network"]["network_config_dir"] == f"/x/{name}/net"
    assert config["engine"]["runtimes"] == {"crun": [f"/y/{name}"]}


@pytest.mark.parametrize("table", ["containers.json", "volatile-containers.json"])
def test_what_a_container_writes_is_found_in_the_store(tmp_path: Path, table: str) -> None:
    (tmp_path / "overlay-containers").mkdir()
    listed = [{"id": "1", "layer": "a"}, {"id": "2", "names": ["mine"], "layer": "b"}]
    (tmp_path / "overlay-containers" / table).write_text(json.dumps(listed))
    assert find_layer(tmp_path, "mine") == tmp_path / "overlay/b/diff"
    assert find_layer(tmp_path, "other") is None
    (tmp_path / "overlay-containers" / table).write_text("{")
    assert find_layer(tmp_path, "mine") is None
