"""A result folder read and summarised once, with the look-ups that plots, tables and text share."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.aggregate import load_samples, summarise
from harness.analysis.collector import start_pause
from harness.analysis.colours import assign_colours
from harness.analysis.density import SOURCE as SERIES_METRIC
from harness.analysis.density import fit_marginal
from harness.analysis.minimum import list_minimum
from harness.analysis.noise_floor import (
    FalseAlarms,
    count_false_alarms,
    find_reach,
    pair_arms,
)
from harness.analysis.pairs import build_ratios
from harness.analysis.ratios import compare_platforms, compare_sides
from harness.certificate import Certificate, build_certificate, find_reference
from harness.metrics import is_image_size
from harness.model import AA_SUFFIX, Kind, Outcome, base_platform
from harness.store import read_journal, read_manifest
from harness.store.names import JOURNAL
from harness.store.sandboxes import complete_outcomes

_TESTS = ("shift", "shift_low", "shift_high", "p_permutation", "p_equivalence", "effect")
_KINDS: tuple[Kind, ...] = ("process", "container", "sandbox", "vm")


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over ``n`` blocks with its 95 % interval, in ``unit``.

    ``withheld`` is the reason why it is no headline, or empty.
    """

    n: int
    median: float
    low: float
    high: float
    unit: str
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a platform compares with the reference: median ratio, interval and verdict.

    ``floor`` is the noise floor as a share, None where no A/A arm measured this. ``p`` and
    ``p_equivalence`` are corrected, ``p_permutation`` is not. ``effect`` is the minimum detectable
    effect as a share; ``shift`` is Hodges and Lehmann's, with its interval. NaN where unknown.
    """

    n: int
    median: float
    low: float
    high: float
    p: float
    floor: float | None
    verdict: str
    withheld: str = ""
    shift: float = nan
    shift_low: float = nan
    shift_high: float = nan
    p_permutation: float = nan
    p_equivalence: float = nan
    effect: float = nan

    @property
    def reach(self) -> float:
        """How far the interval reaches from 1, as a share: of an A/A arm, its noise floor."""
        return find_reach(self.low, self.high)


@dataclass(frozen=True)
class Results:
    """Everything a report is made of. Platforms and workloads stand in the order of the plan.

    ``arms`` are the A/A arms' ratios to their own platform, ``alarms`` how often the verdicts call
    them different. ``reference`` is the platform that
    ratios refer to; None where nothing was measured. ``images`` are those of the workloads,
    ``colours`` those of the platforms.
    """

    folder: Path
    manifest: Mapping[str, object]
    outcomes: Sequence[Outcome]
    samples: pd.DataFrame
    summary: pd.DataFrame
    platforms: tuple[str, ...]
    workloads: tuple[str, ...]
    reference: str | None
    figures: Mapping[tuple[str, str, str, str], Figure]
    ratios: Mapping[tuple[str, str, str], Ratio]
    arms: Mapping[tuple[str, str, str], Ratio]
    alarms: FalseAlarms
    kinds: Mapping[str, Kind]
    accelerators: Mapping[str, str]
    images: Mapping[str, str]
    colours: Mapping[str, str]
    certificate: Certificate = field(default_factory=lambda: Certificate({}))

    def find(self, platform: str, workload: str, metric: str, phase: str = "") -> Figure | None:
        return self.figures.get((platform, workload, metric, phase))

    def find_ratio(self, platform: str, workload: str, metric: str) -> Ratio | None:
        return self.ratios.get((platform, workload, metric))

    def find_refusal(self, platform: str, workload: str, metric: str) -> str:
        """Why a platform has no ratio to the reference by the parity certificate; empty if none."""
        if self.reference in (None, platform):
            return ""
        of_image = is_image_size(metric)
        return self.certificate.find_refusal(
            platform, self.reference or "", workload, of_image=of_image
        )

    def find_metrics(self, start: str) -> frozenset[str]:
        """The metrics that were measured and whose names begin with ``start``."""
        return frozenset(metric for _, _, metric, _ in self.figures if metric.startswith(start))

    def is_emulated(self, platform: str) -> bool:
        return self.accelerators.get(platform) == "tcg"

    @cached_property
    def measured(self) -> Sequence[Outcome]:
        """The trials that count: no warm-up, step of a density series, search, move or storm."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if not outcome.warmup and outcome.instances == 1 and not is_step(outcome)
        )

    def find_trials(self, platform: str, workload: str) -> Sequence[Outcome]:
        """Those of `measured` that ran ``workload`` on ``platform``, failed ones too."""
        return self._trials.get((platform, workload), ())

    @cached_property
    def _trials(self) -> Mapping[tuple[str, str], Sequence[Outcome]]:
        found = defaultdict[tuple[str, str], list[Outcome]](list)
        for outcome in self.measured:
            found[outcome.platform, outcome.workload].append(outcome)
        return found

    @cached_property
    def failed(self) -> Sequence[Outcome]:
        """Every trial that failed, those of the warm-up too."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    @property
    def one_per_image(self) -> tuple[str, ...]:
        """The first workload of each image: what an image takes is the same for the others."""
        firsts = {self.images[name]: name for name in reversed(self.workloads)}
        return tuple(name for name in self.workloads if firsts[self.images[name]] == name)

    @property
    def first_arms(self) -> tuple[str, ...]:
        """The platforms without the A/A arms."""
        return tuple(name for name in self.platforms if not name.endswith(AA_SUFFIX))


def load_results(folder: Path) -> Results:
    """Read manifest, journal and samples of ``folder`` and summarise them."""
    with start_pause():
        return _load(folder)


def _load(folder: Path) -> Results:
    manifest = read_manifest(folder)
    outcomes = complete_outcomes(read_journal(folder / JOURNAL), manifest)
    samples = load_samples(folder)
    plan = get_mapping(manifest, "plan")
    seed = find_seed(manifest)
    arms = pair_arms(samples)
    parts = [summarise(samples, seed), fit_marginal(samples), list_minimum(samples)]
    summary = pd.concat(parts, ignore_index=True)
    kinds = {outcome.platform: outcome.kind for outcome in outcomes}
    platforms = _order_platforms(plan, kinds)
    measured = set(samples["platform"].astype(str))
    reference = find_reference([name for name in platforms if name in measured], kinds)
    certificate = build_certificate(outcomes, manifest)
    refused = list_refused(certificate, reference)
    return Results(
        folder=folder,
        manifest=manifest,
        outcomes=outcomes,
        samples=samples,
        summary=summary,
        platforms=platforms,
        workloads=_order_workloads(plan, outcomes),
        reference=reference,
        figures=_index_figures(summary),
        ratios={}
        if reference is None
        else _index(compare_platforms(samples, reference, seed, refused=refused)),
        arms=_index(build_ratios(arms, seed)),
        alarms=count_false_alarms(arms, seed),
        kinds=kinds,
        accelerators=_find_accelerators(outcomes),
        images={outcome.workload: outcome.image for outcome in outcomes},
        colours=assign_colours(platforms),
        certificate=certificate,
    )


def compare_pairs(
    results: Results, metric: str, workload: str, sides: tuple[Sequence[str], Sequence[str]]
) -> Mapping[tuple[str, str], Ratio]:
    """Every platform of the second side over every one of the first, by the run's own method.

    The key is (one of the first side, one of the second). The p-values are corrected over these
    pairs alone; what the parity certificate refuses is none.
    """
    of_image = is_image_size(metric)
    refused = [
        (one, other)
        for one in sides[0]
        for other in sides[1]
        if results.certificate.find_refusal(other, one, workload, of_image=of_image)
    ]
    chosen = results.samples[results.samples["workload"].astype(str) == workload]
    table = compare_sides(chosen, sides, find_seed(results.manifest), metric, refused)
    return {
        (row["reference"], row["platform"]): _build_ratio(row) for row in table.to_dict("records")
    }


def list_refused(
    certificate: Certificate, reference: str | None
) -> frozenset[tuple[str, str, bool]]:
    """What has no ratio to the reference: platform, workload, whether it is an image's size."""
    return frozenset(
        (platform, workload, of_image)
        for platform, workload in certificate.conditions
        for of_image in (False, True)
        if reference is not None
        and platform != reference
        and certificate.find_refusal(platform, reference, workload, of_image=of_image)
    )


def is_step(outcome: Outcome) -> bool:
    """Whether this is no trial of a block but a step of a series, a search, a move or a storm.

    Steps of older releases do not say so; they are told by what they measured.
    """
    series = any(row.metric == SERIES_METRIC for row in outcome.measurements)
    return series or not {"density", "steps", "move", "storm"}.isdisjoint(outcome.details)


def find_seed(manifest: Mapping[str, object]) -> int:
    """What every bootstrap starts from: the seed of the run's plan."""
    seed = get_mapping(manifest, "plan").get("seed")
    return abs(seed) if isinstance(seed, int) else 0


def get_mapping(manifest: Mapping[str, object], key: str) -> Mapping[str, object]:
    """A part of the manifest that may be missing or of another shape."""
    found = manifest.get(key)
    return found if isinstance(found, Mapping) else {}


def get_list(manifest: Mapping[str, object], key: str) -> Sequence[object]:
    found = manifest.get(key)
    return found if isinstance(found, list | tuple) else ()


def _order_platforms(plan: Mapping[str, object], kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """Baseline first, then containers, sandboxes and VMs; as in the plan within a kind.

    A second arm stands right after its first.
    """
    planned = [str(name) for name in get_list(plan, "platforms")]
    order = {name: place for place, name in enumerate(planned)}

    def place(name: str) -> tuple[int, int, str]:
        base = base_platform(name)
        return _KINDS.index(kinds[name]), order.get(base, len(order)), name

    return tuple(sorted(kinds, key=place))


def _order_workloads(plan: Mapping[str, object], outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    entries = get_list(plan, "workloads")
    named = [str(each.get("name")) if isinstance(each, Mapping) else str(each) for each in entries]
    seen = dict.fromkeys(outcome.workload for outcome in outcomes)
    return tuple(sorted(seen, key=lambda name: named.index(name) if name in named else len(named)))


def _find_accelerators(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """What each platform ran on; a failed start may not know it."""
    found: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.accelerator not in ("", "none") or outcome.platform not in found:
            found[outcome.platform] = outcome.accelerator
    return found


def _index_figures(summary: pd.DataFrame) -> dict[tuple[str, str, str, str], Figure]:
    alone = summary[summary["instances"] == 1]
    return {
        (row["platform"], row["workload"], row["metric"], row["phase"]): Figure(
            row["n"], row["median"], row["low"], row["high"], row["unit"], row["withheld"]
        )
        for row in alone.to_dict("records")
    }


def _index(ratios: pd.DataFrame) -> dict[tuple[str, str, str], Ratio]:
    return {
        (row["platform"], row["workload"], row["metric"]): _build_ratio(row)
        for row in ratios.to_dict("records")
    }


def _build_ratio(row: Mapping[Hashable, Any]) -> Ratio:
    return Ratio(
        n=row["n"],
        median=row["ratio"],
        low=row["low"],
        high=row["high"],
        p=row["p"],
        floor=None if pd.isna(row.get("floor")) else row["floor"],
        verdict=row.get("verdict", ""),
        withheld=row["withheld"],
        **{name: row[name] for name in _TESTS},
    )
