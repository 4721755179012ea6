"""What the report says of virtual machines: the ladder, and how they were set up."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis import ladder, machines, tables
from harness.analysis.answer import build_answer, build_headline
from harness.analysis.report import render_report
from harness.analysis.results import Results, load_results
from harness.metrics import METRICS, PHASE_WORDS, describe_phase
from harness.model import MILESTONES, RESIDUAL, Measurement, Outcome
from harness.store import Store, read_manifest, write_manifest, write_samples
from tests.unit.synthetic import MACHINES, Synthetic, build_manifest, build_outcomes, write_run

PLAN = Synthetic(
    ("namespace", *MACHINES), (), blocks=6, told=True, hardware=("vm-microvm/tuned",)
)  # fmt: skip
EMULATED = [name for name in MACHINES if name not in PLAN.hardware]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("machines") / "r", PLAN)
    render_report(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return load_results(folder)


def read_markdown(folder: Path) -> str:
    return (folder / "report.md").read_text()


def parse_duration(text: str) -> tuple[float, float]:
    """Seconds, and half of the last digit that is printed."""
    number, unit = text.split()
    factor = {"s": 1.0, "ms": 1e-3}[unit]
    return float(number) * factor, 0.5 * 10 ** -len(number.partition(".")[2]) * factor


def require_sum(parts: Sequence[str], total: str) -> None:
    printed = [parse_duration(each) for each in parts if each not in ("–", "0 s")]
    whole, error = parse_duration(total)
    slack = error + sum(each for _, each in printed)
    assert sum(value for value, _ in printed) == pytest.approx(whole, abs=slack * 1.001)


def build_results(folder: Path, outcomes: Sequence[Outcome], plan: Synthetic = PLAN) -> Results:
    with Store.create(folder, build_manifest(plan)) as store:
        for outcome in outcomes:
            store.append(outcome)
    write_samples(folder)
    return load_results(folder)


def require_ladder(results: Results, workload: str) -> tables.Table:
    table = ladder.build_ladder(results, workload)
    assert table is not None
    return table


@pytest.mark.parametrize("workload", PLAN.workloads)
def test_the_printed_phases_add_up_to_the_printed_total(results: Results, workload: str) -> None:
    table = require_ladder(results, workload)
    last = table.head.index("sum of phases") - 1
    phases = [row for row in table.rows if row.goes_on]
    assert len(phases) == len(MACHINES)
    for row in phases:
        require_sum([cell.text for cell in row.cells[:last]], row.cells[last].text)


def test_they_add_up_also_where_a_milestone_got_lost(tmp_path: Path) -> None:
    plan = replace(PLAN, platforms=("vm-disk",), workloads=("noop",))
    outcomes = [
        replace(each, milestones=_lose(each)) if each.trial % 3 == 1 else each
        for each in build_outcomes(plan)
    ]
    table = require_ladder(build_results(tmp_path / "r", outcomes, plan), "noop")
    rungs, phases = (row.cells for row in table.rows)
    last = table.head.index("sum of phases") - 1
    require_sum([cell.text for cell in phases[:last]], phases[last].text)
    assert phases[table.head.index(RESIDUAL) - 1].text != "0 s"
    assert rungs[table.head.index("init") - 1].note.endswith("in 4 of 6 starts")


def _lose(outcome: Outcome) -> Mapping[str, int]:
    return {name: stamp for name, stamp in outcome.milestones.items() if name != "init"}


def test_the_ladder_reads_from_the_fastest_to_the_slowest(results: Results) -> None:
    table = require_ladder(results, "noop")
    order = [row.platform for row in table.rows if row.platform]
    found = [results.find(name, "noop", "startup.ready") for name in order]
    assert [f.median for f in found if f] == sorted(f.median for f in found if f)
    assert set(order) == set(MACHINES)
    assert order[0] == "vm-restore"


def test_a_milestone_that_a_machine_does_not_have_is_a_dash(results: Results) -> None:
    table = require_ladder(results, "noop")
    at = table.head.index("loader") - 1
    texts = {row.platform: row.cells[at].text for row in table.rows if row.platform}
    assert texts["vm-direct"] == "–"
    assert texts["vm-disk"] != "–"
    assert table.head[1:9] == (
        "created", "loader", "kernel", "initramfs", "system", "init", "exec", "ready",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "traits", "words"),
    [
        ("created", {"vm"}, "libvirt and QEMU"),
        ("created", {"container"}, "driver or engine"),
        ("loader", {"vm", "vm-disk"}, "firmware"),
        ("kernel", {"vm", "loader"}, "boot loader"),
        ("kernel", {"vm"}, "QEMU and firmware until the kernel's first byte"),
        ("initramfs", {"vm"}, "kernel"),
        ("system", {"vm"}, "initramfs"),
        ("init", {"vm", "system"}, "systemd until the unit"),
        ("init", {"vm", "vm-direct"}, "kernel and initramfs until the agent"),
        ("init", {"vm", "vm-restore"}, "until the restored guest answers"),
        ("exec", {"vm", "vm-direct"}, "agent: modules, root and network"),
        ("ready", {"vm"}, "the workload"),
        ("no-such-phase", {"vm"}, ""),
    ],
)
def test_a_phase_is_said_in_the_words_of_its_platform(
    phase: str, traits: set[str], words: str
) -> None:
    assert describe_phase(phase, traits) == words


def test_every_phase_has_words_for_any_platform() -> None:
    known = {name for name, where, _ in PHASE_WORDS if not where}
    assert known == {*MILESTONES[1:-1], RESIDUAL}


def test_a_stop_is_split_and_adds_up(results: Results) -> None:
    table = ladder.build_stops(results, "noop")
    assert table is not None
    assert len(table.rows) == len(MACHINES)
    for row in table.rows:
        *parts, total = (cell.text for cell in row.cells)
        require_sum(parts, total)
    notes = {cell.note for row in table.rows for cell in row.cells}
    assert any(re.fullmatch(r"in \d of 6 stops", note) for note in notes)


def test_tunings_are_named_once_with_their_reasons(results: Results) -> None:
    table = machines.build_tunings(results)
    assert table is not None
    model, pages = table.rows
    assert model.head == "`cpu-model`"
    assert "`vm-direct/tuned`, emulated (TCG); `vm-microvm/tuned`, KVM" in model.cells[-1].text
    assert pages.cells[2] == tables.Cell("not applied", "the host has no huge pages", "doubt")


def test_every_machine_says_how_its_accelerator_was_proved(results: Results) -> None:
    table = machines.build_accelerators(results)
    assert table is not None
    named = " ".join(row.head for row in table.rows)
    assert all(f"`{name}`" in named for name in MACHINES)
    assert {row.cells[0].text for row in table.rows} == {"KVM", "emulated (TCG)"}


def test_accelerators_may_stand_in_the_manifest_by_platform(tmp_path: Path) -> None:
    plan = Synthetic(("vm-direct",), (), ("noop",), blocks=1)
    folder = write_run(tmp_path / "r", plan)
    proofs = {"vm-direct": {"name": "tcg", "proved": True, "reason": "there is no /dev/kvm"}}
    write_manifest(folder, {**read_manifest(folder), "accelerator": proofs})
    table = machines.build_accelerators(load_results(folder))
    assert table is not None
    assert table.rows[0].cells[1].text == "there is no /dev/kvm"


def test_a_disk_says_what_it_holds_beyond_the_image(folder: Path) -> None:
    page = (folder / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    markdown = read_markdown(folder)
    said = "the disk holds these 47 packages (96.8 MiB) beyond the container image"
    assert markdown.count(said) == page.count(said) == 1
    assert "`package-12` 1.12-2, 1.03 MiB; " in markdown
    assert "`/etc/machine-id`" in markdown
    assert "<summary>47 packages beyond the container image</summary>" in page


def test_the_guests_own_clock_is_labelled(folder: Path) -> None:
    label = "As seen by the guest: its own clock, never compared with the figures above"
    assert label in read_markdown(folder)
    assert label in (folder / "report.html").read_text()
    assert re.search(
        r"\| `vm-disk`, emulated \(TCG\) +\| `noop` +\| 4.20 s +\|", read_markdown(folder)
    )


NEW = ("rung by rung", "ladder of virtual", "What a tuned", "Accelerator of each", "beyond the con",
       "As seen by the guest", "what a stop is made of", "stop_phase", "Paths of the")  # fmt: skip


def test_none_of_it_is_there_for_containers_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", Synthetic(("process", "namespace"), blocks=3, told=True))
    render_report(folder)
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert [each for each in NEW if each in text] == []
    plot = (folder / "plots/startup-linear.svg").read_text()
    assert "to created" in plot
    assert "driver or engine" not in plot


def test_machines_that_tell_nothing_have_a_ladder_and_no_more(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", Synthetic(("namespace", "vm-direct"), (), blocks=3))
    render_report(folder)
    text = read_markdown(folder)
    assert [each for each in NEW if each in text] == list(NEW[:2])


@pytest.mark.parametrize("value", [None, 7, "text", [None, 3], {"a": None}])
@pytest.mark.parametrize("key", ["tuning", "system", "accelerator", "accelerator_reason"])
def test_no_shape_of_a_start_breaks_the_tables(tmp_path: Path, key: str, value: object) -> None:
    plan = Synthetic(("vm-disk/tuned",), (), ("noop",), blocks=1, told=True)
    folder = write_run(tmp_path / "r", plan)
    manifest = json.loads(json.dumps(read_manifest(folder)))
    manifest["platforms"]["vm-disk/tuned"]["start"][key] = value
    write_manifest(folder, manifest)
    found = load_results(folder)
    machines.build_tunings(found)
    machines.build_accelerators(found)
    machines.build_extras(found)


# ---- emulated, in every figure -----------------------------------------------------------------


def test_every_row_that_names_an_emulated_machine_says_so(folder: Path) -> None:
    rows = [line for line in read_markdown(folder).splitlines() if line.startswith("|")]
    for name in EMULATED:
        named = [row for row in rows if f"`{name}`" in row]
        assert len(named) > 12, name
        assert [row for row in named if not re.search(rf"`{name}`, emulated \(TCG\)", row)] == []
    mixed = [row for row in rows if row.startswith("| `vm-microvm/tuned`")]
    assert [row for row in mixed if "`vm-microvm/tuned`, KVM" not in row] == []


def test_every_sentence_that_names_an_emulated_machine_says_so(results: Results) -> None:
    said = [build_headline(results)]
    said += [each for statement in build_answer(results) for each in statement.sentences]
    for name in EMULATED:
        named = [each for each in said if f"`{name}`" in each]
        assert named, name
        assert [each for each in named if "emulated" not in each] == []


def test_every_caption_and_every_picture_says_what_was_emulated(folder: Path) -> None:
    lines = read_markdown(folder).splitlines()
    captions = [line for line in lines if re.match(r"\*[^*]", line)]
    pictures = [line for line in lines if line.startswith("![")]
    assert len(captions) == len(pictures) >= 8
    assert [each for each in [*captions, *pictures] if "emulated (TCG)" not in each] == []
    drawn = list((folder / "plots").glob("*.svg"))
    assert len(drawn) == len(pictures)
    assert [each.name for each in drawn if "emulated (TCG)" not in each.read_text()] == []


def test_a_machine_alone_is_named_as_emulated(tmp_path: Path) -> None:
    plan = Synthetic(("vm-direct",), ("vm-direct",), ("noop",), blocks=3)
    said = build_answer(load_results(write_run(tmp_path / "r", plan)))
    named = [each for statement in said for each in statement.sentences if "`vm-direct`" in each]
    assert len(named) >= 3
    assert [each for each in named if "emulated" not in each] == []


def test_no_cpu_figure_is_a_headline() -> None:
    assert not METRICS["startup.cpu"].headline
    assert not METRICS["startup.stop_phase"].headline
    assert "startup.cpu" not in {column.metric for column in tables.GLANCE}


def test_any_packing_has_its_row(tmp_path: Path) -> None:
    plan = Synthetic(("vm-direct",), (), ("noop",), blocks=1)
    added = [Measurement("disk.image_allocated", 5 << 20, name) for name in ("squashfs", "novel")]
    outcomes = [
        replace(each, measurements=(*each.measurements, *added)) for each in build_outcomes(plan)
    ]
    found = build_results(tmp_path / "r", outcomes, plan)
    table = tables.build_packings(found, "noop", ("disk.image_allocated",))
    assert table is not None
    packings = [row.cells[0] for row in table.rows]
    assert tables.Cell("`squashfs`", "squashfs, read-only") in packings
    assert tables.Cell("`novel`") in packings
