"""Figures as they are rendered: no overlap, no cut label, no empty figure, the same bytes."""

import csv
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from harness.analysis.plots import Drawing, draw_figures, layout, write_figures
from harness.analysis.plots.data import (
    HIGHEST,
    MOST_LINES,
    MOST_PLATFORMS,
    build_data,
    choose_platforms,
    format_csv,
    split_sheets,
)
from harness.analysis.plots.layout import Sheet, clean_svg
from harness.analysis.plots.moves import choose_ticks
from harness.analysis.plots.ratios import choose_ratio_ticks, format_tick
from harness.analysis.report.numbers import MOST_ROWS as SHOWN
from harness.analysis.report.numbers import build_numbers
from harness.analysis.results import Results, load_results
from harness.model import Measurement, Outcome
from harness.store import Store, write_samples
from tests.unit.synthetic import (
    MACHINES,
    Synthetic,
    build_manifest,
    build_outcomes,
    build_series,
    write_run,
)
from tests.unit.test_isolation import build_evidence

ODD = ("<b>bold</b> & co", "$x_1^2$ {tex}", "größe-容器-Ω", "a" * 120, "x" * 300 + "/y" * 40)
MANY = (
    "process", "namespace", "crun", "gvisor", *MACHINES,
    *(f"vm-direct/cpu=host/disk=erofs/upper=tmpfs/memory={n}MiB" for n in range(20)),
)  # fmt: skip
FAILING = [(arm, work) for arm in (*Synthetic().arms,) for work in Synthetic().workloads]

RUNS: Mapping[str, Synthetic] = {
    "one platform": Synthetic(platforms=("namespace",), aa=(), blocks=6),
    "four platforms": Synthetic(blocks=6),
    "32 platforms with long names": Synthetic(platforms=MANY, workloads=("noop",), blocks=4),
    "one block": Synthetic(blocks=1),
    "nothing of memory and disk": Synthetic(
        leave_out=("memory.pss", "memory.cgroup", "memory.overhead", "memory.guest_used",
                   "disk.image_allocated", "disk.instance_growth", "portability.first"),
    ),
    "no headline": Synthetic(leave_out=("startup.ready",)),
    "odd names": Synthetic(
        platforms=("namespace", *ODD), workloads=("noop", ODD[0], ODD[3]), aa=(), blocks=4,
    ),
    "all failed": Synthetic(failing=FAILING),
    "seven workloads": Synthetic(workloads=[f"work-{n}" for n in range(7)], blocks=2),
    "disturbed": Synthetic(blocks=6, marks=dict.fromkeys(range(0, 60, 3), ("steal",))),
}  # fmt: skip
EMPTY = {"all failed"}
WIDE = {"process": 1e-3, "vm-direct": 1e5, "vm-microvm": 40.0}


def load(folder: Path, plan: Synthetic) -> Results:
    return load_results(write_run(folder / "r", plan))


def load_changed(folder: Path, outcomes: Sequence[Outcome], plan: Synthetic) -> Results:
    with Store.create(folder / "r", build_manifest(plan)) as store:
        for outcome in outcomes:
            store.append(outcome)
    write_samples(folder / "r")
    return load_results(folder / "r")


def build_wide(outcome: Outcome) -> Outcome:
    """The same trial, its headlines multiplied so that ratios reach from 1e-3 to 1e5."""
    factor = WIDE.get(outcome.platform, 1.0)
    rows = tuple(replace(row, value=row.value * factor) for row in outcome.measurements)
    start = outcome.milestones["request"]
    times = {
        name: start + round((stamp - start) * factor) for name, stamp in outcome.milestones.items()
    }
    return replace(outcome, measurements=rows, milestones=times)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """Every sheet as it is when it would be written; writing it takes most of the time."""
    seen: list[Sheet] = []

    def keep(sheet: Sheet) -> tuple[bytes, bytes]:
        seen.append(sheet)
        return b"", b""

    monkeypatch.setattr(layout, "render", keep)
    return seen


def find_faults(sheet: Sheet) -> list[str]:
    """Texts that leave the canvas or touch another, panels that lie on each other."""
    figure = sheet.figure
    figure.draw_without_rendering()
    canvas = figure.bbox
    boxes = list(_list_boxes(sheet))
    faults = [
        f"{sheet.name}: {words!r} leaves the canvas"
        for words, box in boxes
        if box.x0 < canvas.x0 or box.y0 < canvas.y0 or box.x1 > canvas.x1 or box.y1 > canvas.y1
    ]
    faults += [
        f"{sheet.name}: {one!r} touches {other!r}"
        for (one, first), (other, second) in itertools.combinations(boxes, 2)
        if _touch(first, second)
    ]
    faults += [
        f"{sheet.name}: panels {first.y0:.0f} and {second.y0:.0f} lie on each other"
        for first, second in itertools.combinations([each.bbox for each in sheet.panels], 2)
        if _touch(first, second)
    ]
    return faults


def _list_boxes(sheet: Sheet) -> Iterator[tuple[str, Bbox]]:
    """Each visible text with the box that it fills, in dots of the PNG."""
    renderer = sheet.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    hidden = set(map(id, _list_hidden(sheet)))
    for text in sheet.figure.findobj(Text):
        assert isinstance(text, Text)
        if not text.get_text().strip() or not text.get_visible() or id(text) in hidden:
            continue
        yield text.get_text(), text.get_window_extent(renderer)


def _list_hidden(sheet: Sheet) -> Iterator[Text]:
    """Labels of ticks beyond the end of an axis, which are not drawn."""
    for axes in sheet.panels:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    yield from (tick.label1, tick.label2)


def _touch(one: Bbox, other: Bbox) -> bool:
    """Whether two boxes share more than the dot that rounding makes of a common edge."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    along = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(across > 1 and along > 1)


def flatten(sections: Mapping[str, Sequence[Drawing]]) -> list[Drawing]:
    return [each for drawings in sections.values() for each in drawings]


def assert_whole(results: Results, sheets: Sequence[Sheet]) -> list[Drawing]:
    drawings = flatten(draw_figures(results))
    assert [fault for sheet in sheets for fault in find_faults(sheet)] == []
    assert len({each.name for each in drawings}) == len(drawings) == len(sheets)
    for sheet in sheets:
        for axes in sheet.panels:
            assert axes.lines or axes.collections or axes.patches, f"{sheet.name} is empty"
    for each in drawings:
        assert each.data.rows and re.search(r"\b(n =|medians of) \d", each.note), each.name
        assert all(len(row) == len(each.data.head) for row in each.data.rows), each.name
    return drawings


@pytest.mark.parametrize("name", RUNS)
def test_nothing_overlaps_is_cut_or_empty(name: str, tmp_path: Path, sheets: list[Sheet]) -> None:
    drawings = assert_whole(load(tmp_path, RUNS[name]), sheets)
    assert bool(drawings) == (name not in EMPTY)


def test_ratios_over_eight_powers_of_ten_fit(tmp_path: Path, sheets: list[Sheet]) -> None:
    plan = Synthetic(blocks=6)
    outcomes = [build_wide(each) for each in build_outcomes(plan)]
    results = load_changed(tmp_path, outcomes, plan)
    drawings = assert_whole(results, sheets)
    found = [row for each in drawings if each.name == "ratios" for row in each.data.rows]
    values = [float(str(row[6])) for row in found if row[6] is not None]
    assert min(values) < 1e-2 and max(values) > 1e5


def test_what_is_measured_apart_has_figures_too(tmp_path: Path, sheets: list[Sheet]) -> None:
    """A density series with its starts, and probes of more platforms than a sheet has columns."""
    first = next(build_outcomes(Synthetic(workloads=("noop",))))
    series = [
        replace(each, measurements=(*each.measurements, Measurement("density.ready", 1 + n / 9)))
        for n, each in enumerate(build_series(200e6, 14))
    ]
    probes = [
        replace(first, trial=2000 + n, platform=name, details={"isolation": build_evidence()},
                workload="isolation", milestones={}, measurements=())
        for n, name in enumerate(("process", "namespace", "crun", "gvisor", ODD[0], ODD[3]))
    ]  # fmt: skip
    plan = Synthetic(blocks=4)
    drawings = assert_whole(
        load_changed(tmp_path, [*build_outcomes(plan), *series, *probes], plan), sheets
    )
    assert {"memory-density", "density-starts", "isolation", "isolation-2"} <= {
        each.name for each in drawings
    }


def test_the_check_itself_sees_what_overlaps(tmp_path: Path, sheets: list[Sheet]) -> None:
    draw_figures(load(tmp_path, Synthetic(blocks=3)))
    sheet = sheets[0]
    assert find_faults(sheet) == []
    text = sheet.figure.text(0.99, 0.5, "beyond the edge")
    assert find_faults(sheet) == [f"{sheet.name}: 'beyond the edge' leaves the canvas"]
    text.set_position((0.02, 0.5))
    text.set_text("over many labels\n" * 20)
    assert any("touches" in each for each in find_faults(sheet))


# ---- many ------------------------------------------------------------------------------------


def test_of_five_hundred_platforms_the_extremes_are_shown_and_said(
    tmp_path: Path, sheets: list[Sheet]
) -> None:
    names = ("namespace", *(f"vm-direct/n={number}" for number in range(499)))
    plan = Synthetic(platforms=names, workloads=("noop",), aa=(), blocks=1)
    drawings = assert_whole(load(tmp_path, plan), sheets)
    assert len(drawings) < 24
    memory = next(each for each in drawings if each.name == "memory-noop")
    assert f"{MOST_PLATFORMS} of 500 platforms shown" in memory.note
    assert len({row[3] for row in memory.data.rows}) == 500  # the CSV has them all
    assert sum(len(sheet.panels) for sheet in sheets) < 40


@pytest.mark.parametrize(
    ("heights", "sheets"),
    [
        ([], []),
        ([1.0], [(0, 1)]),
        ([20.0], [(0, 1)]),
        ([4.0, 4.0, 4.0], [(0, 2), (2, 3)]),
        ([HIGHEST, 0.1], [(0, 1), (1, 2)]),
    ],
)
def test_panels_are_spread_over_sheets(heights: list[float], sheets: list[tuple[int, int]]) -> None:
    assert split_sheets(heights) == sheets


def test_what_the_reader_compares_stays_and_is_said(tmp_path: Path) -> None:
    results = load(tmp_path, Synthetic(blocks=1))
    others = {f"p{number}": float(number) for number in range(40)}
    values = {**others, "namespace": 20.5, "vm-direct": 21.5}
    shown, said = choose_platforms(results, values, 6)
    assert shown == ["p0", "p1", "p38", "p39", "namespace", "vm-direct"]
    assert said == (
        "6 of 42 platforms shown: the reference, the first machine, of the others the 2 smallest "
        "and the 2 largest; the CSV has all"
    )
    few, said = choose_platforms(results, dict(list(others.items())[:16]), 16)
    assert len(few) == 16 and not said


def test_sixteen_platforms_are_drawn_in_every_figure(tmp_path: Path, sheets: list[Sheet]) -> None:
    names = ("process", "namespace", "crun", *(f"vm-direct/n={number}" for number in range(13)))
    plan = Synthetic(platforms=names, workloads=tuple(f"w{n}" for n in range(5)), aa=(), blocks=2)
    for each in assert_whole(load(tmp_path, plan), sheets):
        assert "platforms shown" not in each.note, each.name


def test_the_spread_of_starts_has_the_quickest_and_its_csv_has_all(
    tmp_path: Path, sheets: list[Sheet]
) -> None:
    names = ("process", "namespace", *(f"vm-direct/n={number}" for number in range(40)))
    plan = Synthetic(platforms=names, workloads=("noop", "long"), aa=(), blocks=2)
    quick = (each for each in build_outcomes(plan)
             if (each.platform, each.workload) != ("process", "noop"))  # fmt: skip
    outcomes = [
        replace(each, milestones={name: stamp * 1000 for name, stamp in each.milestones.items()})
        if each.workload == "long"
        else each
        for each in quick
    ]
    results = load_changed(tmp_path, outcomes, plan)
    drawing = next(each for each in flatten(draw_figures(results)) if each.name == "startup-ecdf")
    sheet = next(each for each in sheets if each.name == "startup-ecdf")
    keys = [text.get_text() for each in sheet.figure.legends for text in each.get_texts()]
    assert "process" in keys and "namespace" in keys and len(keys) == MOST_LINES
    assert "the 7 smallest and the 7 largest; the CSV has all" in drawing.note
    place = drawing.data.head.index("platform")
    assert {row[place] for row in drawing.data.rows} == set(names)


def test_captions_count_what_is_drawn(tmp_path: Path, sheets: list[Sheet]) -> None:
    plan = Synthetic(blocks=6)
    rows = [Measurement("disk.occupied", 4096.0 * number) for number in range(5)]
    series = [
        replace(each, measurements=(*each.measurements, row))
        for each, row in zip(build_series(1e6, 5), rows, strict=True)
    ]
    results = load_changed(tmp_path, [*build_outcomes(plan), *series], plan)
    notes = {each.name: each.note for each in flatten(draw_figures(results))}
    assert "n = 6 blocks; the same bytes in every block" in notes["disk-noop"]
    assert "the Theil–Sen slope over n = 5 steps of a density series" in notes["disk-noop"]
    assert "the same bytes in every block" in notes["portability-noop"]
    assert "interval" not in notes["glance-shipping"] and "95 %" in notes["glance-start"]
    assert "share in these seconds and the work together" in notes["break-even"]
    assert not any("  " in note for note in notes.values())


# ---- numbers ---------------------------------------------------------------------------------


def test_each_figure_has_exactly_its_numbers_beside_it(tmp_path: Path) -> None:
    results = load(tmp_path, Synthetic(blocks=6))
    sections = draw_figures(results)
    write_figures(results, sections)
    folder = results.folder / "plots"
    for drawing in flatten(sections):
        ElementTree.fromstring(drawing.svg)
        assert (folder / f"{drawing.name}.png").read_bytes() == drawing.png
        if drawing.part == 1:
            rows = list(csv.reader((folder / f"{drawing.name}.csv").open(encoding="utf-8")))
            assert len(rows) == len(drawing.data.rows) + 1
    memory = list(csv.DictReader((folder / "memory-noop.csv").open(encoding="utf-8")))
    figure = results.find("vm-direct", "noop", "memory.pss")
    row = next(each for each in memory if each["platform"] == "vm-direct")
    assert figure is not None and float(row["median (B)"]) == figure.median
    assert float(row["high (B)"]) == figure.high and row["accelerator"] == "tcg"
    ratios = list(csv.DictReader((folder / "ratios.csv").open(encoding="utf-8")))
    assert len(ratios) == len(results.ratios)


def test_what_is_unknown_is_empty_and_never_zero() -> None:
    data = build_data(("name", "time (s)"), [('a,"b"\n', None), ("c", 0.1)])
    assert format_csv(data) == b'name,time (s)\n"a,""b""\n",\nc,0.1\n'


def test_a_long_table_ends_with_where_the_rest_is(tmp_path: Path) -> None:
    results = load(tmp_path, Synthetic(platforms=("namespace", "vm-direct"), aa=(), blocks=30))
    drawing = next(each for each in flatten(draw_figures(results)) if each.name == "drift")
    table = build_numbers(results, drawing)
    assert len(table.rows) == SHOWN
    assert table.note.startswith(f"The first {SHOWN} of 120 rows; all are in `plots/drift.csv`")
    assert all("emulated (TCG)" in each.cells[0].text for each in table.rows
               if "vm-" in each.cells[0].text)  # fmt: skip


# ---- the same bytes --------------------------------------------------------------------------

_DIGEST = """
import hashlib, sys
from pathlib import Path
from harness.analysis.plots import draw_figures
from harness.analysis.plots.data import format_csv
from harness.analysis.results import load_results
for drawings in draw_figures(load_results(Path(sys.argv[1]))).values():
    for each in drawings:
        parts = each.svg + each.png + format_csv(each.data) + each.note.encode() + each.alt.encode()
        print(each.name, hashlib.sha256(parts).hexdigest())
"""


def test_the_same_samples_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "r", Synthetic(platforms=("namespace", "vm-direct"), aa=(), blocks=3)
    )
    settings = (
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "UTC"},
        {"PYTHONHASHSEED": "2", "LC_ALL": "de_DE.UTF-8", "TZ": "Pacific/Auckland"},
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _DIGEST, str(folder)], env={**os.environ, **each},
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )
        for each in settings
    ]  # fmt: skip
    printed = [each.communicate(timeout=110)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) > 8


def test_cleaning_touches_tags_alone() -> None:
    kept = clean_svg(b'<svg id="a"><text x="1.23456" id="b">1.23456 id="b"</text>\n</svg>')
    assert kept.endswith(b'<text x="1.23">1.23456 id="b"</text>\n</svg>')


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "0.5 ×"), (1, "1 ×"), (10_000, "10\N{NO-BREAK SPACE}000 ×"), (1e6, "10⁶ ×"),
     (1e-12, "10⁻¹² ×")],
)  # fmt: skip
def test_ratio_ticks_have_no_computer_notation(value: float, words: str) -> None:
    assert format_tick(value) == words


@pytest.mark.parametrize(
    ("low", "high"), [(0.9, 1.1), (0.5, 3), (1e-3, 1e5), (1e-30, 1e30), (0.83, 900)]
)
def test_ratio_axes_have_few_round_ticks_with_one_among_them(low: float, high: float) -> None:
    ticks = choose_ratio_ticks(low, high)
    assert 1.0 in ticks and 1 <= len(ticks) <= 7
    assert choose_ticks(0.02, 9)[0] >= 0.02
