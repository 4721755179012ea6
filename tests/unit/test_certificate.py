"""The parity certificate: what is alike, what is refused, and what is the point."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.precision import decide
from harness.analysis.report import render_report
from harness.analysis.results import Results, load_results
from harness.certificate import (
    DIFFER,
    KEY,
    NONE,
    Certificate,
    Condition,
    Conditions,
    build_certificate,
    build_document,
    find_differences,
    merge_conditions,
    parse_conditions,
)
from harness.conditions import format_cpus, is_volatile, parse_cpus, parse_mounts, read_profile
from harness.drivers.base import Processes
from harness.drivers.docker_answers import build_conditions as read_docker
from harness.drivers.domain_xml import Q35, Acceleration, DiskMode, Domain, Drive, build_domain_xml
from harness.drivers.domain_xml import read_conditions as read_domain
from harness.errors import InputError
from harness.model import Outcome
from harness.plan_file import read_plan
from harness.store import Store, write_samples
from harness.variants import find_points
from tests.unit.fakes import SPEC
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes

MIB = 1 << 20
ALIKE: Conditions = {
    "image": Condition("sha256:0"),
    "command": Condition('["true"]'),
    "memory": Condition(256 * MIB, "limit of its group"),
    "pids": Condition(NONE),
    "storage": Condition("disk", "layer on the host's ext4"),
    "network": Condition(NONE, "loopback only"),
}
GUEST: Conditions = {
    **ALIKE,
    "memory": Condition(256.0 * MIB, "the guest's memory"),
    "storage": Condition("disk", "disk image on the host's ext4"),
}
SMALL: Conditions = {**ALIKE, "memory": Condition(128 * MIB)}


def test_values_are_compared_and_means_are_not() -> None:
    assert find_differences(ALIKE, GUEST) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"memory": Condition(128 * MIB)}, "not alike: memory 256 MiB against 128 MiB"),
        ({"memory": Condition(NONE)}, "not alike: memory 256 MiB against none"),
        ({"memory": Condition(None)}, "not alike: memory 256 MiB against not known"),
        ({"image": Condition("sha256:1")}, "not alike: image sha256:0 against sha256:1"),
        (
            {"pids": Condition(64), "network": Condition("bridge")},
            "not alike: pids none against 64; network none against bridge",
        ),
    ],
)
def test_a_ratio_is_refused_with_both_values(changes: Mapping[str, Condition], reason: str) -> None:
    found = Certificate({("one", "noop"): ALIKE, ("two", "noop"): {**ALIKE, **changes}})
    assert found.find_refusal("one", "two", "noop") == reason


@pytest.mark.parametrize(
    "names",
    [
        {"allowed": frozenset({"memory"})},
        {"stated": {"one": frozenset({"memory"})}},
        {"stated": {"two": frozenset({"memory"})}},
    ],
)
def test_what_is_the_point_is_no_reason(names: dict[str, frozenset[str]]) -> None:
    arms = {("one", "noop"): ALIKE, ("two", "noop"): SMALL}
    found = Certificate(arms, **names)  # type: ignore[arg-type]
    assert found.find_refusal("one", "two", "noop") == ""
    assert [each.dimension for each in found.find_differences("one", "two", "noop")] == ["memory"]


def test_sizes_of_images_only_need_the_same_image() -> None:
    arms = {("one", "noop"): ALIKE, ("two", "noop"): SMALL}
    assert Certificate(arms).find_refusal("one", "two", "noop", of_image=True) == ""
    arms["two", "noop"] = {**SMALL, "image": Condition("sha256:1")}
    assert "image" in Certificate(arms).find_refusal("one", "two", "noop", of_image=True)


def test_what_trials_of_a_platform_do_not_agree_in_is_not_known() -> None:
    merged = merge_conditions([ALIKE, SMALL])
    assert merged["memory"].value is None and "every trial" in merged["memory"].how
    assert merged["image"] == ALIKE["image"]


UNREAD: Conditions = {**ALIKE, "pids": Condition(None)}


@pytest.mark.parametrize(
    ("trials", "merged"),
    [
        ([ALIKE, UNREAD, ALIKE], Condition(NONE, "read in 2 of 3 trials")),
        ([UNREAD, ALIKE, ALIKE], Condition(NONE, "read in 2 of 3 trials")),
        ([ALIKE, UNREAD], Condition(None, "read in 1 of 2 trials only")),
        ([UNREAD, UNREAD], Condition(None)),
        (
            [ALIKE, ALIKE, UNREAD, {**ALIKE, "pids": Condition(64)}],
            Condition(None, "not the same in every trial"),
        ),
    ],
)
def test_a_trial_that_could_not_be_read_does_not_take_the_ratio_from_all_others(
    trials: list[Conditions], merged: Condition
) -> None:
    found = {("one", "noop"): merge_conditions(trials), ("two", "noop"): ALIKE}
    assert found["one", "noop"]["pids"] == merged
    refusal = Certificate(found).find_refusal("one", "two", "noop")
    why = f" ({merged.how})" if merged.how else ""
    assert refusal == ("" if merged.value else f"not alike: pids not known{why} against none")


def test_a_certificate_survives_the_journal() -> None:
    assert parse_conditions(build_document(ALIKE)) == ALIKE
    assert parse_conditions("damaged") == {}


@pytest.mark.parametrize(
    ("platform", "points"),
    [
        ("namespace", set()),
        ("process", {"network"}),
        ("runc/memory=1GiB", {"memory"}),
        ("runc/host-net/cpus=2", {"network", "cpus"}),
        ("crun/no-limits", {"memory", "cpus", "pids", "disk", "io"}),
        ("docker/read-only", {"storage"}),
        ("vm-direct/disk=squashfs", {"storage"}),
        ("vm-direct/tuned", {"cpu-set"}),
        ("vm-direct/cache=unsafe", {"storage"}),
    ],
)
def test_a_variant_says_by_its_name_what_its_point_is(platform: str, points: set[str]) -> None:
    assert find_points(platform) == points


# ---- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"), [("0-3", "0-3"), ("0,2-3,5", "0,2-3,5"), ("1", "1"), ("0,1", "0-1")]
)
def test_cpus_are_read_and_said_in_the_words_of_the_kernel(text: str, shown: str) -> None:
    assert format_cpus(parse_cpus(f"Name:\tsh\nCpus_allowed_list:\t{text}\n")) == shown


def test_mounts_are_read_with_options_and_type() -> None:
    line = r"31 1 254:0 / /a\040b ro,relatime shared:1 - ext4 /dev/vda rw"
    assert parse_mounts(line) == [("/a b", "ro,relatime", "ext4", "rw")]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile", True),
        ("rw,lowerdir=/l,upperdir=/u,workdir=/w,fsync=volatile", True),
        ("rw,lowerdir=/l,upperdir=/u,workdir=/w", False),
        ("rw,lowerdir=/l,upperdir=/other,workdir=/w,volatile", False),
    ],
)
def test_a_layer_that_is_never_synced_is_told_by_its_mount(options: str, found: bool) -> None:
    line = f"31 1 0:40 / /merged rw,relatime - overlay overlay {options}\n"
    assert is_volatile(line, [Path("/u")]) is found


def test_a_domain_tells_its_network_its_rate_of_writing_and_where_it_writes() -> None:
    domain = Domain(
        name="d", machine=Q35, acceleration=Acceleration("tcg"), memory=256 * MIB, cpus=1,
        console=Path("/c"), drives=(Drive(Path("/d")),), bridge="hbr0", mode=DiskMode(write=4096),
    )  # fmt: skip
    found = read_domain(build_domain_xml(domain))
    assert (found["network"].value, found["io"].value) == ("bridge", 4096)
    assert "storage" not in found  # its files say that
    unsafe = replace(domain, mode=DiskMode(cache="unsafe"))
    assert read_domain(build_domain_xml(unsafe))["storage"].value == "volatile"
    bare = replace(domain, drives=(), bridge=None, mode=DiskMode())
    found = read_domain(build_domain_xml(bare))
    values = [found[name].value for name in ("network", "io", "storage")]
    assert values == [NONE, NONE, "memory"]


def test_a_daemon_tells_the_limits_of_groups_that_cannot_be_seen() -> None:
    asked = {"Memory": 256 * MIB, "CpuQuota": 100_000, "CpuPeriod": 100_000, "PidsLimit": 64}
    found = read_docker(asked, "overlay2", SPEC)
    values = [found[name].value for name in ("memory", "cpus", "pids", "io", "storage")]
    assert values == [256 * MIB, 1, 64, NONE, "disk"]
    assert read_docker({"PidsLimit": None}, None, SPEC)["pids"].value == NONE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('differ = ["memroy"]', "'memroy' is no dimension"),
        ("pids = 2", "2 is too little"),
        ('disk = "1MiB"', "1MiB is too little"),
        ('io = "1KiB"', "1KiB is too little"),
    ],
)
def test_a_wrong_limit_or_dimension_is_one_line(tmp_path: Path, line: str, words: str) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f"{line}\n")
    with pytest.raises(InputError, match=words):
        read_plan(plan, {}, new_seed=1)


# ---- in the report ---------------------------------------------------------------------------

RUN = Synthetic(platforms=("namespace", "runc", "vm-direct"), workloads=("noop",))


def conclude(folder: Path, conditions: Mapping[str, Conditions], differ: object = None) -> Results:
    """A run whose platforms have these conditions, loaded and with its report."""
    manifest = {**build_manifest(RUN), **({DIFFER: differ} if differ else {})}
    with Store.create(folder, manifest) as store:
        for outcome in build_outcomes(RUN):
            store.append(give(outcome, conditions))
    write_samples(folder)
    render_report(folder)
    return load_results(folder)


def give(outcome: Outcome, conditions: Mapping[str, Conditions]) -> Outcome:
    found = conditions.get(outcome.platform.removesuffix("#2"))
    details = {**outcome.details, KEY: build_document(found)} if found else outcome.details
    return replace(outcome, details=details)


def test_a_refused_ratio_is_nowhere_and_its_reason_is(tmp_path: Path) -> None:
    found = conclude(tmp_path / "r", {"namespace": ALIKE, "runc": ALIKE, "vm-direct": SMALL})
    assert found.find_ratio("vm-direct", "noop", "startup.ready") is None
    assert found.find_ratio("vm-direct", "noop", "disk.image_allocated")
    assert found.find_ratio("runc", "noop", "startup.ready")
    text = (tmp_path / "r" / "report.md").read_text()
    assert "withheld; not alike: memory 128 MiB against 256 MiB" in text
    assert "refused; not alike in memory" in text and "given; all alike" in text


def test_the_plan_can_say_that_the_difference_is_the_point(tmp_path: Path) -> None:
    arms = {"namespace": ALIKE, "runc": ALIKE, "vm-direct": SMALL}
    found = conclude(tmp_path / "r", arms, {"plan": ["memory"], "platforms": {}})
    assert found.find_ratio("vm-direct", "noop", "startup.ready")
    text = (tmp_path / "r" / "report.md").read_text()
    assert "given; memory differs, which is the point" in text
    assert "no control groups" not in text


def test_only_what_control_groups_limit_is_said_to_differ_for_want_of_them(
    tmp_path: Path,
) -> None:
    """The network of a baseline differs by nature, and a variant's memory by its name."""
    bare = {**ALIKE, "memory": Condition(NONE, "no control groups here")}
    other = {**bare, "network": Condition("host")}
    points = {
        "plan": ["cpus", "memory"],
        "platforms": {"runc": ["network"]},
        "unlimited": ["cpus", "memory"],
    }
    conclude(tmp_path / "r", {"namespace": bare, "runc": other, "vm-direct": ALIKE}, points)
    text = (tmp_path / "r" / "report.md").read_text()
    assert "given; network differs, which is the point" in text
    assert "given; memory differs, for want of control groups" in text
    own = {**points, "platforms": {"runc": ["network"], "vm-direct": ["memory"]}}
    conclude(tmp_path / "own", {"namespace": bare, "runc": other, "vm-direct": ALIKE}, own)
    text = (tmp_path / "own" / "report.md").read_text()
    assert "given; memory differs, which is the point" in text


def test_without_control_groups_machines_are_compared_and_a_warning_says_so(
    tmp_path: Path,
) -> None:
    bare = {**ALIKE, "memory": Condition(NONE, "no control groups here")}
    points = {"plan": ["cpus", "memory"], "platforms": {}, "unlimited": ["cpus", "memory"]}
    found = conclude(tmp_path / "r", {"namespace": bare, "runc": bare, "vm-direct": ALIKE}, points)
    assert found.find_ratio("vm-direct", "noop", "startup.ready")
    html = (tmp_path / "r" / "report.html").read_text()
    assert html.index("gave the run no control groups") < html.index('id="verdicts"')


def test_a_run_of_an_earlier_release_keeps_its_ratios_and_says_so(tmp_path: Path) -> None:
    found = conclude(tmp_path / "r", {})
    assert found.find_ratio("vm-direct", "noop", "startup.ready")
    assert "Parity certificate: not recorded" in (tmp_path / "r" / "report.md").read_text()


def test_a_refused_ratio_is_not_waited_for() -> None:
    arms = {"namespace": ALIKE, "runc": SMALL, "vm-direct": SMALL}
    plan = {"platforms": list(RUN.platforms), "seed": 1}
    outcomes = [give(each, arms) for each in build_outcomes(replace(RUN, blocks=20))]
    manifest = {"run_id": "r", "plan": plan}
    widest = decide(outcomes, manifest, 20, 0.5).widest
    assert widest is None or widest.metric.startswith("disk.image")
    assert build_certificate(outcomes, manifest).find_refusal("runc", "namespace", "noop")


# ---- what is only shown ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "file", "label", "said"),
    [
        ("Y", "apparmor/current", "unconfined", "no AppArmor profile"),
        ("Y", "apparmor/current", "docker-default (enforce)",
         "AppArmor profile docker-default (enforce)"),
        ("Y", "current", "unconfined", "no AppArmor profile"),
        ("N", "current", "unconfined", ""),
        (None, "current", "unconfined", ""),
        ("Y", None, "", ""),
    ],
    ids=["unconfined", "confined", "before 5.8", "off", "without", "ended"],
)  # fmt: skip
def test_the_profile_that_confines_a_container_is_said_where_the_kernel_has_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str | None, file: str | None,
    label: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("harness.conditions._APPARMOR", tmp_path / "enabled")
    if switch is not None:
        (tmp_path / "enabled").write_text(f"{switch}\n")
    if file is not None:
        place = tmp_path / "7/attr" / file
        place.parent.mkdir(parents=True)
        place.write_text(f"{label}\n\0")
    assert read_profile(Processes((7, 8), proc=tmp_path)) == said


def test_another_profile_refuses_no_ratio(tmp_path: Path) -> None:
    confined = {**ALIKE, "user": Condition("the agent's own", "AppArmor profile docker-default")}
    bare = {**ALIKE, "user": Condition("the agent's own", "no AppArmor profile")}
    found = conclude(tmp_path / "r", {"namespace": bare, "runc": confined, "vm-direct": bare})
    assert {platform for platform, _, _ in found.ratios} == {"runc", "vm-direct"}
    text = (tmp_path / "r" / "report.md").read_text()
    assert "no AppArmor profile" in text and "AppArmor profile docker-default" in text
