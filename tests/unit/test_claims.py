"""Common claims held against runs: which verdict each run gives, and which files of claims."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.claim_list import Claim, read_claims
from harness.analysis.claims import Finding, decide
from harness.analysis.claims_apart import judge_apart
from harness.analysis.claims_table import build_claims
from harness.analysis.report import render_report
from harness.analysis.results import Figure, compare_pairs, load_results
from harness.errors import InputError
from harness.metrics import METRICS
from harness.model import Measurement
from harness.store import Store, write_samples
from tests.unit.synthetic import (
    Synthetic,
    build_manifest,
    build_outcomes,
    write_run,
    write_with_readiness,
)
from tests.unit.test_isolation import PROBE, build_evidence

RUN = Synthetic(("process", "namespace", "vm-direct"), ("namespace",), ("noop",), blocks=8)
KVM = replace(RUN, accelerator="kvm")
USUAL = {claim.id: claim for claim in read_claims()}


def find_verdicts(folder: Path, plan: Synthetic) -> dict[str, str]:
    results = load_results(write_run(folder, plan))
    return {name: decide(results, claim).verdict for name, claim in USUAL.items()}


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (RUN, {"lighter": "supported", "faster": "supported", "portable": "supported"}),
        (RUN, {"fewer-resources": "withheld"}),
        (KVM, {"faster": "supported", "fewer-resources": "supported"}),
        (replace(RUN, platforms=("namespace", "vm-direct", "vm-disk"), accelerator="kvm",
                 hardware=("vm-direct",)), {"fewer-resources": "supported"}),
        (replace(RUN, platforms=("namespace", "vm-direct", "vm-disk"), accelerator="tcg",
                 hardware=("vm-direct",)), {"fewer-resources": "withheld"}),
        (replace(RUN, blocks=4), {"lighter": "inconclusive", "portable": "supported"}),
        (replace(RUN, blocks=2), {"lighter": "withheld", "faster": "withheld"}),
        (replace(RUN, marks=dict.fromkeys(range(4, 30), ("steal",))), {"faster": "withheld"}),
        (replace(RUN, leave_out=("memory.pss",)), {"lighter": "not measured"}),
        (replace(RUN, platforms=("process", "namespace")), dict.fromkeys(USUAL, "not measured")),
        (replace(RUN, platforms=("vm-direct",), aa=()), dict.fromkeys(USUAL, "not measured")),
        (replace(RUN, blocks=0), dict.fromkeys(USUAL, "not measured")),
        (replace(RUN, failing=[("vm-direct", "noop")]), dict.fromkeys(USUAL, "not measured")),
        (RUN, dict.fromkeys(
            ("slim-bases", "layer-order", "shared-kernel", "weaker-isolation", "cheaper-updates"),
            "not measured")),
    ],
)  # fmt: skip
def test_each_run_gives_its_verdicts(
    tmp_path: Path, plan: Synthetic, expected: Mapping[str, str]
) -> None:
    found = find_verdicts(tmp_path / "r", plan)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("smaller", "larger", "metric", "verdict"),
    [
        ("container", "vm", "startup.ready", "supported"),
        ("vm", "container", "startup.ready", "refuted"),
        ("vm-direct", "namespace", "memory.pss", "refuted"),
        ("namespace", "vm-direct", "memory.pss", "supported"),
        ("process", "container", "disk.image_allocated", "equivalent"),
        ("container", "process", "portability.first", "equivalent"),  # zstd is zstd's measure
        ("container", "vm", "disk.reclaimed", "supported"),  # outside the run's family, exact
        ("sandbox", "vm", "startup.ready", "not measured"),
        ("container", "vm", "memory.marginal", "not measured"),
    ],
)
def test_a_claim_is_what_its_sides_make_of_it(
    tmp_path: Path, smaller: str, larger: str, metric: str, verdict: str
) -> None:
    claim = Claim("mine", "Mine", "Mine", metric, smaller=smaller, larger=larger)
    assert decide(load_results(write_run(tmp_path / "r", RUN)), claim).verdict == verdict


def test_one_machine_that_does_otherwise_refutes_what_another_supports(tmp_path: Path) -> None:
    plan = replace(RUN, platforms=("namespace", "vm-direct", "vm-direct/disk=erofs/upper=tmpfs"))
    claim = Claim("disk", "Smaller", "Smaller", "disk.image_allocated")
    finding = decide(load_results(write_run(tmp_path / "r", plan)), claim)
    assert finding.verdict == "refuted"
    assert "erofs" in finding.note


def test_the_weakest_support_is_the_one_that_is_shown(tmp_path: Path) -> None:
    plan = replace(RUN, platforms=("namespace", "vm-disk", "vm-microvm"))
    finding = decide(load_results(write_run(tmp_path / "r", plan)), USUAL["faster"])
    assert finding.note.startswith("the nearest of 2 pairs: ") and "vm-microvm" in finding.note


def test_every_container_is_held_against_every_machine_and_the_nearest_pair_is_named(
    tmp_path: Path,
) -> None:
    plan = replace(RUN, platforms=("namespace", "crun", "vm-disk", "vm-microvm"))
    results = load_results(write_run(tmp_path / "r", plan))
    finding = decide(results, USUAL["faster"])
    assert finding.verdict == "supported"
    assert finding.note.startswith("the nearest of 4 pairs: `crun`: ")
    assert "`vm-microvm`" in finding.note and "`namespace`" not in finding.note
    ratio = results.find("vm-microvm", "noop", "startup.ready").median / (  # type: ignore[union-attr]
        results.find("crun", "noop", "startup.ready").median  # type: ignore[union-attr]
    )
    assert float(finding.figure.split()[0]) == pytest.approx(ratio, rel=0.05)


def test_a_container_other_than_the_reference_refutes_too(tmp_path: Path) -> None:
    plan = replace(RUN, platforms=("namespace", "vm-disk", "vm-direct"),
                   kinds={"vm-disk": "container"})  # fmt: skip
    finding = decide(load_results(write_run(tmp_path / "r", plan)), USUAL["faster"])
    assert finding.verdict == "refuted"
    assert finding.note.startswith("1 of 2 pairs: `vm-disk`: ")


def test_the_pairs_of_a_claim_are_corrected_as_one_family(tmp_path: Path) -> None:
    """By hand: the smallest of six p-values is multiplied by six, the next by five."""
    plan = replace(RUN, platforms=("namespace", "crun", "vm-disk", "vm-microvm", "vm-direct"),
                   spread=0.6)  # fmt: skip
    results = load_results(write_run(tmp_path / "r", plan))
    sides = (("namespace", "crun"), ("vm-disk", "vm-microvm", "vm-direct"))
    found = compare_pairs(results, "startup.ready", "noop", sides)
    assert set(found) == set(itertools.product(*sides))
    single = {
        pair: compare_pairs(results, "startup.ready", "noop", ((pair[0],), (pair[1],)))[pair].p
        for pair in found
    }
    steps = [p * (6 - place) for place, p in enumerate(sorted(single.values()))]
    corrected = [max(steps[: place + 1]) for place in range(6)]
    assert sorted(each.p for each in found.values()) == pytest.approx(corrected)


def test_where_the_run_compared_the_two_its_own_verdict_counts(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", RUN))
    own = results.find_ratio("vm-direct", "noop", "startup.ready")
    assert own is not None
    other = replace(own, verdict="faster")
    ratios = {**results.ratios, ("vm-direct", "noop", "startup.ready"): other}
    finding = decide(replace(results, ratios=ratios), USUAL["faster"])
    assert finding.verdict == "refuted"


@pytest.mark.parametrize(
    ("machine", "verdict", "words"),
    [
        ({"casync": 25e3, "overlay": 1e6, "qcow2": 2e6}, "depends on the packing",
         "supported against `overlay`, `qcow2`; refuted against `casync`"),
        ({"overlay": 1e6, "qcow2": 2e6}, "supported", "`overlay` 977 KiB, `qcow2` 1.91 MiB"),
        ({"casync": 25e3}, "refuted", "`casync` 24.4 KiB"),
        ({"casync": 641e3}, "equivalent", "`casync` 626 KiB"),
        ({"qcow2": 655e3}, "depends on the packing",
         "supported for `oci-gzip` against `qcow2`; equivalent for `oci-zstd` against `qcow2`"),
    ],
)  # fmt: skip
def test_packings_are_named_and_where_they_disagree_it_depends(
    tmp_path: Path, machine: Mapping[str, float], verdict: str, words: str
) -> None:
    container = {"oci-gzip": 620e3 if "qcow2" in machine and len(machine) == 1 else 643e3,
                 "oci-zstd": 644e3}  # fmt: skip
    finding = decide_packings(tmp_path / "r", {"namespace": container, "vm-direct": machine})
    assert finding.verdict == verdict
    assert words in finding.note
    assert "`oci-gzip`" in finding.note and "`oci-zstd` 629 KiB" in finding.note


def test_a_packing_of_too_few_blocks_is_named_and_not_judged(tmp_path: Path) -> None:
    sizes = {"namespace": {"oci-gzip": 643e3}, "vm-direct": {"casync": 25e3, "qcow2": 2e6}}
    finding = decide_packings(tmp_path / "r", sizes, few="casync")
    assert finding.verdict == "supported"
    assert "`casync` 24.4 KiB (withheld)" in finding.note


def decide_packings(
    folder: Path, sizes: Mapping[str, Mapping[str, float]], few: str = ""
) -> Finding:
    """The finding on updates, of bytes by platform and packing; ``few`` is of two blocks alone."""
    with Store.create(folder, build_manifest(RUN)) as store:
        for each in build_outcomes(RUN):
            known = sizes.get(each.platform, {})
            more = tuple(
                Measurement("portability.update", value, name)
                for name, value in known.items()
                if name != few or each.block < 3
            )
            store.append(replace(each, measurements=(*each.measurements, *more)))  # fmt: skip
    write_samples(folder)
    return decide(load_results(folder), USUAL["cheaper-updates"])


@pytest.mark.parametrize(
    ("good", "bad", "verdict", "words"),
    [
        ((41682, 41686), (2215899, 2215957), "supported", "40.7 KiB (41682–41686 B)"),
        ((100e3, 130e3), (120e3, 200e3), "inconclusive", "the ranges overlap or touch"),
        ((100e3, 101e3), (101e3, 102e3), "equivalent", ""),
        ((100e3, 101e3), (104e3, 120e3), "inconclusive", ""),
    ],
)
def test_bytes_with_a_small_range_have_a_verdict(
    tmp_path: Path,
    good: tuple[float, float],
    bad: tuple[float, float],
    verdict: str,
    words: str,
) -> None:
    folder = tmp_path / "r"
    with Store.create(folder, build_manifest(RUN)) as store:
        for each in build_outcomes(RUN):
            side = each.block % 2
            more = (Measurement("rebuild.shipped", good[side], "code/good/oci-gzip"),
                    Measurement("rebuild.shipped", bad[side], "code/bad/oci-gzip"))  # fmt: skip
            store.append(replace(each, measurements=(*each.measurements, *more)))
    write_samples(folder)
    finding = decide(load_results(folder), USUAL["layer-order"])
    assert finding.verdict == verdict
    assert words in finding.note


def test_seconds_that_are_not_paired_have_no_verdict() -> None:
    one, other = (Figure(3, middle, middle - 0.1, middle, "s") for middle in (1.0, 5.0))
    assert judge_apart(one, other, "").verdict == "inconclusive"


@pytest.mark.parametrize(
    ("name", "plan", "text", "tone"),
    [
        ("faster", RUN, "supported on this host only", "doubt"),
        ("lighter", RUN, "supported on this host only", "doubt"),
        ("portable", RUN, "supported", "better"),
        ("faster", KVM, "supported", "better"),
        ("fewer-resources", RUN, "withheld", "doubt"),
        ("faster", replace(RUN, platforms=("namespace", "vm-direct", "vm-disk"),
                           hardware=("vm-disk",)), "supported on this host only", "doubt"),
    ],
)  # fmt: skip
def test_what_emulation_changes_is_said_of_this_host_only_and_is_not_green(
    tmp_path: Path, name: str, plan: Synthetic, text: str, tone: str
) -> None:
    table = build_claims(load_results(write_run(tmp_path / "r", plan)), [USUAL[name]], ())
    assert table is not None
    cell = table.rows[0].cells[1]
    assert (cell.text, cell.tone) == (text, tone)
    if plan is RUN and text != "withheld":
        assert cell.note == "emulated (TCG)"


def test_the_memory_claim_is_of_a_workload_that_runs_and_names_the_daemon(tmp_path: Path) -> None:
    plan = replace(RUN, platforms=("namespace", "crun", "vm-direct"), workloads=("noop", "httpd"))
    folder = write_with_readiness(tmp_path / "r", plan, {"crun": 121 * 2**20})
    finding = decide(load_results(folder), USUAL["lighter"])
    assert finding.note.startswith("with `httpd`: the nearest of 2 pairs: `crun`: ")
    assert finding.note.count("+ 121 MiB once, for its daemon") == 2
    assert "a first instance takes 121 MiB" in finding.note
    alone = replace(plan, workloads=("noop",))
    other = load_results(write_with_readiness(tmp_path / "s", alone, {}))
    assert "with `noop`, after its workload has ended: " in decide(other, USUAL["lighter"]).note


def test_isolation_by_definition_is_said_to_be_so(tmp_path: Path) -> None:
    own = {"namespace": "b-1", "vm-direct": "b-2"}
    rows = [("isolation.calls", 300.0, "")]
    assert decide_with(tmp_path / "s", rows, "weaker-isolation", own) == "supported"
    finding = decide(load_results(tmp_path / "s"), USUAL["weaker-isolation"])
    assert "A guest's calls go to its own kernel and count as none" in finding.note
    assert "which by definition reaches none" in USUAL["weaker-isolation"].hypothesis


def test_an_emulated_machine_is_named_as_such_in_every_finding(tmp_path: Path) -> None:
    results = load_results(write_run(tmp_path / "r", RUN))
    for name in ("lighter", "faster", "portable", "fewer-resources"):
        assert "emulated (TCG)" in decide(results, USUAL[name]).note


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [(4e6, 9e6, "supported"), (9e6, 4e6, "refuted"), (5e6, 5.1e6, "equivalent")],
)
def test_the_order_of_layers_is_read_from_what_is_shipped(
    tmp_path: Path, good: float, bad: float, verdict: str
) -> None:
    rows = [("rebuild.shipped", good, "code/good/oci-gzip"),
            ("rebuild.shipped", bad, "code/bad/oci-gzip")]  # fmt: skip
    assert decide_with(tmp_path / "r", rows, "layer-order") == verdict


@pytest.mark.parametrize(
    ("boots", "verdict"),
    [(("b-1", "b-2"), "supported"), (("b-1", "b-1"), "refuted"), (("b-2", "b-2"), "refuted")],
)
def test_whose_kernel_answers_decides(tmp_path: Path, boots: tuple[str, str], verdict: str) -> None:
    own = dict(zip(("namespace", "vm-direct"), boots, strict=True))
    assert decide_with(tmp_path / "r", [], "shared-kernel", own) == verdict
    if verdict == "supported":
        rows = [("isolation.calls", 300.0, "")]
        assert decide_with(tmp_path / "s", rows, "weaker-isolation", own) == "supported"


def decide_with(
    folder: Path,
    rows: list[tuple[str, float, str]],
    name: str,
    boots: Mapping[str, str] | None = None,
) -> str:
    """The verdict on a claim of a run whose trials have these ``rows`` and probes as well."""
    with Store.create(folder, build_manifest(RUN)) as store:
        for each in build_outcomes(RUN):
            details = dict(each.details)
            if boots and each.platform in boots:
                text = PROBE.replace("kernel boot b-1", f"kernel boot {boots[each.platform]}")
                outside = [] if boots[each.platform] == "b-2" else [{"name": "agent"}]
                details["isolation"] = {**build_evidence(text), "outside": outside}
            more = tuple(Measurement(*row) for row in rows)
            store.append(replace(each, measurements=(*each.measurements, *more), details=details))
    write_samples(folder)
    return decide(load_results(folder), USUAL[name]).verdict


# ---- files of claims ---------------------------------------------------------------------------

GOOD = """[[claims]]
id = "smaller-disk"
claim = "Containers are <b>smaller</b>|`x"
hypothesis = "An image takes less disk space"
metric = "disk.image_allocated"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("image_allocated", "image_allocatd"), "did you mean 'disk.image_allocated'"),
        (GOOD.replace("disk.image_allocated", "zzz"), "`list metrics` has all of them"),
        (GOOD.replace("metric", "metrik"), "did you mean 'metric'"),
        (GOOD.replace("smaller-disk", "faster"), "there is a claim 'faster' already"),
        (GOOD.replace("smaller-disk", "a b"), "cannot be a link"),
        (GOOD.replace('id = "smaller-disk"\n', ""), "key 'id': is missing"),
        (GOOD + 'by = "magic"', "key 'by'"),
        (GOOD + 'smaller = "vm"', "held against itself"),
        (GOOD + 'by = "calls"', "counts isolation.calls"),
        (GOOD.replace('metric = "disk.image_allocated"\n', ""), "key 'metric' is missing"),
        ("[[claim]]", "write [[claims]]"),
        ("claims = 3", "no [[claims]] in it"),
        ("claims = [3]", "this is no table"),
        ("[[", "not valid TOML"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_one_clear_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_claims([path])
    assert words in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_claims_of_ones_own_are_tested_beside_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    folder = write_run(tmp_path / "r", RUN)
    render_report(folder, claims=(path,))
    html, markdown = ((folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "Containers are &lt;b&gt;smaller&lt;/b&gt;|`x" in html
    assert "**Containers are &lt;b>smaller&lt;/b>|\\`x**: supported, emulated (TCG)" in markdown
    assert html.count('href="#startup"') >= 2  # the contents, and the evidence of a claim
    assert 'href="#rebuild"' not in html  # nothing of it was measured


def test_the_usual_claims_are_those_that_are_heard_and_their_metrics_exist() -> None:
    assert len(USUAL) == 9
    assert {each.metric for each in USUAL.values()} - {""} <= set(METRICS)
