"""Plans and workloads: what users write, what is merged, and the order of trials."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers import PLATFORMS, load_driver
from harness.drivers.base import Toolbox
from harness.errors import InputError
from harness.inputs import read_toml
from harness.model import AA_SUFFIX, base_platform
from harness.plan import (
    Plan,
    build_arms,
    build_document,
    build_schedule,
    count_trials,
    find_kind,
    parse_document,
    require_images,
    walk_schedule,
)
from harness.plan_file import read_plan
from harness.precision import MOST_BLOCKS
from harness.workloads import list_workloads, read_workload

SEED = 4711
WORKLOAD = 'name = "mine"\nimage = "tiny"\ncommand = ["true"]\nready = "exit"\n'


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_of(text: str = "", **options: object) -> Plan:
    """The plan of a file with ``text``, with options of the command line over it."""
    Path("plan.toml").write_text(text)
    return read_plan(Path("plan.toml"), options, new_seed=SEED)


def error_of(text: str = "", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        plan_of(text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- merging ---------------------------------------------------------------------------------


def test_without_a_file_the_defaults_are_ten_blocks_on_the_main_platforms() -> None:
    plan = read_plan(None, {}, new_seed=SEED)
    assert plan.platforms == (
        "process", "namespace", "crun", "runc", "gvisor", "podman", "docker",
        "vm-direct", "vm-microvm", "vm-restore",
    )  # fmt: skip
    assert [workload.name for workload in plan.workloads] == ["noop", "httpd"]
    assert (plan.blocks, plan.warmup, plan.cache, plan.seed) == (10, 1, "warm", SEED)


def test_an_option_goes_before_the_file_and_the_file_before_the_default() -> None:
    plan = plan_of("blocks = 5\nwarmup = 2", blocks=7)
    assert (plan.blocks, plan.warmup, plan.cpus) == (7, 2, 1)


def test_durations_and_sizes_become_seconds_and_bytes() -> None:
    plan = plan_of('settle = "50ms"\nmemory = "128MiB"\nbudget = "10m"\ntimeout = "5s"')
    assert (plan.settle, plan.memory, plan.budget) == (0.05, 128 << 20, 600.0)
    assert {workload.timeout for workload in plan.workloads} == {5.0}


def test_a_workload_file_is_looked_for_beside_the_plan_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.toml").write_text(WORKLOAD + 'timeout = "3s"')
    (folder / "plan.toml").write_text('workloads = ["./mine.toml"]')
    plan = read_plan(folder / "plan.toml", {}, new_seed=SEED)
    assert [(each.name, each.timeout) for each in plan.workloads] == [("mine", 3.0)]


def test_a_workload_file_of_an_option_is_looked_for_here(tmp_path: Path) -> None:
    Path("mine.toml").write_text(WORKLOAD)
    assert plan_of(workloads=("./mine.toml",)).workloads[0].name == "mine"


@pytest.mark.parametrize(
    ("platforms", "aa"),
    [
        (["process", "namespace"], ("namespace",)),
        (["vm-direct"], ("vm-direct",)),
        (["process", "vm-disk/uefi", "crun", "vm-direct", "namespace"], ("crun", "vm-disk/uefi")),
        (["gvisor", "vm-direct"], ("gvisor", "vm-direct")),
        (["docker+gvisor", "podman"], ("podman",)),
        (["process"], ("process",)),
    ],
)
def test_the_first_container_and_the_first_machine_are_entered_twice_unless_the_plan_says_other(
    platforms: list[str], aa: tuple[str, ...]
) -> None:
    chosen, none = plan_of(f"platforms = {platforms}"), plan_of(f"platforms = {platforms}\naa = []")
    assert (chosen.aa, chosen.aa_open) == (aa, True)
    assert (none.aa, none.aa_open) == ((), False)


def test_a_platform_that_runs_no_workload_is_not_entered_twice() -> None:
    plan = plan_of('platforms = ["crun/no-net", "runc"]\nworkloads = ["httpd"]')
    assert plan.aa == ("runc",)


def test_the_kind_of_a_name_is_that_of_its_driver() -> None:
    names = [
        *PLATFORMS,
        "docker+gvisor",
        "podman+gvisor",
        "docker+crun/host-net",
        "vm-direct/tuned",
    ]
    for name in names:
        assert find_kind(name) == load_driver(name, Toolbox(starter=Path("starter"))).kind, name


def test_a_precision_is_a_share_and_blocks_are_then_the_most() -> None:
    plain, open_end = plan_of("blocks = 4"), plan_of('precision = "2%"')
    both = plan_of('precision = "0.5 %"\nblocks = 40\nbudget = "10m"')
    assert (plain.precision, plain.blocks) == (None, 4)
    assert (open_end.precision, open_end.blocks) == (0.02, MOST_BLOCKS)
    assert (both.precision, both.blocks, both.budget) == (0.005, 40, 600.0)


def test_one_image_replaces_the_workloads_own_and_more_make_variants() -> None:
    one = plan_of('workloads = ["noop"]\nimages = ["slim"]')
    two = plan_of('workloads = ["noop"]\nimages = ["slim", "tiny"]')
    assert [(each.name, each.image) for each in one.workloads] == [("noop", "slim")]
    assert [each.name for each in two.workloads] == ["noop@slim", "noop@tiny"]


def test_a_plan_survives_the_way_through_the_manifest() -> None:
    plan = plan_of('budget = "10m"\nseed = 1')
    assert parse_document(json.loads(json.dumps(build_document(plan)))) == plan


def test_a_damaged_manifest_is_an_input_error() -> None:
    document = build_document(plan_of())
    with pytest.raises(InputError, match="plan cannot be read"):
        parse_document({**document, "blocks": "ten"})


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("blcoks = 3", "plan.toml: unknown key 'blcoks' (did you mean 'blocks'?)"),
        (
            'blocks = "3"',
            "plan.toml: key 'blocks': expected an integer, got a string (write blocks = 10)",
        ),
        ("blocks = 2.5", "key 'blocks': expected an integer, got a float"),
        ("blocks = true", "key 'blocks': expected an integer, got a boolean"),
        ("blocks = 0", "key 'blocks': expected an integer >= 1"),
        ("blocks = -1", "key 'blocks': expected an integer >= 1"),
        ("warmup = -1", "key 'warmup': expected an integer >= 0"),
        ("cpus = 0", "key 'cpus': expected an integer >= 1"),
        ("platforms = []", "key 'platforms': expected an array of length >= 1"),
        ("workloads = []", "key 'workloads': expected an array of length >= 1"),
        ('platforms = "process"', "key 'platforms': expected an array, got a string"),
        ("platforms = [1]", "key 'platforms': expected a string, got an integer inside it"),
        ('platforms = ["vm-dirct"]', "unknown platform 'vm-dirct' (did you mean 'vm-direct'?)"),
        ('platforms = ["process", "process"]', "'process' stands there twice"),
        ('workloads = ["nop"]', "unknown workload 'nop' (did you mean 'noop'?"),
        ('workloads = ["noop", "noop"]', "'noop' stands there twice"),
        ('workloads = ["./x.toml"]', "x.toml: there is no such file"),
        ('aa = ["vm-direct"]\nplatforms = ["process"]', "'vm-direct' is not among the platforms"),
        ('cache = "hot"', "key 'cache': invalid enum value 'hot' (write cache = \"warm\")"),
        ("seed = -1", "key 'seed': -1 is not from 0 to 2^63 - 1"),
        ('settle = "soon"', "key 'settle': 'soon' is not a duration (write settle = \"200ms\")"),
        ('timeout = "0s"', "key 'timeout': 0s is too short"),
        ('precision = "0%"', "key 'precision': 0% is not above 0% and below 100%"),
        ('precision = "200%"', "200% is not above 0% and below 100%"),
        ('precision = "abc"', "key 'precision': 'abc' is not a share"),
        ('precision = "2"', "'2' is not a share"),
        ("precision = 0.02", "key 'precision': expected"),
        ('precision = "2%"\nblocks = 5', "5 cannot show a `precision`: that takes 20 or more"),
        ('precision = "2%"\nplatforms = ["namespace"]', "there is one platform only"),
        ('budget = "0s"', "key 'budget': 0s is too short"),
        ('budget = "-3m"', "key 'budget': '-3m' is not a duration"),
        ('memory = "1MiB"', "key 'memory': 1MiB is too little for a guest kernel"),
        ('memory = "much"', "key 'memory': 'much' is not a size"),
        ('accelerator = "xen"', "key 'accelerator': invalid enum value 'xen'"),
        ("x = [", "plan.toml: not valid TOML"),
        (f"blocks = {'9' * 5000}", "plan.toml: not valid TOML"),
        (f"x = {'[' * 5000}", "plan.toml: not valid TOML"),
        (
            'platforms = ["process"]\nworkloads = ["httpd"]',
            "nothing is left to run: httpd skips process",
        ),
    ],
)
def test_a_wrong_plan_is_one_line_with_the_remedy(text: str, error: str) -> None:
    assert error in error_of(text)


def test_a_wrong_option_is_named_as_it_was_typed() -> None:
    assert error_of(blocks=0) == "--blocks: expected an integer >= 1 (write --blocks 10)"
    assert error_of(platforms=("proces",)).startswith("--platform: unknown platform 'proces'")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00"])
def test_a_plan_that_is_not_text_is_one_line(content: bytes) -> None:
    Path("plan.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"plan\.toml: "):
        read_toml(Path("plan.toml"))


def test_a_plan_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Is a directory"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ('colour = "red"', "mine.toml: unknown key 'colour'"),
        ('comand = ["true"]', "(did you mean 'command'?)"),
        ("name = 1", "key 'name': expected a string, got an integer"),
        ('name = "No Name"', "key 'name': 'No Name' is no name"),
        ("command = []", "key 'command': expected an array of length >= 1"),
        ('command = [""]', "key 'command': the command is empty"),
        ('command = "true"', "key 'command': expected an array, got a string"),
        ('ready = "soon"', "key 'ready': 'soon' is no readiness condition"),
        ('ready = "output:"', "key 'ready': 'output:' is no readiness condition"),
        ('ready = "tcp:0"', "key 'ready': '0' is no port"),
        ('ready = "tcp:65536"', "key 'ready': '65536' is no port"),
        ('ready = "tcp:http"', "key 'ready': 'http' is no port"),
        ('request = "http://:8080/"', "key 'request': nothing can answer"),
        ('ready = "tcp:80"\nrequest = "ftp://:80/"', "key 'request': 'ftp://:80/' cannot be sent"),
        ('ready = "tcp:80"\nrequest = "http://:x/"', "key 'request': 'http://:x/' cannot be sent"),
        ('timeout = "0s"', "key 'timeout': it must be longer than 0"),
        ('timeout = "x"', "key 'timeout': 'x' is not a duration"),
        ('environment = { "A=B" = "c" }', "key 'environment': 'A=B' is no environment variable"),
        ("environment = { A = 1 }", 'inside it (write environment = { LANG = "C" })'),
        ('skip = ["proces"]', "key 'skip': unknown platform 'proces' (did you mean 'process'?)"),
    ],
)
def test_a_wrong_workload_is_one_line_with_the_remedy(change: str, error: str) -> None:
    replaced = {line.split(" = ")[0] for line in change.splitlines()}
    kept = [line for line in WORKLOAD.splitlines() if line.split(" = ")[0] not in replaced]
    Path("mine.toml").write_text("\n".join([*kept, change]))
    assert error in error_of(workloads=("./mine.toml",))


@pytest.mark.parametrize("key", ["name", "image", "ready"])
def test_a_workload_without_a_needed_key_is_an_error_that_shows_it(key: str) -> None:
    kept = [line for line in WORKLOAD.splitlines() if not line.startswith(key)]
    Path("mine.toml").write_text("\n".join(kept))
    assert f"mine.toml: key '{key}': is missing (write {key} = " in error_of(
        workloads=("./mine.toml",)
    )


def test_a_missing_image_is_named_with_the_file_and_the_nearest_one() -> None:
    Path("mine.toml").write_text(WORKLOAD.replace("tiny", "tinny"))
    plan = plan_of(workloads=("./mine.toml",))
    with pytest.raises(InputError) as caught:
        require_images(plan, ["slim", "tiny"])
    assert str(caught.value) == (
        "mine.toml: key 'image': there is no image 'tinny' (did you mean 'tiny'?)"
    )


@given(st.text())
def test_no_text_as_a_plan_gives_anything_but_a_plan_or_one_line(text: str) -> None:
    try:
        plan_of(text.encode("utf-8", "replace").decode())
    except InputError as error:
        assert "\n" not in str(error)


# ---- the workloads that come with the harness --------------------------------------------------


@pytest.mark.parametrize("name", list_workloads())
def test_a_workload_of_the_harness_is_named_like_its_file(name: str) -> None:
    workload = read_workload(name, folder=Path(), timeout=60)
    assert workload.name == name
    assert workload.description


def test_only_a_workload_with_a_port_needs_a_network() -> None:
    workloads = [read_workload(name, folder=Path(), timeout=60) for name in list_workloads()]
    assert [workload.name for workload in workloads if workload.network] == [
        "httpd",
        "iperf3",
        "nginx",
        "postgres",
        "pyapp",
        "redis",
        "redis-ping",
        "webserver",
    ]


# ---- the schedule ------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    some = st.lists(st.sampled_from(sorted(PLATFORMS)), min_size=1, unique=True)
    platforms = draw(some)
    workloads = draw(
        st.lists(st.sampled_from(["noop", "python", "calibration-0"]), min_size=1, unique=True)
    )
    options: dict[str, object] = {
        "platforms": tuple(platforms),
        "workloads": tuple(workloads),
        "aa": tuple(draw(st.lists(st.sampled_from(platforms), unique=True))),
        "blocks": draw(st.integers(1, 8)),
        "warmup": draw(st.integers(0, 2)),
    }
    return read_plan(None, options, new_seed=draw(st.integers(0, 2**32)))


@given(plans())
def test_every_block_has_every_arm_once(plan: Plan) -> None:
    arms = sorted((arm.platform, arm.workload) for arm in build_arms(plan))
    schedule = build_schedule(plan)
    for block in range(plan.warmup + plan.blocks):
        trials = [each for each in schedule if each.block == block]
        assert sorted((each.platform, each.workload) for each in trials) == arms
        assert [each.order for each in trials] == list(range(len(arms)))


@given(plans())
def test_no_trial_is_lost_and_none_comes_twice(plan: Plan) -> None:
    schedule = build_schedule(plan)
    assert [each.trial for each in schedule] == list(range(len(schedule)))
    assert len(schedule) == (plan.warmup + plan.blocks) * len(build_arms(plan))
    assert {each.block for each in schedule if each.warmup} == set(range(plan.warmup))


@given(plans())
def test_a_schedule_can_be_walked_and_counted_without_making_it(plan: Plan) -> None:
    walked = [each for block in walk_schedule(plan) for each in block]
    assert tuple(walked) == build_schedule(plan)
    assert count_trials(plan) == len(walked)


@given(plans())
def test_more_blocks_leave_the_first_ones_as_they_are(plan: Plan) -> None:
    schedule = build_schedule(plan)
    assert build_schedule(replace(plan, blocks=plan.blocks + 3))[: len(schedule)] == schedule


@given(plans())
def test_the_same_plan_gives_the_same_order(plan: Plan) -> None:
    assert build_schedule(plan) == build_schedule(parse_document(build_document(plan)))


@given(plans())
def test_an_aa_arm_stands_beside_its_platform(plan: Plan) -> None:
    entered = {arm.platform for arm in build_arms(plan)}
    assert {name + AA_SUFFIX for name in plan.aa} == {
        name for name in entered if name.endswith(AA_SUFFIX)
    }
    assert {base_platform(name) for name in entered} == set(plan.platforms)


def test_another_seed_gives_another_order() -> None:
    orders = [
        [each.platform for each in build_schedule(read_plan(None, {"seed": seed}, new_seed=0))]
        for seed in range(5)
    ]
    assert all(left != right for left, right in itertools.pairwise(orders))


def test_the_order_of_a_seed_stays_the_same_from_release_to_release() -> None:
    platforms = ("process", "namespace", "vm-direct", "vm-microvm")
    options = {"platforms": platforms, "seed": 1, "workloads": ("noop",), "blocks": 2,
               "aa": ("namespace",)}  # fmt: skip
    plan = read_plan(None, options, new_seed=0)
    assert [each.platform for each in build_schedule(plan)] == [
        "process",
        "namespace#2",
        "namespace",
        "vm-direct",
        "vm-microvm",
        "namespace",
        "namespace#2",
        "process",
        "vm-direct",
        "vm-microvm",
        "vm-microvm",
        "namespace",
        "namespace#2",
        "vm-direct",
        "process",
    ]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("crun/host-net", "crun/host-net"),
        ("runc/read-only/seccomp", "runc/seccomp/read-only"),
        ("crun/no-seccomp", "crun"),
        ("runc/cpus=2/memory=1024MiB", "runc/memory=1GiB/cpus=2"),
        ("gvisor/no-limits", "gvisor/no-limits"),
        ("vm-direct/cache=none/tuned/elf/memory=1GiB", "vm-direct/tuned/cache=none/memory=1GiB"),
        ("vm-microvm/upper=disk/disk=erofs", "vm-microvm/disk=erofs/upper=disk"),
        ("vm-direct/upper=tmpfs/disk=erofs", "vm-direct/disk=erofs"),
        ("vm-direct/discard/disk=raw", "vm-direct/disk=raw/discard"),
    ],
)
def test_a_variant_has_one_name_however_it_is_written(written: str, name: str) -> None:
    assert plan_of(platforms=(written,)).platforms == (name,)


def test_a_table_of_options_says_the_same_as_a_name() -> None:
    text = """platforms = ["namespace"]
    variants = [{ platform = "runc", network = "host", seccomp = true, memory = "64MiB" }]"""
    assert plan_of(text).platforms == ("namespace", "runc/host-net/seccomp/memory=64MiB")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("crunn", "did you mean 'crun'?"),
        ("crun/host-nett", "did you mean 'host-net'?"),
        ("crun+runc", "crun has no choice of runtime"),
        ("namespace/host-net", "namespace has no choice of network"),
        ("gvisor/seccomp", "gvisor has no choice of seccomp"),
        ("crun/host-net/no-net", "says its network twice"),
        ("crun/no-limits/cpus=2", "has limits and no limits"),
        ("crun/memory=much", "not a size"),
        ("process/memory=1GiB", "takes no limits of its own"),
        ("vm-direct/no-limits", "takes no limits of its own"),
        ("vm-disk/disk=erofs", "is no disk of vm-disk"),
        ("vm-direct/upper=disk", "needs a root that is read-only"),
        ("vm-direct/disk=virtiofs/cache=none", "virtiofs is no disk"),
        ("namespace/tuned", "namespace has no choice of tuning"),
        ("vm-microvm/uefi", "vm-microvm has no choice of firmware"),
        ("vm-direct/disk=erofs/discard", "no disk of its own to give space back from"),
        ("runc/discard", "runc has no choice of discard"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(written: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_of(platforms=(written,))
    assert words in str(caught.value)


def test_a_platform_and_its_variant_by_another_name_are_the_same() -> None:
    with pytest.raises(InputError, match="stands there twice"):
        plan_of(platforms=("crun", "crun/no-seccomp"))


def test_a_service_is_not_run_where_there_is_no_network() -> None:
    arms = build_arms(plan_of(platforms=("crun/no-net", "crun")))
    assert ("crun/no-net", "httpd") not in {(arm.platform, arm.workload) for arm in arms}
    assert ("crun/no-net", "noop") in {(arm.platform, arm.workload) for arm in arms}


def test_httpd_is_not_run_on_the_bare_process() -> None:
    arms = {(arm.platform, arm.workload) for arm in build_arms(plan_of())}
    assert ("process", "httpd") not in arms
    assert {("namespace", "httpd"), ("vm-direct", "httpd"), ("vm-microvm", "httpd")} <= arms
