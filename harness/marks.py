"""Validity marks: one table of what each says and what mends it.

A mark says of one trial that something else than the platform had a share in its figures. It flags
and never drops; the report and the reference page read this table.
"""

from dataclasses import dataclass

TUNE = "`python -m pyperf system tune`, undone by `python -m pyperf system reset`"
"""pyperf's own advice for a quiet Linux host: governor, turbo, interrupts, perf's sampling rate."""

START_KSM = "echo 1 | sudo tee /sys/kernel/mm/ksm/run"
"""What switches same-page merging on, for the whole host: never done by the harness itself."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A validity mark. ``meaning`` and ``remedy`` are one line each, ``cure`` the remedy in a few
    words, to stand beside a figure that is withheld.

    A ``label`` says what a trial is, not that it was disturbed: it never withholds a figure.
    """

    name: str
    meaning: str
    remedy: str
    cure: str
    label: bool = False


_MARKS = (
    Mark(
        "emulated",
        "The guest's processor was emulated in software (TCG)",
        "use a host whose processor has virtualisation extensions, with `/dev/kvm`",
        "use a host with `/dev/kvm`",
        label=True,
    ),
    Mark(
        "outside-load",
        "Processes outside the run used over a quarter of all CPUs' time during the trial",
        f"stop them (`python -m harness doctor` names the busiest), or keep CPUs free: {TUNE}",
        "stop other work on this host",
    ),
    Mark(
        "steal",
        "The hypervisor below gave more than 2 % of one CPU's time to others",
        "use bare metal or a virtual machine with CPUs of its own",
        "use a host of your own",
    ),
    Mark(
        "throttled",
        "The instance was stopped for a while by its CPU limit",
        "give it more CPUs, such as `cpus = 2`, or none of its limits: `/no-limits`",
        "give it more CPUs",
    ),
    Mark(
        "overheated",
        "A processor slowed itself down because it was hot",
        f"cool the host, or switch turbo off: {TUNE}",
        "cool the host",
    ),
    Mark(
        "pressure-memory",
        "Tasks waited for memory for more than a tenth of the trial (PSI)",
        "free memory, or give the plan less: `memory`, `density`",
        "free memory",
    ),
    Mark(
        "pressure-io",
        "Tasks waited for a disk for more than a tenth of the trial (PSI)",
        "stop what writes and reads, or put the cache on a faster disk: HARNESS_CACHE",
        "spare the disk",
    ),
    Mark(
        "swap",
        "Pages were swapped in or out during the trial",
        "switch swap off, `sudo swapoff --all`, or free memory",
        "switch swap off",
    ),
    Mark(
        "cache-not-warm",
        "Not all of the image's and programs' files were in the page cache, or they did not stay",
        "free memory: the kernel evicts files when it is short of it",
        "free memory",
    ),
    Mark(
        "cache-not-cold",
        "Files that were to be evicted stayed in the page cache",
        "stop what has them open or mapped, such as other instances of the same image",
        "stop what has its files open",
    ),
    Mark(
        "clock-step",
        "The host's wall clock was set during the trial",
        "let the time service slew the clock, not step it, or wait until it has settled",
        "let the clock settle",
    ),
    Mark(
        "suspended",
        "The host slept during the trial",
        "keep it awake: `systemd-inhibit --what=sleep python -m harness run`",
        "keep the host awake",
    ),
    Mark(
        "noisy-victim",
        "The victim's p99 with nothing beside it changed by over a factor of two meanwhile",
        f"stop other work on this host, or keep CPUs free: {TUNE}",
        "stop other work on this host",
    ),
    Mark(
        "panic",
        "The guest's kernel panicked",
        "read the console's log in `logs`; for want of memory, raise `memory`",
        "read its console's log",
    ),
    Mark(
        "generator-saturated",
        "The load generator used over 90 % of the CPUs that it may use: it may have been the limit",
        "give it more threads, such as wrk's `-t2`, and say `load_threads = 2`; or more CPUs",
        "give the load generator more threads",
    ),
    Mark(
        "generator-late",
        "A storm's median request came later than it was due by over a tenth of the median time "
        "to ready: what starts the instances may have been the limit",
        "start fewer at once (`storm`), or on a host with more and quieter CPUs",
        "start fewer at once",
    ),
    Mark(
        "tool-clock",
        "The tool said that its work took longer than the host saw it run: its clock is another",
        "do not use its figures; a guest's clock may drift, above all an emulated one's",
        "the tool's clock is off",
    ),
    Mark(
        "left-behind",
        "Something of the instance could not be removed after it",
        "look at the trial's details in the journal; `python -m harness clean` tries again",
        "see the trial's details",
    ),
)

MARKS = {mark.name: mark for mark in _MARKS}

LABELS = frozenset(mark.name for mark in _MARKS if mark.label)


def explain_mark(name: str) -> str:
    """What a mark says; a mark of another release is not known here."""
    return MARKS[name].meaning if name in MARKS else "a mark that this release does not know"


def find_mark_remedy(name: str) -> str:
    """What mends it, or an empty string for a mark of another release."""
    return MARKS[name].remedy if name in MARKS else ""


def find_cure(name: str) -> str:
    """The same in a few words."""
    return MARKS[name].cure if name in MARKS else ""
