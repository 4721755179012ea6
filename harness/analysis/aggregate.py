"""From tidy samples to one summary row per platform, workload, metric and phase.

Samples are read once into a frame in which every repeated word is a category, so that a million
rows aggregate in seconds. Nothing is ever averaged over platforms, accelerators, cache states,
images or methods: each is a key.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.analysis.arrays import Integers
from harness.analysis.sample_file import read_sample_file
from harness.analysis.statistics import bootstrap_groups, summarise_groups
from harness.marks import LABELS, find_cure
from harness.metrics import is_image_size
from harness.store import read_manifest, write_samples
from harness.store.names import JOURNAL, MANIFEST, SAMPLES
from harness.store.sandboxes import find_accelerator

CASE = ["workload", "image", "cache", "instances"]
"""What must be the same for two platforms to be compared."""

ARM = ["platform", "kind", "accelerator", *CASE]
SERIES = [*ARM, "metric", "phase", "unit"]

APART = (
    "memory.available", "memory.drift", "memory.merged", "disk.occupied", "density.ready",
    "memory.minimum", "storm.ready", "storm.late", "storm.rate",
)  # fmt: skip
"""Metrics that are no trial's: a series of running instances, a search, and starts in a storm."""

LEAST_BLOCKS = 3
MOST_MARKED = 1 / 3
"""A median is withheld where more than this share of its trials was disturbed."""


def load_samples(folder: Path) -> pd.DataFrame:
    """The measured samples of a result folder, warm-up left out; columns as in METRICS.

    ``marks`` are joined by spaces. Where an interrupted run left only a journal, the samples are
    projected from it first. Raises InputError for a file that is damaged, has other columns or
    holds values that are no numbers.
    """
    path = folder / SAMPLES
    if not path.exists() and (folder / JOURNAL).exists():
        write_samples(folder)
    frame: pd.DataFrame = read_sample_file(path).to_pandas(strings_to_categorical=True)
    return _complete(frame, read_manifest(folder)) if (folder / MANIFEST).exists() else frame


def _complete(samples: pd.DataFrame, manifest: Mapping[str, object]) -> pd.DataFrame:
    """What sandboxes ran on, in a run that did not store it (`harness.store.sandboxes`)."""
    names = ["platform", "kind", "accelerator"]
    for row in samples[names].drop_duplicates().astype(str).to_dict("records"):
        platform, kind, accelerator = (str(row[name]) for name in names)
        found = find_accelerator(platform, kind, accelerator, manifest)
        if found and found != accelerator:
            rows = (samples["platform"] == platform) & (samples["accelerator"] == accelerator)
            whole = samples["accelerator"].astype(str).mask(rows, found)
            samples = samples.assign(accelerator=whole.astype("category"))
    return samples


def summarise(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row per series: the columns of SERIES, then

    ``n`` (blocks), ``median``, ``low``, ``high`` (95 % interval), ``drift`` (trend over the run in
    the metric's unit, 0 without one), ``bootstrap_low``, ``bootstrap_high`` (the plain percentile
    bootstrap, for comparison), ``least``, ``most`` (range), ``marked`` (disturbed trials) and
    ``withheld`` (why the figure is no headline, or empty).
    """
    blocks = reduce_to_blocks(samples[~samples["metric"].isin(APART)])
    keys = blocks.groupby(SERIES, observed=True, sort=True)
    groups = np.asarray(keys.ngroup(), dtype=np.int64)
    table = keys["value"].agg(least="min", most="max")
    values = blocks["value"].to_numpy(dtype=float)
    order = blocks["block"].to_numpy(dtype=np.int64)
    found = summarise_groups(values, groups, len(table), order)
    lows, highs = bootstrap_groups(values, groups, len(table), seed)
    columns = {
        "n": found.size, "median": found.median, "low": found.low, "high": found.high,
        "drift": found.drift, "bootstrap_low": lows, "bootstrap_high": highs,
    }  # fmt: skip
    for place, (name, column) in enumerate(columns.items()):
        table.insert(place, name, column)
    table["marked"] = keys["disturbed"].sum().astype(int)
    table["withheld"] = find_refusals(
        blocks["marks"].astype(str).to_numpy(), blocks["disturbed"].to_numpy(), groups, len(table)
    )
    return table.reset_index()


def find_refusals(
    marks: np.ndarray, disturbed: np.ndarray, groups: Integers, count: int
) -> list[str]:
    """`find_refusal` for each of ``count`` groups; ``marks`` and ``disturbed`` by trial."""
    size = np.bincount(groups, minlength=count)
    bad = np.bincount(groups, weights=disturbed, minlength=count)
    order = np.argsort(groups, kind="stable")
    start = np.cumsum(size) - size
    found = [""] * count
    for each in np.flatnonzero((size < LEAST_BLOCKS) | (bad > MOST_MARKED * size)).tolist():
        found[each] = find_refusal(list(marks[order[start[each] : start[each] + size[each]]]))
    return found


def reduce_to_blocks(samples: pd.DataFrame) -> pd.DataFrame:
    """One value per series and block: its only trial, or the median of several.

    Adds ``disturbed``: whether any of its trials carries a mark that is no mere label. Sizes of an
    image are not the trial's: no mark of it touches them.
    """
    frame = samples[[*SERIES, "block", "value", "marks"]].copy()
    frame["disturbed"] = _look_up(frame["marks"], lambda text: bool(find_disturbances(text)))
    frame["disturbed"] &= ~_look_up(frame["metric"], is_image_size)
    if not frame.duplicated([*SERIES, "block"]).any():
        return frame
    return frame.groupby([*SERIES, "block"], observed=True, as_index=False).agg(
        value=("value", "median"), marks=("marks", "first"), disturbed=("disturbed", "any")
    )


def _look_up(words: "pd.Series[str]", judge: Callable[[str], bool]) -> NDArray[np.bool_]:
    """``judge`` of each word, asked once for each that there is; False where there is none."""
    column = words.astype("category")
    found = [judge(str(text)) for text in column.cat.categories]
    return np.array([*found, False], dtype=bool)[column.cat.codes.to_numpy()]


def find_disturbances(marks: str) -> list[str]:
    """The marks in ``marks`` that mean the trial was disturbed."""
    return [mark for mark in marks.split() if mark not in LABELS]


def find_refusal(marks: Sequence[str]) -> str:
    """Why a median over blocks with these ``marks`` is withheld, or an empty string."""
    blocks = len(marks)
    if blocks < LEAST_BLOCKS:
        return f"only {blocks} block{'' if blocks == 1 else 's'}, {LEAST_BLOCKS} are needed"
    disturbances = [found for each in marks if (found := find_disturbances(each))]
    if len(disturbances) <= MOST_MARKED * blocks:
        return ""
    counts = Counter(mark for found in disturbances for mark in set(found)).most_common()
    named = ", ".join(f"{mark} {count}" for mark, count in sorted(counts, key=_by_count))
    cure = find_cure(min(counts, key=_by_count)[0])
    said = f"{len(disturbances)} of {blocks} trials were disturbed ({named})"
    return f"{said}: {cure}" if cure else said


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
