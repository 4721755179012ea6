"""What makes a host noisy before a run: on made-up trees of /proc and /sys, and on this host."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.preflight import State, find_noise, list_facts, read_state

QUIET = State(
    busy=0.01, foreign=(), pressure={"cpu": 0.0, "io": 0.0, "memory": 0.0}, on_battery=False,
    governors=("performance",), isolated=None, swappiness=60, swapping=False, numa_balancing=False,
    numa_nodes=1, randomised=2, vulnerabilities={},
)  # fmt: skip

CPU = "sys/devices/system/cpu"
STAT = "cpu  100 0 50 {idle} 10 0 0 {steal} 0 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\nintr 1\n"
PROCESS = "{pid} ({name}) R {parent} 0 0 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 1 0 1 1 1\n"


def build_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def read(root: Path, later: Mapping[str, str] | None = None) -> State:
    """The state of a tree that becomes another while it is watched."""

    def pass_time(_: float) -> None:
        build_tree(root, later or {})

    return read_state(root, 0.0, pass_time)


def test_an_empty_tree_tells_nothing_and_nothing_is_made_up(tmp_path: Path) -> None:
    state = read(tmp_path)
    assert (state.busy, state.on_battery, state.isolated) == (None, None, None)
    assert (state.swappiness, state.randomised, state.numa_balancing) == (None, None, None)
    assert find_noise(state) == []
    assert list_facts(state) == ["no CPUs are isolated"]


def test_settings_are_read_where_the_kernel_has_them(tmp_path: Path) -> None:
    state = read(
        build_tree(
            tmp_path,
            {
                f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
                f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
                f"{CPU}/isolated": "2-3\n",
                f"{CPU}/vulnerabilities/meltdown": "Mitigation: PTI\n",
                f"{CPU}/vulnerabilities/mds": "Vulnerable: no microcode\n",
                f"{CPU}/vulnerabilities/l1tf": "Not affected\n",
                "sys/devices/system/node/node0/x": "",
                "sys/devices/system/node/node1/x": "",
                "proc/sys/vm/swappiness": "60\n",
                "proc/swaps": "Filename Type\n/dev/sda2 partition\n",
                "proc/sys/kernel/numa_balancing": "1\n",
                "proc/sys/kernel/randomize_va_space": "0\n",
                "proc/pressure/io": "some avg10=31.50 avg60=1.00 avg300=0.00 total=5\n",
            },
        )
    )
    problems = [each.problem for each in find_noise(state)]
    assert problems == [
        "tasks wait for io 32 % of the time",
        "CPUs have different frequency governors: performance, powersave",
        "swap is in use with a swappiness of 60",
        "memory is moved between 2 NUMA nodes while it is used",
        "address spaces are not randomised: one layout stands for all starts",
    ]
    assert list_facts(state) == [
        "governors performance, powersave",
        "CPUs 2-3 are isolated",
        "1 mitigations against vulnerabilities are on",
        "open to mds",
    ]


SUPPLY = "sys/class/power_supply"
SCOPE = f"{SUPPLY}/BAT0/scope"
MAINS = {f"{SUPPLY}/AC/type": "Mains\n"}
BATTERY = {f"{SUPPLY}/BAT0/type": "Battery\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({**MAINS, f"{SUPPLY}/AC/online": "1\n"}, False),
        ({**BATTERY, f"{SUPPLY}/BAT0/status": "Discharging\n"}, True),
        ({**BATTERY, f"{SUPPLY}/BAT0/status": "Full\n"}, False),
        (
            {**MAINS, f"{SUPPLY}/AC/online": "0\n", **BATTERY,
             f"{SUPPLY}/BAT0/status": "Discharging\n"},
            True,
        ),
        (
            {**MAINS, f"{SUPPLY}/AC/online": "1\n", **BATTERY,
             f"{SUPPLY}/BAT0/status": "Discharging\n"},
            False,
        ),
        (
            {**BATTERY, f"{SUPPLY}/BAT0/status": "Discharging\n", SCOPE: "Device\n"},
            None,
        ),
    ],
)  # fmt: skip
def test_whether_the_host_runs_on_battery(
    tmp_path: Path, files: Mapping[str, str], expected: bool | None
) -> None:
    state = read(build_tree(tmp_path, files))
    assert state.on_battery is expected
    assert any("battery" in each.problem for each in find_noise(state)) is bool(expected)


def test_other_work_is_named_with_its_share_and_the_run_itself_is_not(tmp_path: Path) -> None:
    def process(pid: int, name: str, ticks: int, parent: int = 1) -> dict[str, str]:
        fields = {"pid": pid, "name": name, "parent": parent, "user": ticks, "system": 0}
        return {f"proc/{pid}/stat": PROCESS.format(**fields)}

    own = os.getpid()
    before = {
        "proc/stat": STAT.format(idle=1000, steal=0),
        **process(own, "python", 10, parent=77),
        **process(77, "make", 10),
        **process(4, "a) (b", 10),
        **process(5, "idler", 10),
    }
    later = {
        **process(own, "python", 10_000, parent=77),
        **process(77, "make", 10_000),
        **process(4, "a) (b", 10_000),
    }
    state = read(build_tree(tmp_path, before), later)
    assert [(each.name, each.pid) for each in state.foreign] == [("a) (b", 4)]
    assert state.busy == 1.0, "no tick of idle time passed"
    (line,) = [each.problem for each in find_noise(state)]
    assert line.startswith("100% of the CPUs' time goes to other work now: a) (b (4) ")


def test_a_quiet_host_has_no_noise_and_an_unseen_neighbour_is_said() -> None:
    assert find_noise(QUIET) == []
    (line,) = find_noise(replace(QUIET, busy=0.4))
    assert line.problem.endswith("now, by processes that cannot be seen from here")
    assert all(each.advice for each in find_noise(replace(QUIET, busy=0.4, randomised=0)))


def test_this_host_has_a_state_that_the_manifest_can_hold() -> None:
    state = read_state(window=0.05)
    assert state.busy is not None and 0 <= state.busy <= 1
    assert state.randomised in (0, 1, 2)
    assert state.numa_nodes >= 0
    assert json.loads(json.dumps(asdict(state)))["busy"] == state.busy
    assert list_facts(state)
