"""Which runs are held against which: every two of a few, each with its predecessor of many."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from harness.analysis.compare_traits import Difference, find_differences
from harness.analysis.site.facts import Facts

MOST = 12
"""Of up to so many runs every pair is prepared: 66 pages. Of 200 it would be 19 900."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs, the older one first. ``refusal`` is why they cannot be compared, or empty."""

    base: Facts
    new: Facts
    refusal: str = ""

    @property
    def name(self) -> str:
        return f"{self.base.name}--{self.new.name}"

    @property
    def is_mixed(self) -> bool:
        """Whether the two are of other kinds, which nothing can make comparable."""
        return self.base.kind != self.new.kind


def sort_runs(runs: Sequence[Facts]) -> tuple[Facts, ...]:
    """From the oldest to the newest."""
    return tuple(sorted(runs, key=lambda each: (each.created_at, each.run_id)))


def build_lines(runs: Sequence[Facts]) -> tuple[tuple[Facts, ...], ...]:
    """Runs on the same host under the same conditions, oldest first: what a history may join.

    Conditions are all dimensions of `compare`, and something that both measured.
    """
    lines: list[list[Facts]] = []
    for run in sort_runs(runs):
        line = next((each for each in lines if not find_refusal(each[-1], run)), None)
        if line is None:
            lines.append([run])
        else:
            line.append(run)
    return tuple(map(tuple, lines))


def build_pairs(runs: Sequence[Facts]) -> tuple[Pair, ...]:
    """The pairs to prepare, the newest first; those that cannot be compared say why.

    Of more than `MOST` runs, each is paired with its predecessor: in its line, else by date.
    """
    ordered = sort_runs(runs)
    chosen = list(combinations(ordered, 2)) if len(ordered) <= MOST else _list_steps(ordered)
    pairs = [Pair(base, new, find_refusal(base, new)) for base, new in chosen]
    place = {each.run_id: number for number, each in enumerate(ordered)}
    return tuple(
        sorted(pairs, key=lambda each: (-place[each.new.run_id], -place[each.base.run_id]))
    )


def _list_steps(ordered: Sequence[Facts]) -> list[tuple[Facts, Facts]]:
    before = dict(zip((each.run_id for each in ordered[1:]), ordered, strict=False))
    for line in build_lines(ordered):
        before |= dict(zip((each.run_id for each in line[1:]), line, strict=False))
    return [(before[each.run_id], each) for each in ordered[1:]]


def find_refusal(base: Facts, new: Facts) -> str:
    """Why two runs cannot be compared: the dimensions that differ, with both values; or empty."""
    for run in (base, new):
        if run.unfit:
            return f"run {run.run_id}: {run.unfit}"
    if base.kind != new.kind:
        return f"another kind of run: {base.kind} in BASE and {new.kind} in NEW"
    differences = find_differences(base.build_traits(), new.build_traits())
    if differences:
        return "; ".join(str(_plain(each)) for each in differences)
    if not set(base.cases) & set(new.cases):
        return "no platform with a workload was measured in both"
    return ""


def _plain(each: Difference) -> Difference:
    """Without backticks in what users named: between two of them stands a code span."""
    base, new = (text.replace("`", "ʼ") for text in (each.base, each.new))
    return replace(each, base=base, new=new)


def find_dimensions(pair: Pair) -> tuple[str, ...]:
    """The names of the dimensions that differ, for `compare --allow`; none of other kinds."""
    if pair.is_mixed:
        return ()
    differences = find_differences(pair.base.build_traits(), pair.new.build_traits())
    return tuple(dict.fromkeys(each.dimension for each in differences))
