"""Common claims held against runs: which verdict each run gives, and which files of claims."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.claim_list import Claim, read_claims
from harness.analysis.claims import decide
from harness.analysis.report import render_report
from harness.analysis.results import load_results
from harness.errors import InputError
from harness.metrics import METRICS
from harness.model import Measurement
from harness.store import Store, write_samples
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes, write_run
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
        ("container", "process", "portability.first", "equivalent"),
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
    assert finding.note.startswith("the nearest of 2.") and "vm-microvm" in finding.note


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
