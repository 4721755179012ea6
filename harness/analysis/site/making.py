"""The parts of a site that cost time: a run's folder with its report, and a comparison's page."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from harness.analysis.aggregate import load_samples
from harness.analysis.compare import compare_sides
from harness.analysis.compare_result import Report, Terms
from harness.analysis.compare_sides import Side, load_side
from harness.analysis.compare_text import build_document, build_rows, list_lines
from harness.analysis.report import render_report
from harness.analysis.report.render import Home, render_template
from harness.analysis.site.facts import FACTS, Facts, build_facts, format_facts
from harness.analysis.site.pairs import Pair
from harness.analysis.site.sources import STORED, Source, shorten_reason
from harness.analysis.wording import describe_accelerator
from harness.errors import HarnessError

_REGRESSION = "regression: "
SAMPLES_CSV = "samples.csv"


@dataclass(frozen=True, slots=True)
class Task:
    """A run to lay out, the folder it goes to, and runs whose chapters come into its report."""

    source: Source
    folder: Path
    evidence: tuple[Source, ...] = ()


def make_run(task: Task) -> str:
    """Fill a run's folder: stored files, report, figures, CSV and facts; returns what went wrong.

    Nothing is raised, as one bad run must not stop the others; a folder that failed is removed.
    """
    try:
        task.folder.mkdir(parents=True)
        for name in STORED:
            if (task.source.folder / name).is_file():
                shutil.copyfile(task.source.folder / name, task.folder / name)
        others = [each.folder for each in task.evidence]
        render_report(task.folder, evidence=others, home=Home("../../", task.source.name))
        load_samples(task.folder).to_csv(task.folder / SAMPLES_CSV, index=False)
        facts = build_facts(task.folder, task.source.name)
        (task.folder / FACTS).write_bytes(format_facts(facts))
    except HarnessError as error:
        reason = str(error)
    except Exception as error:  # a manifest can be odd in ways that nobody has thought of
        reason = f"no report can be made of it: {type(error).__name__}: {error}"
    else:
        return ""
    shutil.rmtree(task.folder, ignore_errors=True)
    return " ".join(shorten_reason(reason, task.folder, task.source.folder).split())


def make_comparison(pair: Pair, runs: Path, stem: Path) -> None:
    """Write ``stem``.html and ``stem``.json: what `compare` says of two runs.

    Where they turn out not to be comparable, the page says so.
    """
    sides = [_load(label, runs, each) for label, each in (("BASE", pair.base), ("NEW", pair.new))]
    try:
        report = compare_sides(sides[0], sides[1], Terms())
    except HarnessError as error:
        found: dict[str, object] = {"verdict": "not comparable", "conclusion": error.message}
        lines, rows = [error.message], []
    else:
        lines = [line.replace(f"{runs}/", "") for line in list_lines(report)]
        found = {**build_document(report), "conclusion": lines[-1]}
        rows = _label_rows(report, pair)
    worse = [line for line in lines[:-1] if line.startswith(_REGRESSION)]
    page = render_template(
        "site/pair.html.j2", pair=pair, verdict=found["verdict"], said=lines[-1], rows=rows,
        worse=[line.removeprefix(_REGRESSION) for line in worse],
        notes=[line for line in lines[:-1] if line not in worse], up="../",
    )  # fmt: skip
    stem.with_name(f"{stem.name}.html").write_text(page)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    stem.with_name(f"{stem.name}.json").write_bytes(text.encode("utf-8", "replace"))


def _load(label: str, runs: Path, run: Facts) -> Side:
    """A side that says where its run is on the site, not where the site was made."""
    return replace(load_side(label, runs / run.name), path=Path("runs", run.name))


def _label_rows(report: Report, pair: Pair) -> list[tuple[str, ...]]:
    """The table of `compare`, what got worse first, in which an emulated machine says so."""
    traits = pair.new.build_traits()
    head, *rows = build_rows(report)
    labelled = []
    both = list(zip(report.comparisons, rows, strict=True))
    for each, row in sorted(both, key=lambda pair: not pair[0].regression):
        accelerator = describe_accelerator(str(traits.get(("accelerator", each.platform)) or ""))
        name = ", ".join(word for word in (row[0], accelerator) if word)
        labelled.append((name, *row[1:]))
    return [head, *labelled]
