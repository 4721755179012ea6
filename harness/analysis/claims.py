"""Common claims held against one run: supported, refuted, equivalent, inconclusive, or why not.

`claims_pairs` decides on platforms, pair by pair, and `claims_apart` on what is not paired, such as
bytes. What a claim on base images, on phases or on the kernel is decided by stands here.
"""

from collections.abc import Sequence
from dataclasses import replace

from harness.analysis.bases import find_bases
from harness.analysis.claim_list import Claim
from harness.analysis.claims_apart import find_packings, format_range, judge_apart
from harness.analysis.claims_finding import NOT_MEASURED as NOT_MEASURED
from harness.analysis.claims_finding import Finding as Finding
from harness.analysis.claims_pairs import decide_platforms, find_reason, select
from harness.analysis.isolation import find_evidence, has_own_kernel
from harness.analysis.ratios import THRESHOLD
from harness.analysis.results import Figure, Results
from harness.analysis.wording import describe_platform, format_share, quote


def decide(results: Results, claim: Claim) -> Finding:
    """The finding on one claim, for the workload that the answer speaks of."""
    deciders = {
        "platforms": decide_platforms,
        "bases": _decide_bases,
        "phases": _decide_phases,
        "kernel": _decide_kernel,
        "calls": _decide_calls,
    }
    if results.reference is None:
        return Finding(NOT_MEASURED, note="no measured trial was finished")
    return deciders[claim.by](results, claim)


# ---- base images and phases --------------------------------------------------------------------


def _decide_bases(results: Results, claim: Claim) -> Finding:
    """The smallest base image against the largest, both in one packing, which is named."""
    for application, workloads in find_bases(results).items():
        for platform in select(results, "container"):
            packing, figures = _find_alike(results, platform, workloads, claim.metric)
            if len(figures) > 1:
                found = [(each.median, results.images[name], each)
                         for name, each in figures.items()]  # fmt: skip
                (_, small, one), (_, large, other) = min(found), max(found)
                parts = [f"{quote(small)}: {format_range(one)}",
                         f"{quote(large)}: {format_range(other)}", quote(application)]  # fmt: skip
                parts += [f"as {quote(packing)}"] if packing else []
                return judge_apart(one, other, "; ".join(parts))
    return Finding(NOT_MEASURED, note="no application ran on several bases (`run base-ladder`)")


def _find_alike(
    results: Results, platform: str, workloads: Sequence[str], metric: str
) -> tuple[str, dict[str, Figure]]:
    """The workloads' figures in the first packing that all of them have, and its name; the
    metric's own figures where it has no packings."""
    packed = {name: find_packings(results, platform, name, metric) for name in workloads}
    packed = {name: packings for name, packings in packed.items() if packings}
    common = [name for name in next(iter(packed.values()), {})
              if all(name in packings for packings in packed.values())]  # fmt: skip
    if common:
        return common[0], {name: packings[common[0]] for name, packings in packed.items()}
    whole = {name: results.find(platform, name, metric) for name in workloads}
    return "", {name: figure for name, figure in whole.items() if figure is not None}


def _decide_phases(results: Results, claim: Claim) -> Finding:
    for platform in results.platforms:
        for workload in results.workloads:
            one, other = (
                results.find(platform, workload, claim.metric, phase)
                for phase in (claim.smaller, claim.larger)
            )
            if one and other:
                said = f"{quote(claim.smaller)}: {format_range(one)}; " + (
                    f"{quote(claim.larger)}: {format_range(other)}"
                )
                if reason := find_reason(results, claim.metric, (platform,)):
                    return Finding("withheld", note=f"{reason}. {said}")
                found = judge_apart(one, other, said)
                return replace(found, emulated=results.is_emulated(platform))
    return Finding(NOT_MEASURED, note=f"this run has no {quote(claim.metric)} of both")


# ---- the kernel that answers -------------------------------------------------------------------


def _decide_kernel(results: Results, claim: Claim) -> Finding:
    evidence = find_evidence(results)
    shared, own = (
        [name for name in select(results, word) if name in evidence]
        for word in (claim.smaller, claim.larger)
    )
    if not shared or not own:
        return Finding(NOT_MEASURED, note="no probe ran on both sides (`harness isolation`)")
    wrong = [name for name in shared if has_own_kernel(evidence[name])]
    wrong += [name for name in own if not has_own_kernel(evidence[name])]
    if wrong:
        names = ", ".join(describe_platform(results, name, quoted=True) for name in wrong)
        return Finding("refuted", f"{len(wrong)} otherwise", names)
    return Finding(
        "supported",
        f"{len(shared)} + {len(own)} seen",
        f"the host's kernel: {', '.join(map(quote, shared))}; its own: "
        f"{', '.join(describe_platform(results, name, quoted=True) for name in own)}",
        emulated=any(map(results.is_emulated, own)),
    )


def _decide_calls(results: Results, claim: Claim) -> Finding:
    few, many = (_count_calls(results, word) for word in (claim.smaller, claim.larger))
    if not few or not many:
        return Finding(NOT_MEASURED, note="no probe ran on both sides (`harness isolation`)")
    most, least = max(few.values()), min(many.values())
    said = "; ".join(
        f"{describe_platform(results, name, quoted=True)}: {format_count(count)}"
        for name, count in (*many.items(), *few.items())
    )
    note = (
        f"{said}. A guest's calls go to its own kernel and count as none, whatever the process "
        "that runs the guest may call on the host"
    )
    verdict = "supported" if most < least else "refuted" if most > least else "equivalent"
    emulated = any(map(results.is_emulated, (*few, *many)))
    return Finding(verdict, f"{least:.0f} against {most:.0f}", note, emulated=emulated)


def _count_calls(results: Results, word: str) -> dict[str, float]:
    """System calls of the host's kernel that a workload reached, by platform."""
    found: dict[str, float] = {}
    for name, evidence in find_evidence(results).items():
        if name not in select(results, word):
            continue
        figures = [
            figure.median
            for (platform, _, metric, phase), figure in results.figures.items()
            if (platform, metric, phase) == (name, "isolation.calls", "")
        ]
        if has_own_kernel(evidence) or figures:
            found[name] = 0.0 if has_own_kernel(evidence) else figures[0]
    return found


def format_count(count: float) -> str:
    return f"{count:.0f}" if count else "none"


def say_rule() -> str:
    """How a verdict on a claim comes about, in a sentence."""
    return (
        "A claim is held against every pair of its two sides, such as every container against "
        "every machine: one counterexample refutes it, and the nearest pair is shown. Where the "
        "run compared the two, its own verdict counts; all other pairs are compared by the same "
        "method, corrected over the claim's pairs. Bytes that are not paired are judged by their "
        f"ranges, which have to lie apart by more than {format_share(THRESHOLD)}: each packing "
        "against the same one of the other side, or, where they share none, against every one. "
        "What emulation changes (time, CPU "
        "time, memory) is said of this host only."
    )
