"""What the figures of memory are of: a workload that still runs, or one that has ended.

Memory is read once the workload is ready. Where ready is its end, only the agent is left of a
container, but a whole guest of a machine: such a figure says so wherever it stands. An engine's
daemons are no part of an instance's memory, and are named beside it.
"""

from collections.abc import Mapping

from harness.analysis.results import Figure, Results, get_list, get_mapping
from harness.analysis.wording import describe_platform, format_figure, quote, split_figure

PSS = "memory.pss"
_DAEMON = "memory.daemon"
_MARGINAL = "memory.marginal"
ENDED = "after its workload has ended"


def find_memory_workload(results: Results, first: str) -> str:
    """The workload that the answer on memory is of: ``first``, the answer's own, unless that has
    ended when memory is read and the reference ran another that has not."""
    running = [
        name
        for name in dict.fromkeys((first, *results.workloads))
        if not has_ended(results, name) and results.find(results.reference or "", name, PSS)
    ]
    return next(iter(running), first)


def has_ended(results: Results, workload: str) -> bool:
    """Whether ``workload`` is ready by its end, as the run's plan says."""
    for each in get_list(get_mapping(results.manifest, "plan"), "workloads"):
        if isinstance(each, Mapping) and each.get("name") == workload:
            return each.get("ready") == "exit"
    return False


def say_ended(results: Results, workload: str, start: str = ", ") -> str:
    """``, after its workload has ended`` where that is so, else nothing."""
    return f"{start}{ENDED}" if has_ended(results, workload) else ""


def find_daemon(results: Results, platform: str, workload: str) -> Figure | None:
    """The memory of the engine's daemons, if ``platform`` has any that were measured."""
    found = results.find(platform, workload, _DAEMON)
    return None if found is None or found.withheld else found


def say_daemon(results: Results, platform: str, workload: str) -> str:
    """`` + 121 MiB once, for its daemon``, to be said after a figure of PSS; else nothing."""
    found = find_daemon(results, platform, workload)
    return f" + {split_figure(found)[0]} once, for its daemon" if found else ""


def say_shared(results: Results) -> str:
    """Why the PSS of a single instance is more than one more takes, with the largest example.

    Empty where no container has both figures, or where it is not so.
    """
    found = [
        (alone.median / more.median, name, workload, alone, more)
        for name in results.first_arms
        for workload in results.workloads
        if results.kinds[name] == "container"
        and (alone := results.find(name, workload, PSS))
        and (more := results.find(name, workload, _MARGINAL))
        and not alone.withheld and not more.withheld and 0 < more.high < alone.low
    ]  # fmt: skip
    if not found:
        return ""
    _, name, workload, alone, more = max(found)
    return (
        "PSS of a single instance overstates what one more takes: pages of programs that instances "
        "share, such as a shim's, are charged in full to the only one, and the slope takes what "
        f"the host can drop for free. With {quote(workload)}, "
        f"{describe_platform(results, name, quoted=True)} takes {format_figure(alone)} alone and "
        f"{format_figure(more)} for one more of many."
    )
