"""Base images: the same application on each, as a container and as a virtual machine."""

from collections.abc import Mapping, Sequence

from harness.analysis.memory import ENDED, has_ended
from harness.analysis.results import Results, get_mapping
from harness.analysis.tables import Cell, Row, Table, build_cell
from harness.analysis.wording import ABSENT, describe_platform, quote
from harness.units import format_bytes

MARK = "@"
CONTAINER_PACKING = "oci-gzip"
MACHINE_PACKING = "qcow2"
_MEASURED = (("ready", "startup.ready"), ("memory", "memory.pss"))
_NOTE = (
    "Packages are those that dpkg knows, files are all but folders. Both packings are compressed: "
    "OCI layers (gzip) are what a registry sends, the qcow2 is the root of a machine whose kernel "
    "lies beside it. Memory is PSS on the host."
)


def build_bases(results: Results) -> Table | None:
    """Application × base image; None unless some application ran in several images."""
    found = find_bases(results)
    firsts = (_find_first(results, kind) for kind in ("container", "vm"))
    columns = [name for name in firsts if name]
    if not found or not columns:
        return None
    rows = [
        _build_row(results, application, workload, columns)
        for application, workloads in found.items()
        for workload in workloads
    ]
    heads = [
        f"{word}, {describe_platform(results, platform, quoted=True)}"
        for platform in columns
        for word, _ in _MEASURED
    ]
    head = ("application", "base image", "packages", "files", "container packing", "VM packing")
    ended = [quote(name) for each in found.values() for name in each if has_ended(results, name)]
    note = f"{_NOTE} Memory of {', '.join(ended)} was read {ENDED}." if ended else _NOTE
    return Table("Base images", (*head, *heads), tuple(rows), note)


def find_bases(results: Results) -> dict[str, list[str]]:
    """The workloads that are one application in several images, by application."""
    found: dict[str, list[str]] = {}
    for workload in results.workloads:
        application, mark, _ = workload.partition(MARK)
        if mark:
            found.setdefault(application, []).append(workload)
    return {name: workloads for name, workloads in found.items() if len(workloads) > 1}


def _find_first(results: Results, kind: str) -> str:
    """The platform that stands for its kind: the reference if it is one, else the first."""
    reference = results.reference or ""
    if results.kinds.get(reference) == kind:
        return reference
    return next((name for name in results.first_arms if results.kinds[name] == kind), "")


def _build_row(results: Results, application: str, workload: str, platforms: Sequence[str]) -> Row:
    name = results.images[workload]
    image = get_mapping(get_mapping(results.manifest, "images"), name)
    facts, packings = get_mapping(image, "facts"), get_mapping(image, "packings")
    cells = [
        Cell(quote(name)),
        Cell(_format_count(facts, "packages")),
        Cell(_format_count(facts, "files")),
        Cell(_format_packing(packings, CONTAINER_PACKING)),
        Cell(_format_packing(packings, MACHINE_PACKING)),
    ]
    cells += [
        build_cell(results.find(platform, workload, metric))
        for platform in platforms
        for _, metric in _MEASURED
    ]
    return Row(quote(application), tuple(cells))


def _format_count(facts: Mapping[str, object], name: str) -> str:
    count = facts.get(name)
    return str(count) if isinstance(count, int) else ABSENT


def _format_packing(packings: Mapping[str, object], name: str) -> str:
    size = get_mapping(packings, name).get("apparent")
    return format_bytes(size) if isinstance(size, int) else ABSENT
