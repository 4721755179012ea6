"""The site's own pages: index, comparisons, histories. Their content, then the templates."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from harness.analysis.report.render import render_template
from harness.analysis.site.facts import Facts
from harness.analysis.site.history import build_history, format_headlines
from harness.analysis.site.own_history import OwnHistory, OwnSeries
from harness.analysis.site.pairs import MOST, Pair, find_dimensions
from harness.analysis.site.sources import KINDS, LeftOut
from harness.analysis.wording import format_number
from harness.store.names import write_atomically
from harness.units import format_value

HEADLINES_CSV = "headlines.csv"


def write_pages(
    stage: Path,
    runs: Sequence[Facts],
    pairs: Sequence[Pair],
    left_out: Sequence[LeftOut],
    own: OwnHistory | None,
) -> None:
    """Write every page beside the runs and comparisons that lie in ``stage`` already.

    ``runs`` stand from the oldest to the newest, as `build_history` needs them; pages show the
    newest first.
    """
    newest = tuple(reversed(runs))
    lines = build_history(runs)
    script = read_script()
    content: dict[str, dict[str, object]] = {
        "index.html": {
            "runs": newest, "left_out": left_out, "names": list_names(runs),
            "said": say_kinds(runs),
        },
        "compare.html": {
            "runs": newest, "pairs": pairs, "few": len(runs) <= MOST, "most": MOST,
            "conclusions": read_conclusions(stage, pairs), "dimensions": find_dimensions,
            "chosen": choose_pair(pairs),
        },
        "history.html": {"lines": lines},
        "harness.html": {"own": own, "say": format_own, "ratio": format_number},
    }  # fmt: skip
    for name, each in content.items():
        page = render_template(f"site/{name}.j2", script=script, up="", **each)
        write_atomically(stage / name, page.encode("utf-8", "replace"))
    for chapter in (each for line in lines for each in line.chapters):
        (stage / "history").mkdir(exist_ok=True)
        (stage / "history" / f"{chapter.drawing.name}.png").write_bytes(chapter.drawing.png)
        (stage / "history" / f"{chapter.drawing.name}.svg").write_bytes(chapter.drawing.svg)
    write_atomically(stage / HEADLINES_CSV, format_headlines(runs))


_KINDS = {
    "starts": "of the same workloads both ways",
    "isolation": "of what isolates the platforms",
    "rebuilds": "of changed images",
}


def say_kinds(runs: Sequence[Facts]) -> str:
    """What the runs measured: `` of the same workloads both ways``, or how many of each kind."""
    counts = {kind: sum(each.kind == kind for each in runs) for kind in KINDS}
    known = [kind for kind, count in counts.items() if count]
    if len(known) == 1:
        return f" {_KINDS[known[0]]}"
    return f": {', '.join(f'{counts[kind]} {_KINDS[kind]}' for kind in known)}"


def choose_pair(pairs: Sequence[Pair]) -> tuple[str, str]:
    """The names of the two runs that the page opens with: the newest that can be compared."""
    best = next(iter([*(each for each in pairs if not each.refusal), *pairs]), None)
    return (best.base.name, best.new.name) if best else ("", "")


def list_names(runs: Sequence[Facts]) -> dict[str, list[str]]:
    """What can be chosen to search by: hosts, platforms and workloads, in the order of letters."""
    return {
        "host": sorted({run.host for run in runs}),
        "platform": sorted({name for run in runs for name in run.platforms}),
        "workload": sorted({name for run in runs for name in run.workloads}),
    }


def read_conclusions(stage: Path, pairs: Sequence[Pair]) -> dict[str, tuple[str, str]]:
    """Verdict and last sentence of every comparison that was made, by the pair's name."""
    found = {}
    for pair in (each for each in pairs if not each.refusal):
        document = json.loads((stage / "compare" / f"{pair.name}.json").read_bytes())
        found[pair.name] = (str(document["verdict"]), str(document["conclusion"]))
    return found


def format_own(series: OwnSeries, place: int) -> str:
    value = series.values[place]
    return f"{format_number(value)} ×" if series.unit == "×" else format_value(value, series.unit)


@cache
def read_script() -> tuple[str, str]:
    """The one script of the site, and the hash by which a page allows it and nothing else."""
    text = files("harness.analysis").joinpath("templates/site/site.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"
