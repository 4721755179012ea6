"""How the virtual machines of a run were set up, and what they say of themselves.

Accelerators and their proofs, tunings, what a bootable disk holds beyond the container image, and
the guest's own view of its start. All of it may be missing; then nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from harness.analysis.results import Results, get_list, get_mapping
from harness.analysis.tables import Cell, Row, Table
from harness.analysis.wording import (
    ABSENT,
    describe_accelerator,
    describe_platform,
    format_number,
    quote,
)
from harness.units import format_bytes


@dataclass(frozen=True, slots=True)
class Extras:
    """What a machine's disk holds beyond the container image: a sentence, packages, paths."""

    sentence: str
    packages: Table
    changed: tuple[str, ...]


def find_start(results: Results, platform: str) -> Mapping[str, object]:
    """How the manifest says that ``platform`` is started; empty where it does not."""
    platforms = get_mapping(results.manifest, "platforms")
    return get_mapping(get_mapping(platforms, platform), "start")


def find_machines(results: Results) -> list[str]:
    return [name for name in results.first_arms if results.kinds[name] == "vm"]


def _join(results: Results, platforms: Sequence[str]) -> str:
    return "; ".join(describe_platform(results, name, quoted=True) for name in platforms)


# ---- accelerators ----------------------------------------------------------------------------


def build_accelerators(results: Results) -> Table | None:
    """What each machine ran on and how that was proved; None for a run that did not store it."""
    rows: dict[tuple[str, str], list[str]] = {}
    for platform in find_machines(results):
        name, reason = _find_accelerator(results, platform)
        if name:
            rows.setdefault((name, reason), []).append(platform)
    if not rows:
        return None
    return Table(
        "Accelerator of each machine, and how it was proved",
        ("machines", "accelerator", "proof"),
        tuple(
            Row(
                _join(results, names),
                (Cell(describe_accelerator(name) or name), Cell(reason or ABSENT)),
                names[0] if len(names) == 1 else "",
            )
            for (name, reason), names in rows.items()
        ),
    )


def _find_accelerator(results: Results, platform: str) -> tuple[str, str]:
    """Name and reason, from the platform's own start or from the manifest's list of platforms."""
    start = find_start(results, platform)
    if start.get("accelerator"):
        return str(start["accelerator"]), str(start.get("accelerator_reason") or "")
    proof = get_mapping(get_mapping(results.manifest, "accelerator"), platform)
    return str(proof.get("name") or ""), str(proof.get("reason") or "")


# ---- tunings ---------------------------------------------------------------------------------


def build_tunings(results: Results) -> Table | None:
    """The tunings by name with their reasons; equal ones of several machines share a row."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for platform in find_machines(results):
        for each in get_list(find_start(results, platform), "tuning"):
            if isinstance(each, Mapping) and each.get("item"):
                refused = "" if each.get("applied", True) else str(each.get("why_not") or "?")
                words = (str(each.get(key) or ABSENT) for key in ("item", "setting", "reason"))
                item, setting, reason = words
                found.setdefault((item, setting, reason, refused), []).append(platform)
    if not found:
        return None
    rows = [
        Row(
            quote(item),
            (
                Cell(quote(setting) if setting != ABSENT else ABSENT),
                Cell(reason),
                Cell("not applied", refused, "doubt") if refused else Cell("yes"),
                Cell(_join(results, names)),
            ),
        )
        for (item, setting, reason, refused), names in sorted(found.items(), key=lambda e: e[0][0])
    ]
    heads = ("tuning", "setting", "reason", "applied", "machines")
    return Table("What the tuned machines are given", heads, tuple(rows))


# ---- what a bootable disk holds ----------------------------------------------------------------


def build_extras(results: Results) -> tuple[Extras, ...]:
    """The packages and paths by which a disk differs from the container image, once per disk."""
    found: dict[str, tuple[Mapping[str, object], list[str]]] = {}
    for platform in find_machines(results):
        system = get_mapping(find_start(results, platform), "system")
        if get_list(system, "packages") or get_list(system, "changed"):
            found.setdefault(repr(system), (system, []))[1].append(platform)
    return tuple(_build_extra(results, *each) for each in found.values())


def _build_extra(
    results: Results, system: Mapping[str, object], platforms: Sequence[str]
) -> Extras:
    packages = [each for each in get_list(system, "packages") if isinstance(each, Mapping)]
    total = system.get("bytes")
    size = f" ({format_bytes(total)})" if isinstance(total, int) else ""
    changed = tuple(str(path) for path in get_list(system, "changed"))
    plural = "" if len(packages) == 1 else "s"
    sentence = (
        f"{_join(results, platforms)}: the disk holds these {len(packages)} package{plural}{size} "
        "beyond the container image."
    )
    rows = [
        Row(
            quote(str(each.get("name"))),
            (Cell(str(each.get("version") or ABSENT)), Cell(_format_size(each.get("bytes")))),
        )
        for each in sorted(packages, key=lambda each: str(each.get("name")))
    ]
    caption = f"{len(packages)} package{plural} beyond the container image"
    return Extras(sentence, Table(caption, ("package", "version", "size"), tuple(rows)), changed)


def _format_size(value: object) -> str:
    return format_bytes(value) if isinstance(value, int) else ABSENT


# ---- the guest's own view ----------------------------------------------------------------------

STAGES = ("firmware", "loader", "kernel", "initrd", "userspace", "finish")


def build_guest_view(results: Results) -> Table | None:
    """Median of each timestamp of systemd-analyze; None where no guest has told."""
    rows, seen = [], set[str]()
    told = {
        (platform, workload): stamps
        for platform in find_machines(results)
        for workload in results.workloads
        if (stamps := _find_stamps(results, platform, workload))
    }
    seen.update(name for stamps in told.values() for name in stamps)
    stages = [*(name for name in STAGES if name in seen), *sorted(seen - set(STAGES))]
    for (platform, workload), stamps in told.items():
        cells = [
            Cell(f"{format_number(median(stamps[name]))} s" if name in stamps else ABSENT)
            for name in stages
        ]
        head = describe_platform(results, platform, quoted=True)
        rows.append(Row(head, (Cell(quote(workload)), *cells), platform))
    if not rows:
        return None
    caption = "As seen by the guest: its own clock, never compared with the figures above"
    note = "Medians over the starts, from `systemd-analyze` within the guest."
    return Table(caption, ("machine", "workload", *stages), tuple(rows), note)


def _find_stamps(results: Results, platform: str, workload: str) -> dict[str, list[float]]:
    stamps: dict[str, list[float]] = {}
    for outcome in results.find_trials(platform, workload):
        if outcome.status != "ok":
            continue
        seen = get_mapping(get_mapping(outcome.details, "seen_by_guest"), "systemd")
        for name, value in get_mapping(seen, "timestamps").items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                stamps.setdefault(str(name), []).append(float(value))
    return stamps
