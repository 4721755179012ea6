"""What a change costs: a table of changes × ways of rebuilding, and what must be shipped."""

from dataclasses import dataclass
from statistics import median

from harness.analysis.results import Figure, Results, get_mapping
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import ABSENT, PACKINGS, format_figure, quote, say_intervals
from harness.model import Outcome

CHANGES = {
    "code": "one file of the code",
    "dependency": "one more dependency",
    "base": "security update of the base",
}
WAYS = {
    "good": "layers, good order",
    "bad": "layers, bad order",
    "rebuild": "disk, made anew",
    "update": "disk, changed files copied in",
}
_OBJECTS = {"dependency": "the dependencies", "base": "the base"}
_SHIPPED = "rebuild.shipped"
LEAD = (
    "A change, and then: how long until the new image can be started on this host, how much was "
    "written, and how much a host that has the old image must be sent."
)
_METHOD = (
    "Each rebuild is a trial of its own, in an order shuffled within each block by the run's seed.",
    "Seconds are the host's CLOCK_MONOTONIC around the whole rebuild; bytes are counted, not "
    "estimated.",
    "A trial of buildah begins with the build before the change, all of whose instructions must "
    "come from the cache, and ends with removing what it has brought.",
)
NOTE = (
    "Every rebuild starts with everything cached: the base, the packages and the build before the "
    "change, which buildah repeats first, taking every instruction from its cache. In good order "
    "the list of dependencies is copied and installed before the code is; in bad order everything "
    "is copied at once. The updated base is one new layer, as registries have it; the updated "
    "package's files keep their sizes, so that on a disk made anew nothing else moves, whereas a "
    "new dependency moves much. A disk made anew is the base's cached tree, dpkg and mke2fs; an "
    "updated one is a copy of the old disk with the changed files written by debugfs. Changed "
    "blocks are of 64 KiB at fixed places. Seconds do not include compressing and sending."
)


@dataclass(frozen=True, slots=True)
class Case:
    """One change by one way, with its platform and the packings that it was shipped in."""

    change: str
    way: str
    platform: str
    shipped: dict[str, Figure]
    seconds: Figure | None
    written: Figure | None

    @property
    def smallest(self) -> tuple[str, Figure] | None:
        """The packing that ships least."""
        found = sorted(self.shipped.items(), key=lambda each: (each[1].median, each[0]))
        return found[0] if found else None


def find_cases(results: Results) -> list[Case]:
    """Every change × way that was measured, in the order of the words above."""
    found: dict[tuple[str, str], dict[tuple[str, str], Figure]] = {}
    platforms: dict[tuple[str, str], str] = {}
    for (platform, _, metric, phase), figure in results.figures.items():
        change, _, rest = phase.partition("/")
        way, _, packing = rest.partition("/")
        if metric.startswith("rebuild.") and change in CHANGES and way in WAYS:
            found.setdefault((change, way), {})[metric, packing] = figure
            platforms[change, way] = platform
    return [
        _build_case(change, way, platforms[change, way], found[change, way])
        for change in CHANGES
        for way in WAYS
        if (change, way) in found
    ]


def build_method(results: Results) -> tuple[str, ...]:
    """How the figures of rebuilds came about, in sentences."""
    cases = find_cases(results)
    figures = [each for case in cases for each in (case.seconds, case.written)]
    figures += [each for case in cases for each in case.shipped.values()]
    said = f"Figures are medians over blocks with {say_intervals(figures)}"
    return (*_METHOD, f"{said}, from the ranks of the blocks' values.")


def build_rebuilds(results: Results) -> Table | None:
    """Change × way with seconds, bytes written and bytes shipped; None without a rebuild."""
    cases = find_cases(results)
    if not cases:
        return None
    heads = ("change", "way", "from the cache", "can be started after", "written", "to ship",
             "to ship, other packing")  # fmt: skip
    rows = tuple(_build_row(results, each) for each in cases)
    return Table("What a change costs to rebuild and to ship", heads, rows, NOTE)


def say_rebuilds(results: Results) -> tuple[str, ...]:
    """A sentence for each change: every way with its time and what it ships."""
    cases = [case for case in find_cases(results) if case.seconds and not case.seconds.withheld]
    if not cases:
        return ("The figures are no headline; the table says why.",) if find_cases(results) else ()
    sentences = []
    for change, words in CHANGES.items():
        parts = [
            f"{WAYS[case.way]}: {format_figure(case.seconds)}, {format_figure(found[1])} to ship"
            for case in cases
            if case.change == change and (found := case.smallest)
        ]  # fmt: skip
        if parts:
            sentences.append(
                f"After a change of {_OBJECTS.get(change, words)}, {'; '.join(parts)}."
            )
    return tuple(sentences)


def is_alone(results: Results) -> bool:
    """Whether rebuilds are all that was measured: nothing was started."""
    return bool(results.find_metrics("rebuild.")) and not results.find_metrics("startup.")


def format_rebuilds(results: Results) -> str:
    """The table for a terminal, a line for each change and way."""
    lines = []
    for case in find_cases(results):
        smallest = case.smallest
        packing = f" ({smallest[0]})" if smallest else ""
        shipped = format_figure(smallest[1]) if smallest else ABSENT
        lines.append(
            f"{CHANGES[case.change]:28} {WAYS[case.way]:31} {format_figure(case.seconds):25} "
            f"ships {shipped}{packing}"
        )
    return "\n".join(lines) or "no rebuild was measured"


def _build_case(
    change: str, way: str, platform: str, figures: dict[tuple[str, str], Figure]
) -> Case:
    def find(metric: str) -> Figure | None:
        return next((figure for (name, _), figure in figures.items() if name == metric), None)

    shipped = {packing: each for (name, packing), each in figures.items() if name == _SHIPPED}
    return Case(change, way, platform, shipped, find("rebuild.seconds"), find("rebuild.bytes"))


def _build_row(results: Results, case: Case) -> Row:
    shipped = sorted(case.shipped.items(), key=lambda each: (each[1].median, each[0]))
    cells = [_build_shipped(*each) for each in shipped[:2]]
    cells += [Cell(ABSENT)] * (2 - len(cells))
    return Row(
        CHANGES[case.change],
        (
            Cell(WAYS[case.way], quote(case.platform)),
            Cell(_count_cached(results, case)),
            build_cell(case.seconds),
            build_cell(case.written),
            *cells,
        ),
        case.platform,
    )


def _build_shipped(packing: str, figure: Figure) -> Cell:
    cell = build_cell(figure)
    words = f"{PACKINGS.get(packing, packing)}; {cell.note}".removesuffix("; ")
    return Cell(cell.text, words, cell.tone)


def _count_cached(results: Results, case: Case) -> str:
    """``2 of 4``: instructions that the cache saved, as buildah printed them."""
    counts = [
        (int(str(found["cached"])), int(str(found["steps"])))
        for outcome in results.measured
        if _is_of(outcome, case) and "cached" in (found := get_mapping(outcome.details, "rebuild"))
    ]
    if not counts:
        return ABSENT
    return f"{median(cached for cached, _ in counts):.0f} of {counts[0][1]}"


def _is_of(outcome: Outcome, case: Case) -> bool:
    details = outcome.details
    return (details.get("change"), details.get("way")) == (case.change, case.way)
