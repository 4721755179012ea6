"""The content of a report, in order, as plain data: what the templates then only lay out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis import (
    alike,
    bases,
    break_even,
    certainty,
    crowd,
    efficiency,
    ladder,
    machines,
    method,
    moves,
    rebuild,
    space,
    storm,
    tables,
    tails,
    walls,
)
from harness.analysis.answer import (
    Statement,
    build_answer,
    build_headline,
    build_verdicts,
    find_workload,
)
from harness.analysis.beside import LEAD as BESIDE
from harness.analysis.beside import build_tables as build_beside_tables
from harness.analysis.claim_list import Claim
from harness.analysis.claims_table import build_claims
from harness.analysis.elsewhere import CHAPTERS, Evidence
from harness.analysis.isolation import LEAD as ISOLATION
from harness.analysis.isolation import is_alone as is_isolation_alone
from harness.analysis.isolation import say_unprobed
from harness.analysis.machines import Extras
from harness.analysis.memory import say_ended
from harness.analysis.method import Fact
from harness.analysis.plots import Drawing
from harness.analysis.published_tables import build_published
from harness.analysis.report.numbers import build_numbers
from harness.analysis.results import Results
from harness.analysis.tables import Table
from harness.analysis.wording import describe_accelerators, quote
from harness.store.foreign import ForeignFile


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A figure with its data, both optional: a figure may lack data, a table needs no figure.

    ``folded`` data is behind a fold; other tables are an exhibit of their own. ``fold`` names a
    fold that is shut at first, without a figure too. ``unprinted`` is what stands on paper instead
    of tables that are not for reading there.
    """

    drawing: Drawing | None
    tables: tuple[Table, ...]
    folded: bool = True
    fold: str = ""
    unprinted: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter: its anchor, title, opening sentences and exhibits; ``missing`` says what is not
    there and why.
    """

    anchor: str
    title: str
    lead: str
    exhibits: tuple[Exhibit, ...]
    missing: str = ""
    extras: tuple[Extras, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    ``opening`` is the answer alone, with the small figures ``glances``; ``answer`` is all that it
    leaves out, with the table ``glance``. ``certificate`` is the place of what shows that platforms
    were given the same.
    """

    run_id: str
    colours: Mapping[str, str]
    title: str
    summary: str
    emulated: str
    headline: str
    opening: tuple[Statement, ...]
    glances: tuple[Drawing, ...]
    answer: tuple[Statement, ...]
    glance: Table | None
    claims: Table | None
    sections: tuple[Section, ...]
    failures: Table | None
    method: tuple[str, ...]
    method_tables: tuple[Table, ...]
    certificate: tuple[Table, ...]
    host: tuple[Fact, ...]
    images: tuple[Fact, ...]
    noise: tuple[str, ...]
    left_out: tuple[str, ...]
    repeat: str | None


def build_page(
    results: Results,
    drawings: dict[str, list[Drawing]],
    brought: Sequence[ForeignFile] = (),
    claims: Sequence[Claim] = (),
    others: Sequence[Evidence] = (),
) -> Page:
    """Everything a reader is to see, from summarised results and finished figures.

    ``brought`` are files of other tools, which have a section of their own; ``others`` are runs of
    the same host, whose chapters come after the run's own.
    """
    opening, rest = _split_answer(results)
    built = (*_build_sections(results, drawings), *_build_beside(results, brought))
    shown = [_show_numbers(results, each) for each in built]
    own = _order_sections([_add_published(each, results) for each in shown])
    sections = (*own, *_build_elsewhere(results, {each.anchor for each in own}, others))
    found = (
        method.build_definitions(results), method.build_channel(results),
        method.build_marks(results), machines.build_accelerators(results),
        machines.build_tunings(results),
    )  # fmt: skip
    return Page(
        run_id=str(results.manifest["run_id"]),
        colours=_join_colours(results, others),
        title="Container or virtual machine?",
        summary=method.build_summary_line(results),
        emulated=describe_accelerators(results),
        headline=build_headline(results),
        opening=opening,
        glances=tuple(drawings.get("glance", ())),
        answer=rest,
        glance=tables.build_glance(results, find_workload(results)),
        claims=build_claims(results, claims, {each.anchor for each in sections}, others),
        sections=sections,
        failures=method.build_failures(results),
        method=(*method.build_method(results), *alike.build_sentences(results)),
        method_tables=tuple(table for table in found if table is not None and table.rows),
        certificate=tuple(alike.build_tables(results)),
        host=tuple(method.build_host(results)),
        images=tuple(method.build_images(results)),
        noise=tuple(method.build_noise(results)),
        left_out=tuple(method.build_left_out(results)),
        repeat=method.build_repeat(results),
    )


def _split_answer(
    results: Results,
) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """What stands on the opening page, and the rest; without a headline all of it opens."""
    said = build_answer(results)
    if not build_headline(results):
        return tuple(said), ()
    first = [each for each in said if each.warning or each.first]
    rest = [each for each in said if each not in first]
    return (*build_verdicts(results), *first), tuple(rest)


_BEFORE_DETAILS = ("break-even",)


def _order_sections(sections: Sequence[Section]) -> tuple[Section, ...]:
    """What decides comes before the details by area."""
    early = [each for each in sections if each.anchor in _BEFORE_DETAILS]
    return (*early, *(each for each in sections if each not in early))


def _add_published(section: Section, results: Results) -> Section:
    """The same section with what others have published of the same metrics, behind a fold."""
    found = build_published(results, section.anchor)
    if not found:
        return section
    exhibit = Exhibit(None, found, fold="Published figures of the same kind")
    return replace(section, exhibits=(*section.exhibits, exhibit))


def _build_elsewhere(
    results: Results, known: Collection[str], others: Sequence[Evidence]
) -> tuple[Section, ...]:
    """Chapters of other runs that the report has not yet, each with the run that it is from, and
    with the platforms of this run that its isolation says nothing of."""
    found: dict[str, Section] = {}
    for other in others:
        for each in _build_sections(other.results, dict(other.drawings)):
            if each.anchor in CHAPTERS and each.anchor not in known:
                shown = _show_numbers(other.results, each)
                lead = f"{shown.lead} {other.origin}"
                if each.anchor == "isolation":
                    lead = f"{lead} {say_unprobed(results, other.results)}".strip()
                found.setdefault(each.anchor, replace(shown, lead=lead))
    return tuple(found.values())


def _join_colours(results: Results, others: Sequence[Evidence]) -> Mapping[str, str]:
    """The run's own colours, and those of platforms that only other runs have."""
    joined: dict[str, str] = {}
    for each in (*(other.results for other in reversed(others)), results):
        joined.update(each.colours)
    return joined


def _build_sections(results: Results, drawings: dict[str, list[Drawing]]) -> tuple[Section, ...]:
    sections: tuple[Section, ...] = (
        _build_section(
            "startup", "Startup", "From the request until the workload is ready, on one clock.",
            drawings["startup"], _startup_tables(results), "startup.ready",
        ),
        _build_section(
            "memory", "Memory", "A ledger, not a number: each method counts something else.",
            drawings["memory"], _per_workload(results, "memory of one instance", tables.MEMORY),
            "memory.pss",
        ),
        _build_section(
            "disk", "Disk", "What the image takes, and what one instance adds.",
            [*drawings["disk"], *drawings.get("sizes", ())], _disk_tables(results),
            "disk.image_allocated",
        ),
        _build_section(
            "portability", "Portability", "Bytes that a host with nothing must receive first.",
            drawings["portability"], _packing_tables(results, ("portability.first",)),
            "portability.first",
        ),
        _build_section(
            "run", "The run itself", "Whether the host stayed steady, and what noise can do.",
            drawings["run"], [_noise_tables(results)],
            "startup.ready",
        ),
    )  # fmt: skip
    ladders = _build_ladders(results)
    extras = machines.build_extras(results)
    sections = tuple(
        replace(each, extras=extras) if each.anchor == "disk" else each for each in sections
    )
    drawn = drawings.get("moves", ())
    sections = tuple(
        _add_moves(each, results, drawn) if each.anchor == "portability" else each
        for each in sections
    )
    found = _build_further(results, drawings)
    if rebuild.is_alone(results) or is_isolation_alone(results):
        return tuple(found)
    return (sections[0], *([ladders] if ladders else []), *sections[1:-1], *found, sections[-1])


def _build_further(results: Results, drawings: dict[str, list[Drawing]]) -> list[Section]:
    """The chapters that only some runs have, in the order of the page."""
    further = [
        _build_extra("bases", "Base images", _BASES, (), bases.build_bases(results)),
        _build_extra(
            "efficiency",
            "Efficiency",
            efficiency.LEAD,
            (),
            efficiency.build_efficiency(results),
        ),
        _build_extra(
            "rebuild",
            "Rebuilding",
            rebuild.LEAD,
            drawings.get("rebuild", ()),
            rebuild.build_rebuilds(results),
        ),
        _build_extra(
            "density",
            "Density",
            _DENSITY,
            drawings.get("density", ()),
            crowd.build_crowd(results),
        ),
        _build_extra(
            "storm",
            "Boot storms",
            storm.LEAD,
            drawings.get("storm", ()),
            storm.build_storms(results),
        ),
        _build_break_even(results, drawings),
        _build_compared(drawings.get("ratios", ())),
        _build_walls(results, drawings.get("isolation", ())),
    ]
    return [each for each in further if each is not None]


_DENSITY = "Instances started one after another, all of them kept running."

_BASES = (
    "The same application on different base images: what lies around it decides how much there is "
    "to store, to move and to keep up to date; less so, how fast it starts."
)


def _build_break_even(results: Results, drawings: dict[str, list[Drawing]]) -> Section | None:
    """When the differences of the run begin and cease to matter; None for a run without any."""
    found = [break_even.build_work(results), break_even.build_filling(results)]
    figure = next(iter(drawings.get("break-even", ())), None)
    exhibits = [Exhibit(figure, ())] if figure else []
    exhibits += [Exhibit(None, (table,), folded=False) for table in found if table]
    lead = "A start is paid once, and memory for as long as an instance runs."
    return Section("break-even", "Break-even", lead, tuple(exhibits)) if exhibits else None


def _build_extra(
    anchor: str, title: str, lead: str, drawings: Sequence[Drawing], table: Table | None
) -> Section | None:
    """A chapter of a figure and one table; None for a run that has nothing to show there."""
    if table is None:
        return None
    exhibits = [Exhibit(each, ()) for each in drawings]
    exhibits.append(Exhibit(None, (table,), folded=False))
    return Section(anchor, title, lead, tuple(exhibits))


def _build_compared(drawings: Sequence[Drawing]) -> Section | None:
    """The chapter of all ratios in one view; None for a run without a comparison."""
    lead = "Every ratio that a verdict was made of, with its interval and the band of equivalence."
    exhibits = tuple(Exhibit(each, ()) for each in drawings)
    return Section("ratios", "Every comparison", lead, exhibits) if exhibits else None


def _show_numbers(results: Results, section: Section) -> Section:
    """The same chapter, its figures with their numbers behind a fold where no table is."""
    drawings = [each.drawing for each in section.exhibits if each.drawing]
    return replace(
        section,
        exhibits=tuple(
            _add_numbers(results, each, drawings)
            if each.drawing and not each.tables and _is_last(drawings, each.drawing)
            else each
            for each in section.exhibits
        ),
    )


def _add_numbers(results: Results, exhibit: Exhibit, drawings: Sequence[Drawing]) -> Exhibit:
    """The last sheet of a figure with the numbers of all of its sheets, which the first names."""
    assert exhibit.drawing is not None
    until = drawings[: drawings.index(exhibit.drawing) + 1]
    first = next(each for each in reversed(until) if each.part == 1)
    said = f"The figure's numbers: `plots/{first.name}.csv`, and in the page."
    return replace(exhibit, tables=(build_numbers(results, first),), unprinted=said)


def _build_walls(results: Results, drawings: Sequence[Drawing]) -> Section | None:
    """The chapter of isolation, limits and neighbours; None where nothing was asked."""
    shown = walls.build_tables(results)
    lead = f"{ISOLATION} {say_unprobed(results, results)}".strip()
    if not shown:
        return None
    exhibits = [Exhibit(each, ()) for each in drawings]
    exhibits += [Exhibit(None, (table,), folded=False) for table in shown]
    if evidence := walls.build_folded(results):
        said = "The raw evidence is in the page and in `journal.jsonl`."
        exhibits.append(Exhibit(None, evidence, fold="Raw evidence", unprinted=said))
    return Section("isolation", "Isolation", lead, tuple(exhibits))


def _build_beside(results: Results, brought: Sequence[ForeignFile]) -> tuple[Section, ...]:
    """The chapter of other tools' timings, if any were brought in."""
    found = build_beside_tables(results, brought)
    exhibits = tuple(Exhibit(None, (table,), folded=False) for table in found)
    return (Section("beside", "Brought in", BESIDE, exhibits),) if exhibits else ()


def _add_moves(section: Section, results: Results, drawings: Sequence[Drawing]) -> Section:
    """The same section with what moves to another host took, where that was measured."""
    found = tuple(moves.build_tables(results))
    drawing = drawings[0] if drawings else None
    if not found and drawing is None:
        return section
    exhibit = Exhibit(drawing, found, folded=False)
    return replace(section, exhibits=(*section.exhibits, exhibit))


def _build_ladders(results: Results) -> Section | None:
    """Every machine on one ladder of milestones; None for a run without a machine."""
    found = [ladder.build_ladder(results, each) for each in results.workloads]
    found += [ladder.build_stops(results, each) for each in results.workloads]
    found.append(machines.build_guest_view(results))
    exhibits = tuple(Exhibit(None, (table,), folded=False) for table in found if table is not None)
    lead = (
        "Every virtual machine on one ladder of milestones, from the fastest to the slowest; the "
        "figure in true proportion is above."
    )
    return Section("ladder", "Machines, rung by rung", lead, exhibits) if exhibits else None


def _build_section(
    anchor: str,
    title: str,
    lead: str,
    drawings: Sequence[Drawing],
    data: Sequence[Sequence[Table]],
    metric: str,
) -> Section:
    """Pair figures with their data in order; whatever is left over stands alone.

    Data stands with the last sheet of its figure.
    """
    left = [tuple(each) for each in data]
    exhibits = [
        Exhibit(each, left.pop(0) if left and _is_last(drawings, each) else ()) for each in drawings
    ]
    exhibits += [Exhibit(None, each) for each in left]
    kept = tuple(each for each in exhibits if each.drawing or each.tables)
    missing = "" if drawings else f"No trial has a figure of {quote(metric)}: there is no plot."
    return Section(anchor, title, lead, kept, missing)


def _is_last(drawings: Sequence[Drawing], drawing: Drawing) -> bool:
    """Whether a drawing is the last sheet of its figure."""
    after = drawings[drawings.index(drawing) + 1 :]
    return not after or after[0].part == 1


def _startup_tables(results: Results) -> list[list[Table]]:
    """The data of the three startup figures: milestones and phases, cost, comparisons."""
    phases = _flat(_per_workload(results, "milestones and phases", tables.STARTUP))
    costs = _flat(_per_workload(results, "CPU time and teardown", tables.COST))
    found = (
        certainty.build_verdicts(results, tables_compared()),
        certainty.build_tests(results, tables_compared()),
        tails.build_tails(results),
    )
    return [phases, costs, [table for table in found if table]]


def _noise_tables(results: Results) -> list[Table]:
    found = (certainty.build_arms(results), certainty.build_alarms(results))
    return [table for table in found if table]


def tables_compared() -> list[str]:
    """The metrics in the table of comparisons, in the order of the report."""
    return ["startup.ready", "startup.response", *(each.metric for each in tables.GLANCE[1:])]


_SIZES = (
    "Apparent and allocated: every file that a platform needs, a machine's kernel with it; a raw "
    "disk has holes, so its length says little. Virtual: the size of the disk that a guest sees, "
    "without the kernel."
)


def _disk_tables(results: Results) -> list[list[Table]]:
    sizes = ("disk.image_allocated", "disk.image_apparent", "disk.image_virtual")
    matrices = [
        table
        for workload in results.workloads
        for table in (space.build_space(results, workload), space.build_growth(results, workload))
        if table is not None
    ]
    packings = [
        [replace(table, note=_SIZES) for table in group]
        for group in _packing_tables(results, sizes)
    ]
    return [[*matrices, *packings[0]], *packings[1:]] if packings else []


def _per_workload(
    results: Results, title: str, columns: Sequence[tables.Column]
) -> list[list[Table]]:
    found = []
    for workload in results.workloads:
        ended = say_ended(results, workload) if columns is tables.MEMORY else ""
        caption = f"{quote(workload)}: {title}{ended}"
        table = tables.build_matrix(results, workload, caption, columns)
        found.append([table] if table else [])
    return found


def _packing_tables(results: Results, metrics: Sequence[str]) -> list[list[Table]]:
    found = [tables.build_packings(results, each, metrics) for each in results.one_per_image]
    return [[table] if table else [] for table in found]


def _flat(groups: Sequence[Sequence[Table]]) -> list[Table]:
    return [table for group in groups for table in group]
