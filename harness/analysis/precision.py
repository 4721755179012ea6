"""A look at a run in progress: are its headline ratios as narrow as wanted?

It reads the journal and writes nothing. The run asks it in a process of its own, so that what
measures never loads what analyses, and stays as small as it was.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.ratios import compare_platforms
from harness.analysis.results import (
    find_seed,
    get_list,
    get_mapping,
    is_step,
    list_refused,
)
from harness.analysis.statistics import CONFIDENCE, best_coverage
from harness.certificate import build_certificate, find_reference
from harness.metrics import METRICS
from harness.model import AA_SUFFIX, Outcome
from harness.precision import FAILED_SHARE, Decision, Width, find_half_width
from harness.store import read_journal, read_manifest
from harness.store.names import JOURNAL
from harness.store.samples import build_samples

if TYPE_CHECKING:
    import pandas as pd


def print_decision(folder: str, blocks: str, precision: str) -> None:
    """`read_decision` as JSON on stdout, for the run that asks."""
    print(json.dumps(asdict(read_decision(Path(folder), int(blocks), float(precision)))))


def read_decision(folder: Path, blocks: int, precision: float) -> Decision:
    """Look at the first ``blocks`` measured blocks of the run in ``folder``.

    ``precision`` is the wanted half-width as a share. Raises InputError for a damaged journal.
    """
    manifest = read_manifest(folder)
    return decide(read_journal(folder / JOURNAL), manifest, blocks, precision)


def decide(
    outcomes: Sequence[Outcome], manifest: Mapping[str, object], blocks: int, precision: float
) -> Decision:
    """Whether every headline ratio of the first ``blocks`` measured blocks is narrow enough.

    Combinations that keep failing are left out, with a line for each. A ratio of fewer blocks
    than a 95 % interval needs is never narrow.
    """
    counted = _take_blocks(outcomes, blocks)
    failing = find_failing(counted)
    asked = [each for each in counted if (each.platform, each.workload) not in failing]
    lines = tuple(
        f"{platform} with {workload}: {failed} of {total} trials failed"
        for (platform, workload), (failed, total) in sorted(failing.items())
    )
    widths = _find_widths(asked, manifest)
    lines += tuple(
        f"{each.metric} of {each.platform} with {each.workload}: it has no interval"
        for each in widths
        if each.reach != each.reach and METRICS[each.metric].unit == "s"  # sizes may well be 0
    )
    widths = [each for each in widths if each.reach == each.reach]
    widest = max(widths, key=lambda each: each.reach, default=None)
    narrow = widest is not None and widest.reach <= precision
    return Decision(narrow, widest, lines)


def _take_blocks(outcomes: Sequence[Outcome], blocks: int) -> list[Outcome]:
    """The trials of the first measured blocks; series, searches and moves are none."""
    trials = [
        each for each in outcomes if not each.warmup and each.instances == 1 and not is_step(each)
    ]
    kept = sorted({each.block for each in trials})[:blocks]
    return [each for each in trials if each.block in kept]


def find_failing(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], tuple[int, int]]:
    """Failed and all trials of each platform and workload that keep failing."""
    total = Counter((each.platform, each.workload) for each in outcomes)
    failed = Counter((each.platform, each.workload) for each in outcomes if each.status == "failed")
    return {
        arm: (failed[arm], count)
        for arm, count in total.items()
        if failed[arm] >= FAILED_SHARE * count
    }


def _find_widths(outcomes: Sequence[Outcome], manifest: Mapping[str, object]) -> list[Width]:
    kinds = {each.platform: each.kind for each in outcomes if each.status == "ok"}
    planned = [str(name) for name in get_list(get_mapping(manifest, "plan"), "platforms")]
    reference = find_reference([name for name in planned if name in kinds], kinds)
    if reference is None:
        return []
    refused = list_refused(build_certificate(outcomes, manifest), reference)
    frame = build_frame(outcomes, manifest)
    ratios = compare_platforms(frame, reference, find_seed(manifest), refused=refused)
    return [
        Width(
            row["platform"],
            row["workload"],
            row["metric"],
            find_half_width(row["low"], row["high"])
            if best_coverage(row["n"]) >= CONFIDENCE
            else None,
        )
        for row in ratios.to_dict("records")
        if not str(row["platform"]).endswith(AA_SUFFIX)
    ]


def build_frame(outcomes: Sequence[Outcome], manifest: Mapping[str, object]) -> "pd.DataFrame":
    """The samples of ``outcomes`` in the shape that `load_samples` gives them."""
    table = build_samples([replace(each, warmup=False) for each in outcomes], manifest)
    frame: pd.DataFrame = table.to_pandas(strings_to_categorical=True)
    frame["marks"] = [" ".join(marks) for marks in frame["marks"]]
    return frame.astype({"marks": "category"})
