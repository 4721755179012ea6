"""The answer in a few plain sentences, each with its number, its interval and its verdict.

A sentence claims a difference only where the verdict does. Names stand in code spans.
"""

from dataclasses import dataclass

from harness.analysis.alike import UNGROUPED, is_unlimited, say_missing_groups
from harness.analysis.isolation import is_alone as is_isolation_alone
from harness.analysis.left_out import TOPIC, say_left_out
from harness.analysis.memory import (
    PSS,
    find_memory_workload,
    say_daemon,
    say_ended,
    say_shared,
)
from harness.analysis.noise_floor import find_share_interval
from harness.analysis.pairs import SIGNIFICANT
from harness.analysis.ratios import THRESHOLD
from harness.analysis.rebuild import is_alone, say_rebuilds
from harness.analysis.results import Ratio, Results
from harness.analysis.statistics import CONFIDENCE, best_coverage
from harness.analysis.walls import say_all
from harness.analysis.wording import (
    describe_platform,
    format_figure,
    format_number,
    format_ratio,
    format_share,
    quote,
)
from harness.model import base_platform


@dataclass(frozen=True, slots=True)
class Statement:
    """One part of the answer: what it is about, and its sentences.

    A ``warning`` must not be overlooked by those who quote the answer. What is ``first`` stands on
    the opening page, before everything else.
    """

    topic: str
    sentences: tuple[str, ...]
    warning: bool = False
    first: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """How a headline metric is put into words: «… {states} 3 ms{object}», «2 × {measure}»."""

    name: str
    metric: str
    states: str
    object: str
    measure: str


_TOPICS = (
    Topic("Startup", "startup.ready", "is ready after", "", "as long"),
    Topic("Memory", "memory.pss", "takes", " of host memory (PSS)", "as much"),
    Topic("Disk", "disk.image_allocated", "takes", " of disk space for its image", "as much"),
    Topic("Transfer", "portability.first", "needs", " to reach a host that has nothing", "as much"),
)


def build_answer(results: Results) -> list[Statement]:
    """The opening of the report; always says something, even where nothing was measured."""
    left = [Statement(TOPIC, said, first=True)] if (said := say_left_out(results)) else []
    if results.reference is None:
        return [Statement("Nothing measured", (_say_nothing(results),), first=True), *left]
    rebuilds = [Statement("Rebuilding", said)] if (said := say_rebuilds(results)) else []
    if is_alone(results):
        return rebuilds
    walls = [Statement(topic, said) for topic, said in say_all(results).items()]
    if is_isolation_alone(results):
        return [*walls, *left]
    workload = find_workload(results)
    statements = [
        Statement(topic.name, sentences)
        for topic in _TOPICS
        if (sentences := _say_topic(results, topic, _choose_workload(results, topic, workload)))
    ]
    emulation = _say_emulation(results)
    opened = [*([emulation] if emulation else []), *left]
    return [*opened, *statements, *rebuilds, *_say_limits(results)]


def build_headline(results: Results) -> str:
    """The one sentence that people will quote; empty where it cannot be said.

    It compares the reference with the first virtual machine, which it names as emulated if it is.
    """
    machine, workload = _find_machine(results), find_workload(results)
    first = results.find(results.reference or "", workload, "startup.ready")
    ratio = results.find_ratio(machine, workload, "startup.ready")
    other = results.find(machine, workload, "startup.ready")
    if first is None or other is None or ratio is None or ratio.withheld or other.withheld:
        return ""
    container, vm = _name_as(results, results.reference or ""), _name_as(results, machine)
    against = f"{format_figure(first)} against {format_figure(other)}"
    if ratio.verdict == "slower":
        return (
            f"{container}, {quote(workload)} is ready {format_ratio(ratio)} sooner than "
            f"{_lower(vm)}: {against}."
        )
    return f"{container} and {_lower(vm)}, {quote(workload)} is ready after {against}: " + (
        f"{_say_ratio(_TOPICS[0], ratio)}."
    )


def build_verdicts(results: Results) -> list[Statement]:
    """After the headline, one sentence each on memory, disk and transfer, reference against it.

    Empty where there is no headline.
    """
    if not build_headline(results):
        return []
    found = ((topic, _say_verdict(results, topic)) for topic in _TOPICS[1:])
    return [
        Statement(topic.name, (said, *_say_daemons(results, topic)), first=True)
        for topic, said in found
        if said
    ]


def _choose_workload(results: Results, topic: Topic, workload: str) -> str:
    """The answer's own, but for memory one that still runs when it is read, if there is one."""
    return find_memory_workload(results, workload) if topic.metric == PSS else workload


def _say_daemons(results: Results, topic: Topic) -> tuple[str, ...]:
    """What engines take beside their instances, so that no verdict on memory stands without it."""
    if topic.metric != PSS:
        return ()
    workload = _choose_workload(results, topic, find_workload(results))
    told = [
        f"{_name(results, name)} takes {format_figure(results.find(name, workload, PSS))}{daemon}"
        for name in results.first_arms
        if (daemon := say_daemon(results, name, workload))
    ]
    return (f"An engine's daemons are not in it: {'; '.join(told)}.",) if told else ()


def _say_verdict(results: Results, topic: Topic) -> str:
    machine = _find_machine(results)
    workload = _choose_workload(results, topic, find_workload(results))
    first = results.find(results.reference or "", workload, topic.metric)
    other = results.find(machine, workload, topic.metric)
    ratio = results.find_ratio(machine, workload, topic.metric)
    if first is None or other is None or ratio is None or first.withheld or other.withheld:
        return ""
    if ratio.withheld:
        return ""
    name = _name_as(results, machine)
    comma = "," if "," in name else ""
    against = f"{format_figure(other)} against {format_figure(first)}{topic.object}"
    ended = say_ended(results, workload) if topic.metric == PSS else ""
    said = f"{name}{comma} {quote(workload)} {topic.states} {against}{ended}"
    return f"{said}: {_say_ratio(topic, ratio)}."


def _find_machine(results: Results) -> str:
    """The first virtual machine of the plan, other than the reference; empty without one."""
    machines = [
        name
        for name in results.first_arms
        if results.kinds[name] == "vm" and name != results.reference
    ]
    return next(iter(machines), "")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def find_workload(results: Results) -> str:
    """The workload that the answer speaks of: the first that the reference was measured with."""
    measured = [
        name
        for name in results.workloads
        if results.reference and results.find(results.reference, name, "startup.ready")
    ]
    return next(iter([*measured, *results.workloads]), "")


def _say_nothing(results: Results) -> str:
    if not results.outcomes:
        return "No trial was finished in this run."
    failed = len(results.failed)
    if failed == len(results.outcomes):
        return f"Every one of the {failed} trials failed; the reasons are below."
    return "No measured trial was finished in this run, only warm-up."


def _say_topic(results: Results, topic: Topic, workload: str) -> tuple[str, ...]:
    reference = results.reference or ""
    figure = results.find(reference, workload, topic.metric)
    if figure is None:
        return ()
    if figure.withheld:
        subject = _name(results, reference)
        return (f"The figure of {subject} is withheld: {figure.withheld}.",)
    head = (
        f"{_name_as(results, reference)}, {quote(workload)} {topic.states} "
        f"{format_figure(figure)}{topic.object}"
        f"{say_ended(results, workload) if topic.metric == PSS else ''}."
    )
    rest = [
        _say_other(results, topic, workload, name)
        for name in results.first_arms
        if name != reference
    ]
    rest.append(_say_absent(results, topic, workload))
    if topic.metric == PSS:
        rest.append(say_shared(results))
    if topic.metric in ("disk.image_allocated", "portability.first") and _find_machine(results):
        rest.append("A virtual machine's figure includes its kernel.")
    if topic.metric == "startup.ready":
        rest += [_say_workload(results, each) for each in results.workloads if each != workload]
    return (head, *(sentence for sentence in rest if sentence))


def _say_absent(results: Results, topic: Topic, workload: str) -> str:
    """Which platforms have no figure, so that nobody takes them for told; empty without any."""
    absent = [
        _name(results, name)
        for name in results.first_arms
        if results.find(name, workload, topic.metric) is None
    ]
    return f"Not measured with {quote(workload)}: {'; '.join(absent)}." if absent else ""


def _say_other(results: Results, topic: Topic, workload: str, platform: str) -> str:
    """What another platform takes, against the reference; empty if that was not measured."""
    figure = results.find(platform, workload, topic.metric)
    if figure is None:
        return ""
    name = _name_as(results, platform)
    if figure.withheld:
        return f"{name}: withheld, {figure.withheld}."
    ratio = results.find_ratio(platform, workload, topic.metric)
    comma = "," if "," in name else ""
    daemon = say_daemon(results, platform, workload) if topic.metric == PSS else ""
    head = f"{name}{comma} it {topic.states} {format_figure(figure)}{daemon}"
    if refusal := results.find_refusal(platform, workload, topic.metric):
        return f"{head}; there is no ratio, {refusal}."
    if ratio is None or ratio.withheld:
        return f"{head}; there is no ratio."
    if topic.metric == "startup.ready" and ratio.verdict == "slower":
        return f"{head}: {_name_subject(results)} is ready {format_ratio(ratio)} sooner."
    return f"{head}: {_say_ratio(topic, ratio)}."


def _say_workload(results: Results, workload: str) -> str:
    """Another workload in one sentence, to its last milestone: reference against first VM."""
    name = _find_machine(results)
    for metric, words in (
        ("startup.response", "answers its first request after"),
        ("startup.ready", "is ready after"),
    ):
        first = results.find(results.reference or "", workload, metric)
        ratio = results.find_ratio(name, workload, metric)
        other = results.find(name, workload, metric)
        if first and other and ratio and not (first.withheld or ratio.withheld):
            return (
                f"{quote(workload)} {words} {format_figure(first)} in {_name_subject(results)} "
                f"and {format_figure(other)} in {_name(results, name)}: "
                f"{format_ratio(ratio)}, {ratio.verdict}."
            )
    return ""


def _name_subject(results: Results) -> str:
    """The reference by its name: other containers stand beside it, so its kind would not do."""
    name = _name(results, results.reference or "")
    return f"{name}," if "," in name else name


def _say_ratio(topic: Topic, ratio: Ratio) -> str:
    if ratio.verdict == "equivalent":
        return "equivalent, within " + format_share(THRESHOLD)
    if ratio.verdict == "inconclusive":
        return f"inconclusive, the ratio is {format_ratio(ratio)}"
    return f"{format_ratio(ratio)} {topic.measure}, {ratio.verdict}"


def _name(results: Results, platform: str) -> str:
    return describe_platform(results, platform, quoted=True)


def _name_as(results: Results, platform: str) -> str:
    """``As a `namespace` container``, ``In the `gvisor` sandbox (ptrace)``, ``As `vm-direct`,
    emulated (TCG)``."""
    kind = results.kinds.get(platform, "container")
    name = _name(results, platform)
    if kind == "process":
        return "As a plain process" if platform == "process" else f"As {name}"
    if kind == "container":
        return f"As a {name} container"
    if kind == "sandbox":
        label, _, ran = name.partition(", ")
        return f"In the {label} sandbox{f' ({ran})' if ran else ''}"
    return f"As {name}"


def _say_limits(results: Results) -> list[Statement]:
    found = [
        _say_unlimited(results), _say_floor(results), _say_missing(results),
        _say_few_blocks(results), _say_failures(results),
    ]  # fmt: skip
    return [statement for statement in found if statement]


def _say_unlimited(results: Results) -> Statement | None:
    machines = any(results.kinds[name] == "vm" for name in results.first_arms)
    if not is_unlimited(results) or not machines:
        return None
    missing = say_missing_groups(results)
    return Statement("No limits", (UNGROUPED, *([missing] if missing else [])), warning=True)


def _say_emulation(results: Results) -> Statement | None:
    names = [quote(name) for name in results.first_arms if results.is_emulated(name)]
    if not names:
        return None
    return Statement(
        "Emulated",
        (
            f"On this host {_join(names)} ran without hardware virtualisation: QEMU emulated the "
            "guest's processor in software (TCG).",
            "Under hardware virtualisation (KVM) the figures are other ones, startup and CPU time "
            "most of all: no ratio here speaks for that case.",
        ),
        warning=True,
    )


def _say_floor(results: Results) -> Statement:
    """What the A/A arms of the answer's workload say about startup, and of the verdicts at all."""
    workload = find_workload(results)
    told = [
        sentence
        for (platform, each, metric), ratio in results.arms.items()
        if each == workload and metric == "startup.ready"
        for sentence in _say_arm(results, platform, ratio)
    ]
    if not results.arms:
        text = "No platform was entered twice (no A/A arm), so the noise floor of this run is"
        return Statement("Noise", (f"{text} unknown.",))
    return Statement("Noise", (*told, *_say_alarms(results)))


def _say_arm(results: Results, platform: str, ratio: Ratio) -> tuple[str, ...]:
    name = _name(results, base_platform(platform))
    comma = "," if "," in name else ""
    if ratio.withheld:
        return (f"Entered twice, {name}{comma} tells nothing of the noise: {ratio.withheld}.",)
    return (
        f"Entered twice, {name}{comma} differed from itself by a ratio of {format_ratio(ratio)}.",
        f"A difference in its startup below {format_share(ratio.reach)} could not have been told "
        f"from noise, and one comparison sees {format_share(ratio.effect)} in 80 % of such runs.",
    )


def _say_alarms(results: Results) -> tuple[str, ...]:
    """How often the verdicts are false on this run's own noise."""
    alarms = results.alarms
    if not alarms.compared:
        return ()
    low, _ = find_share_interval(alarms.tables, alarms.relabelled)
    many = "" if low <= SIGNIFICANT else ", more than the 5 % that the verdicts promise"
    return (
        f"Of {alarms.compared} comparisons of a platform with itself, {alarms.called or 'none'} "
        f"{'were' if alarms.called > 1 else 'was'} called different; with the two arms swapped at "
        f"random within blocks, {format_share(alarms.share)} of {alarms.relabelled} tables held a "
        f"false difference{many}.",
    )


def _say_missing(results: Results) -> Statement | None:
    kinds = {results.kinds[name] for name in results.platforms}
    if len(results.first_arms) == 1:
        name = _name(results, results.first_arms[0])
        text = f"Only {name} was measured: there is nothing to compare."
        return Statement("Missing", (text,), first=True)
    if "vm" not in kinds:
        return Statement("Missing", ("No virtual machine was measured in this run.",), first=True)
    if not kinds & {"container", "sandbox"}:
        return Statement("Missing", ("No container was measured in this run.",), first=True)
    return None


def _say_few_blocks(results: Results) -> Statement | None:
    counts = [
        figure.n
        for (_, _, metric, phase), figure in results.figures.items()
        if metric == "startup.ready" and not phase
    ]
    least = min(counts, default=0)
    reached = best_coverage(least)
    if not counts or reached >= CONFIDENCE:
        return None
    return Statement(
        "Few blocks",
        (
            f"With {least} block{'' if least == 1 else 's'} no interval can hold the median with "
            f"95 %: the widest reaches {format_number(reached * 100)} %. Six blocks are needed.",
        ),
        first=True,
    )


def _say_failures(results: Results) -> Statement | None:
    failed, total = len(results.failed), len(results.outcomes)
    if not failed:
        return None
    names = dict.fromkeys(_name(results, outcome.platform) for outcome in results.failed)
    text = f"{failed} of {total} trials failed ({'; '.join(names)}); the reasons are below."
    return Statement("Failed", (text,), warning=True)


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
