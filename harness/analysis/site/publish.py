"""`publish`: from result folders to a site. The same runs and version give the same bytes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.site.facts import Facts, read_facts
from harness.analysis.site.making import Task, make_comparison, make_run
from harness.analysis.site.own_history import OwnHistory
from harness.analysis.site.pages import write_pages
from harness.analysis.site.pairs import Pair, build_pairs, sort_runs
from harness.analysis.site.place import (
    Record,
    read_record,
    require_place,
    start_stage,
    take_over,
    write_record,
)
from harness.analysis.site.sources import LeftOut, Source, digest_words, find_evidence, find_sources
from harness.errors import InputError

Work = Callable[[Callable[[Task], str], Sequence[Task]], Iterable[str]]
"""Like `map`; the command line brings one along that uses every CPU."""


@dataclass(frozen=True, slots=True)
class Published:
    """What came of it: the index, how many runs were laid out anew or taken over, and the rest."""

    index: Path
    made: int
    kept: int
    left_out: tuple[LeftOut, ...]


def publish_site(
    folders: Sequence[Path], out: Path, history: OwnHistory | None = None, work: Work = map
) -> Published:
    """Write a site of the runs in ``folders`` to ``out``, in place of an older one of the same.

    Raises InputError where ``out`` is something else, and where there is no run at all.
    """
    site = require_place(out, folders)
    sources, left_out = find_sources(folders)
    if not sources:
        named = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
        raise InputError(f"nothing to publish: {named}", hint="name result folders of `run`")
    with start_stage(site) as stage:
        builder = _Builder(site, read_record(site), stage)
        failed = builder.lay_out(sources, work)
        runs = builder.read_runs(sources)
        left_out = tuple(sorted([*left_out, *failed], key=lambda each: (each.name, each.reason)))
        if not runs:
            named = "; ".join(f"{each.name}: {each.reason}" for each in left_out)
            raise InputError(f"nothing to publish: {named}")
        pairs = build_pairs(runs)
        builder.compare(pairs)
        write_pages(stage, runs, pairs, left_out, history)
        write_record(stage, builder.parts)
    return Published(out / "index.html", builder.made, builder.kept, left_out)


def _digest_all(source: Source, evidence: Sequence[Source]) -> str:
    """What a run's folder is made of: its own files, and those of its evidence."""
    if not evidence:
        return source.digest
    return digest_words([source.digest, *(each.digest for each in evidence)])


class _Builder:
    """The costly parts of a site, made anew or taken over from the old one."""

    def __init__(self, old: Path, record: Record | None, stage: Path) -> None:
        self.old, self.record, self.stage = old, record, stage
        self.parts: dict[str, str] = {}
        self.made = self.kept = 0

    def lay_out(self, sources: Sequence[Source], work: Work) -> list[LeftOut]:
        """Every run's folder; returns the runs of which none could be made.

        Runs of starts come last: the chapters of others that could be made come into them.
        """
        alone = [each for each in sources if each.kind != "starts"]
        failed = self._lay_out([(each, ()) for each in alone], work) if alone else []
        sound = [each for each in alone if f"runs/{each.name}" in self.parts]
        rest = [each for each in sources if each.kind == "starts"]
        return failed + self._lay_out([(each, find_evidence(each, sound)) for each in rest], work)

    def _lay_out(
        self, runs: Sequence[tuple[Source, tuple[Source, ...]]], work: Work
    ) -> list[LeftOut]:
        fresh = [
            Task(source, self.stage / "runs" / source.name, evidence)
            for source, evidence in runs
            if not self._keep(f"runs/{source.name}", _digest_all(source, evidence))
        ]
        reasons = list(work(make_run, fresh))
        self.kept += len(runs) - len(fresh)
        self.made += reasons.count("")
        failed = []
        for task, reason in zip(fresh, reasons, strict=True):
            if reason:
                del self.parts[f"runs/{task.source.name}"]
                failed.append(LeftOut(task.source.folder.name, reason))
        return failed

    def read_runs(self, sources: Sequence[Source]) -> tuple[Facts, ...]:
        made = [each for each in sources if f"runs/{each.name}" in self.parts]
        return sort_runs([read_facts(self.stage / "runs" / each.name) for each in made])

    def compare(self, pairs: Sequence[Pair]) -> None:
        (self.stage / "compare").mkdir(exist_ok=True)
        for pair in (each for each in pairs if not each.refusal):
            name = f"compare/{pair.name}"
            sides = [self.parts[f"runs/{each.name}"] for each in (pair.base, pair.new)]
            if not self._keep(name, digest_words(sides)):
                make_comparison(pair, self.stage / "runs", self.stage / name)

    def _keep(self, name: str, made_of: str) -> bool:
        self.parts[name] = made_of
        return take_over(self.old, self.record, self.stage, name, made_of)
