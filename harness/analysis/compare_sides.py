"""The two sides of a comparison: the values of a run, block by block, or of another tool's file.

A side is plain data. What must be the same on both is in its traits; `compare_traits` holds them
against each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from harness.analysis.aggregate import APART, load_samples, reduce_to_blocks
from harness.analysis.compare_traits import Traits, build_foreign_traits, build_traits
from harness.analysis.results import find_seed, get_mapping, is_step
from harness.analysis.statistics import Floats
from harness.errors import InputError
from harness.metrics import METRICS
from harness.model import Outcome
from harness.store import read_journal, read_manifest
from harness.store.foreign import METRIC, ForeignFile
from harness.store.names import JOURNAL, MANIFEST

KEY = ["platform", "workload", "metric", "phase"]
_COLUMNS = [*KEY, "kind", "unit", "block", "value", "marks"]

Key = tuple[str, str, str, str]
Case = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one metric on one platform with one workload, one a block, and their marks.

    ``broken`` says why they have no meaning here, or is empty.
    """

    kind: str
    unit: str
    blocks: Floats
    values: Floats
    marks: tuple[str, ...]
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """BASE or NEW: its label, what it was read from, its series and its traits.

    ``trials`` counts the measured trials of a platform with a workload: all, and the failed ones.
    ``notes`` are what its readers must know of it.
    """

    label: str
    path: Path
    name: str
    tool: str
    seed: int
    series: Mapping[Key, Series]
    traits: Traits
    trials: Mapping[Case, tuple[int, int]] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[Case, ...]:
        """The measured platforms with their workloads, in a fixed order."""
        return tuple(dict.fromkeys((key[0], key[1]) for key in self.series))


def load_side(label: str, folder: Path) -> Side:
    """A result folder as a side. Raises InputError where it is none, damaged or of another schema.

    The samples count; where an interrupted run left only its journal, that is projected first.
    """
    if not (folder / MANIFEST).exists():
        there = "is not there" if not folder.exists() else f"is no result folder: no {MANIFEST}"
        raise InputError(f"{label}: {folder} {there}", hint="name a result folder of `run`")
    manifest = read_manifest(folder)
    samples = load_samples(folder)
    alone = samples[(samples["instances"] == 1) & ~samples["metric"].isin(APART)]
    blocks = reduce_to_blocks(alone)
    _require_one_state(label, blocks)
    outcomes = read_journal(folder / JOURNAL) if (folder / JOURNAL).exists() else []
    traits = build_traits(manifest, blocks)
    return Side(
        label=label,
        path=folder,
        name=str(manifest["run_id"]),
        tool="harness",
        seed=find_seed(manifest),
        series=_build_series(blocks),
        traits=traits,
        trials=_count_trials(outcomes),
        state=_read_state(manifest),
        notes=_find_notes(label, manifest, traits, blocks, outcomes),
    )


def build_foreign_side(label: str, file: ForeignFile) -> Side:
    """The file of another tool as a side: a timing is a platform, its starts are the blocks."""
    series = {
        (timing.name, "", METRIC, ""): Series(
            kind="",
            unit=timing.unit,
            blocks=np.arange(len(timing.values), dtype=float),
            values=np.array(timing.values, dtype=float),
            marks=("",) * len(timing.values),
        )
        for timing in file.timings
    }
    notes = [
        f"{label}: {timing.failures} of {len(timing.values)} starts of `{timing.name}` failed"
        for timing in file.timings
        if timing.failures
    ]
    if not file.facts:
        notes.append(f"{label}: {file.tool} stores no host, so that was not checked")
    return Side(
        label, file.path, file.path.name, file.tool, 0, series,
        build_foreign_traits(file.facts), notes=tuple(notes),
    )  # fmt: skip


def divide_by(side: Side, platform: str) -> Side:
    """The same side with every value divided by that of ``platform`` in the same block.

    A host that was slower as a whole drops out of such ratios. The platform itself does too, and
    whatever was not measured on it. Raises InputError where it was not measured at all.
    """
    if platform not in {key[0] for key in side.series}:
        known = ", ".join(dict.fromkeys(key[0] for key in side.series)) or "none"
        raise InputError(
            f"--relative-to: {side.label} has no platform {platform!r}",
            hint=f"measured are {known}",
        )
    found = {}
    for key, series in side.series.items():
        control = side.series.get((platform, *key[1:]))
        if key[0] != platform and control is not None:
            found[key] = _divide(series, control, platform)
    return Side(
        side.label, side.path, side.name, side.tool, side.seed, found, side.traits, side.trials,
        side.state, side.notes,
    )  # fmt: skip


def _divide(series: Series, control: Series, platform: str) -> Series:
    blocks, mine, its = np.intersect1d(series.blocks, control.blocks, return_indices=True)
    below = control.values[its]
    marks = tuple(
        f"{series.marks[one]} {control.marks[other]}".strip()
        for one, other in zip(mine, its, strict=True)
    )
    if (below <= 0).any():
        reason = f"values of 0 or less on {platform} have no ratio"
        return Series(series.kind, "×", blocks, np.zeros(len(blocks)), marks, reason)
    return Series(series.kind, "×", blocks, series.values[mine] / below, marks)


def _build_series(blocks: pd.DataFrame) -> dict[Key, Series]:
    """Series in the order of the table of metrics within a platform and workload."""
    frame = blocks[_COLUMNS].astype(dict.fromkeys([*KEY, "kind", "unit", "marks"], str))
    frame = frame.sort_values([*KEY, "block"], kind="stable")
    found = {
        (str(key[0]), str(key[1]), str(key[2]), str(key[3])): Series(
            kind=str(rows["kind"].iloc[0]),
            unit=str(rows["unit"].iloc[0]),
            blocks=rows["block"].to_numpy(dtype=float),
            values=rows["value"].to_numpy(dtype=float),
            marks=tuple(rows["marks"]),
        )
        for key, rows in frame.groupby(KEY, sort=False)
    }
    order = {name: place for place, name in enumerate(METRICS)}
    return dict(
        sorted(found.items(), key=lambda each: (*each[0][:2], order.get(each[0][2], len(order))))
    )


def _require_one_state(label: str, blocks: pd.DataFrame) -> None:
    """Nothing is ever averaged over accelerators, cache states or images."""
    cases = blocks[["platform", "workload"]].astype(str)
    for name in ("accelerator", "cache", "image"):
        seen = cases.assign(value=blocks[name].astype(str)).drop_duplicates()
        twice = seen[seen.duplicated(["platform", "workload"], keep=False)]
        if len(twice):
            platform, workload = twice.iloc[0][["platform", "workload"]]
            values = " and ".join(sorted(twice["value"].unique()))
            raise InputError(
                f"{label}: {platform} with {workload} was measured with more than one {name}: "
                f"{values}",
                hint="compare runs that have one each",
            )


def _count_trials(outcomes: Sequence[Outcome]) -> dict[Case, tuple[int, int]]:
    total: Counter[Case] = Counter()
    failed: Counter[Case] = Counter()
    for outcome in outcomes:
        if outcome.warmup or outcome.instances != 1 or is_step(outcome):
            continue
        case = (outcome.platform, outcome.workload)
        total[case] += 1
        failed[case] += outcome.status == "failed"
    return {case: (count, failed[case]) for case, count in total.items()}


def _read_state(manifest: Mapping[str, object]) -> dict[str, str]:
    """What may differ between two runs, yet must be said: versions, and the state of the host."""
    host = get_mapping(manifest, "host")
    found = {"harness": str(manifest.get("harness_version") or "")}
    found |= {str(name): str(each) for name, each in get_mapping(manifest, "tools").items()}
    for name in ("os", "governor", "turbo", "smt", "huge_pages", "swap", "clocksource"):
        found[name.replace("_", " ")] = "" if host.get(name) is None else str(host[name])
    return found


def _find_notes(
    label: str,
    manifest: Mapping[str, object],
    traits: Traits,
    blocks: pd.DataFrame,
    outcomes: Sequence[Outcome],
) -> tuple[str, ...]:
    notes = [
        f"{label}: what `{platform}` ran on is not stored, so that was not checked"
        for (dimension, platform), value in traits.items()
        if dimension == "accelerator" and value is None
    ]
    reason = get_mapping(manifest, "ending").get("reason")
    planned, done = get_mapping(manifest, "plan").get("blocks"), blocks["block"].nunique()
    if isinstance(planned, int) and done < planned and reason != "precision":
        notes.append(f"{label} holds {done} of {planned} planned blocks")
    for (platform, workload), (total, failed) in _count_trials(outcomes).items():
        if failed:
            notes.append(
                f"{label}: {failed} of {total} trials of `{platform}` with `{workload}` failed"
            )
    return tuple(notes)
