"""How a run was measured and where: definitions, plan, host, images, and how to repeat it.

Every key of the manifest but its version and run id may be missing; then its line is left out.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.analysis import efficiency, isolation, rebuild
from harness.analysis.aggregate import LEAST_BLOCKS
from harness.analysis.quantiles import find_quantile_refusal
from harness.analysis.ratios import LEAST_PAIRS, THRESHOLD
from harness.analysis.results import Results, get_list, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.tails import TAILS
from harness.analysis.wording import (
    ABSENT,
    describe_accelerator,
    describe_platform,
    format_figure,
    format_share,
    quote,
)
from harness.marks import explain_mark, find_mark_remedy
from harness.metrics import METRICS
from harness.precision import describe_ending
from harness.units import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of «name: value»; ``code`` where the value is to be read letter by letter."""

    name: str
    value: str
    code: bool = False


def build_method(results: Results) -> list[str]:
    """How the figures came about, in sentences."""
    if rebuild.is_alone(results):
        return list(rebuild.build_method(results))
    if isolation.is_alone(results):
        return list(isolation.METHOD)
    plan = get_mapping(results.manifest, "plan")
    cache = str(plan.get("cache", "")) or next((o.cache for o in results.outcomes), "")
    settle = plan.get("settle")
    settled = f", {format_seconds(settle)} after it" if isinstance(settle, int | float) else ""
    states = {
        "warm": "Every trial started with the image in the page cache (warm), which was checked.",
        "cold": "Every trial started with the image evicted from the page cache (cold), which was "
        "checked.",
    }
    sentences = [
        "All times are the host's CLOCK_MONOTONIC, stamped when a milestone's line arrives; no "
        f"guest clock is used{efficiency.describe_clocks(results)}.",
        "Every platform runs the same root file system and the same first process, and the same "
        "condition decides when the workload is ready.",
        *_describe_parity(results),
        _describe_blocks(results, plan),
        describe_ending(results.manifest),
        states.get(cache, ""),
        f"Memory is read once at a settled point after `ready`{settled}.",
        "Figures are medians over blocks with 95 % intervals from the ranks of the blocks' values, "
        "a trend over the run taken out; ratios are paired within blocks.",
        f"A verdict of a difference needs the whole interval beyond {format_share(THRESHOLD)} and "
        "beyond the noise floor of the A/A arm of its kind (else the largest, where that of a "
        "machine serves machines only), and p < 0.05 after "
        "Holm's correction over all comparisons (Student's paired t-test on log ratios); with "
        f"fewer than {LEAST_PAIRS} pairs there is none, but of what an image takes.",
        f"`equivalent` needs the whole interval within {format_share(THRESHOLD)}, a noise floor "
        "below that, and p < 0.05 of two one-sided tests, corrected in the same way.",
        *_describe_quantiles(results),
        f"No figure is dropped. With fewer than {LEAST_BLOCKS} blocks, or more than a third of its "
        "trials disturbed, a figure is no headline.",
    ]
    return [sentence for sentence in sentences if sentence]


def _describe_quantiles(results: Results) -> list[str]:
    """Which of p95 and p99 are not given, and why."""
    blocks = len({outcome.block for outcome in results.measured})
    return [
        f"p{share * 100:.0f} is not given: {reason}."
        for share in TAILS
        if (reason := find_quantile_refusal(blocks, share))
    ]


def _describe_parity(results: Results) -> list[str]:
    """What was found when the trees of imported images were compared."""
    sentences = []
    for image, found in get_mapping(results.manifest, "parity").items():
        for each in found if isinstance(found, list) else ():
            one, other = each["platforms"]
            compared = (
                f"{quote(image)} was compared from inside {one} and {other}, entry by entry: "
            )
            if each["differing"]:
                sentences.append(
                    f"{compared}{each['differing']} of {each['entries']} entries differ, such "
                    f"as {quote(each['examples'][0])}; it was measured all the same."
                )
            else:
                sentences.append(f"{compared}all {each['entries']} entries are the same.")
    return sentences


def _describe_blocks(results: Results, plan: Mapping[str, object]) -> str:
    blocks = len({outcome.block for outcome in results.measured})
    seed = f", shuffled by seed {plan['seed']}" if "seed" in plan else ""
    warmup = len({outcome.block for outcome in results.outcomes if outcome.warmup})
    before = f" after {warmup} for warm-up" if warmup else ""
    return (
        f"{blocks} complete block{'' if blocks == 1 else 's'}{before}: one fresh start of every "
        f"platform and workload in each{seed}."
    )


def build_definitions(results: Results) -> Table:
    """The metrics that occur in this run, as the table of metrics defines them."""
    seen = {metric for _, _, metric, _ in results.figures}
    rows = tuple(
        Row(quote(name), (Cell(metric.definition), Cell(metric.method)))
        for name, metric in METRICS.items()
        if name in seen
    )
    return Table("What each metric means", ("metric", "definition", "method"), rows)


def build_channel(results: Results) -> Table | None:
    """The cost of the milestone channel: a measurement error, printed and never subtracted."""
    rows = []
    for platform in results.platforms:
        workloads = [w for w in results.workloads if results.find(platform, w, _ROUND_TRIP)]
        for workload in workloads[:1]:
            figure = results.find(platform, workload, _ROUND_TRIP)
            assert figure is not None
            cells = (Cell(format_figure(figure)), Cell(format_seconds(figure.median / 2)))
            rows.append(Row(describe_platform(results, platform, quoted=True), cells, platform))
    if not rows:
        return None
    head = ("platform", "round trip", "error of a milestone (half)")
    return Table("Cost of the channel that carries milestones, not subtracted", head, tuple(rows))


_ROUND_TRIP = "channel.round_trip"


def build_marks(results: Results) -> Table | None:
    """Validity marks: how many measured trials of each platform carry which."""
    counts: dict[str, Counter[str]] = {}
    trials = Counter(outcome.platform for outcome in results.measured)
    for outcome in results.measured:
        counts.setdefault(outcome.platform, Counter()).update(set(outcome.marks))
    rows = tuple(
        Row(
            describe_platform(results, platform, quoted=True),
            (
                Cell(quote(mark)),
                Cell(f"{count} of {trials[platform]}"),
                Cell(explain_mark(mark), find_mark_remedy(mark)),
            ),
            platform,
        )
        for platform in results.platforms
        for mark, count in sorted(counts.get(platform, Counter()).items())
    )
    head = ("platform", "mark", "trials", "what it says and what mends it")
    return Table("Validity marks of trials", head, rows) if rows else None


def build_failures(results: Results) -> Table | None:
    """Failed trials by reason: how many, which, and where their logs are."""
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    logs: dict[tuple[str, str, str, str], str] = {}
    for outcome in results.failed:
        key = (outcome.platform, outcome.workload, outcome.error or "?", outcome.hint or "")
        groups.setdefault(key, []).append(outcome.trial)
        kept = outcome.details.get("logs")
        if isinstance(kept, list) and kept and key not in logs:
            logs[key] = str(kept[0])
    rows = tuple(
        Row(
            describe_platform(results, key[0], quoted=True),
            (
                Cell(quote(key[1])),
                Cell(_format_trials(trials)),
                Cell(key[2], key[3]),
                Cell(quote(logs[key]) if key in logs else ABSENT),
            ),
            key[0],
        )
        for key, trials in groups.items()
    )
    head = ("platform", "workload", "trials", "reason and remedy", "log")
    return Table("Failed trials", head, rows) if rows else None


def _format_trials(trials: Sequence[int]) -> str:
    shown = ", ".join(map(str, trials[:6]))
    return f"{len(trials)}: no. {shown}{' …' if len(trials) > 6 else ''}"


def build_host(results: Results) -> list[Fact]:
    """The host as the manifest has it, in the order that readers ask."""
    host = get_mapping(results.manifest, "host")
    known = {
        "name": "host", "cpu": "processor", "cpus": "logical CPUs", "cores": "cores",
        "memory": "memory", "os": "system", "kernel": "kernel", "hypervisor": "runs on",
        "virtualized": "runs on", "governor": "frequency governor", "turbo": "turbo",
        "smt": "SMT", "clocksource": "clock source", "cgroup": "cgroups",
    }  # fmt: skip
    facts = [
        Fact(label, _format_fact(key, host[key]))
        for key, label in known.items()
        if host.get(key) not in (None, "", (), [])
    ]
    return [*facts, *_build_guest(results), *_build_tools(results)]


def _format_fact(key: str, value: object) -> str:
    if key == "memory" and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _build_guest(results: Results) -> list[Fact]:
    facts = []
    accelerator = get_mapping(results.manifest, "accelerator")
    if accelerator.get("name"):
        name = describe_accelerator(str(accelerator["name"])) or str(accelerator["name"])
        reason = accelerator.get("reason")
        facts.append(Fact("accelerator", f"{name}: {reason}" if reason else name))
    kernel = get_mapping(results.manifest, "guest_kernel")
    if kernel.get("release"):
        facts.append(Fact("guest kernel", str(kernel["release"])))
    if kernel.get("digest"):
        facts.append(Fact("its digest", str(kernel["digest"]), code=True))
    return facts


def _build_tools(results: Results) -> list[Fact]:
    tools = get_mapping(results.manifest, "tools")
    facts = [Fact(str(name), str(version)) for name, version in sorted(tools.items())]
    version = results.manifest.get("harness_version")
    return [*facts, Fact("harness", str(version))] if version else facts


def build_images(results: Results) -> list[Fact]:
    """Digests of the images: the same on every platform."""
    images = get_mapping(results.manifest, "images")
    return [
        Fact(str(name), str(image["digest"]), code=True)
        for name, image in sorted(images.items())
        if isinstance(image, Mapping) and image.get("digest")
    ]


def build_noise(results: Results) -> list[str]:
    """What makes the host noisy, each with the advice that came with it."""
    return [_describe_note(each) for each in get_list(results.manifest, "noise")]


def build_left_out(results: Results) -> list[str]:
    return [_describe_note(each) for each in get_list(results.manifest, "left_out")]


def _describe_note(note: object) -> str:
    if not isinstance(note, Mapping):
        return str(note)
    problem, advice = note.get("problem", ""), note.get("advice", "")
    return f"{problem} ({advice})" if advice else str(problem)


def build_repeat(results: Results) -> str | None:
    """The command that repeats the run, with the seed that was drawn for it."""
    words = [str(word) for word in get_list(results.manifest, "command")]
    if not words:
        return None
    if words[0].endswith("__main__.py") or words[0].rpartition("/")[2] == "harness":
        words = ["python", "-m", "harness", *words[1:]]
    seed = get_mapping(results.manifest, "plan").get("seed")
    if seed is not None and "--seed" not in words and {"run", "layers"} & set(words):
        words += ["--seed", str(seed)]
    if "--out" in words:  # that folder holds this run
        del words[words.index("--out") : words.index("--out") + 2]
    return shlex.join(word for word in words if not word.startswith("--out="))


def build_summary_line(results: Results) -> str:
    """One line under the title: host, system, date."""
    host = get_mapping(results.manifest, "host")
    date = str(results.manifest.get("created_at") or "")[:10]
    cores = host.get("cores") or host.get("cpus")
    words = [
        str(host.get("cpu") or ""),
        f"{cores} CPU{'' if cores == 1 else 's'}" if cores else "",
        format_bytes(memory) if isinstance(memory := host.get("memory"), int) else "",
        str(host.get("os") or ""),
        date,
    ]
    return " · ".join(word for word in words if word)
