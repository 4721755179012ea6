"""Whether an image is the same tree on every platform, seen from inside, entry by entry.

The agent itself lists what it finds (``--list``, agent/PROTOCOL.md). The listing's digest is
compared first; only where it differs are the records fetched, to name what differs. A finding is
kept beside the image for as long as image, packing and agent are the same.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness import cgroup
from harness.drivers.base import Driver, InstanceSpec
from harness.errors import HarnessError, HostError, TrialError
from harness.images.archive import digest_file
from harness.images.model import Image
from harness.images.recipes import AGENT
from harness.images.workshop import write_text
from harness.plan import ScheduledTrial, Workload
from harness.runner import Bench, build_spec, describe_error, find_remedy
from harness.starter import read_clock

FIELDS = (
    "type", "mode", "owner", "group", "size", "device", "links", "first link", "target", "content",
    "attributes",
)  # fmt: skip
"""The words of a record after its path."""

_TIMEOUT = 600.0
_LISTING_MOST = 1 << 30
_NANOSECONDS = 1_000_000_000
_KEPT = "parity.json"
_SHOWN = 5
_PREFERRED = ("namespace", "crun", "runc", "process")
_ENGINES = ("/.dockerenv", "/etc/mtab")
"""What engines add to a root of their own accord, where the image has none."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a platform shows of an image. ``records`` are by path, and empty in a brief one;
    ``mounts`` are paths that the platform has mounted something of its own on."""

    count: int
    digest: str
    records: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """Two platforms that were given the same image; ``differing`` is 0 where they show the same."""

    platforms: tuple[str, str]
    packing: str
    entries: int
    differing: int
    examples: tuple[str, ...] = ()


class Unlistable(HostError):
    """A platform that cannot show its tree of an image, for a reason of its own."""

    def __init__(self, platform: str, message: str, hint: str | None) -> None:
        super().__init__(message, hint=hint)
        self.platform = platform


def parse_listing(text: str) -> Listing:
    """The agent's listing; raises TrialError if its last line is missing."""
    records: dict[str, tuple[str, ...]] = {}
    mounts = set()
    total: list[str] = []
    for line in text.splitlines():
        first, *words = line.split(" ")
        if first == "mount":
            mounts.add(words[0])
        elif first == "total":
            total = words
        elif first:
            records[first] = tuple(words)
    if len(total) != 2:
        raise TrialError("the listing of the image ends too early")
    return Listing(int(total[0]), total[1], records, frozenset(mounts))


def find_differences(one: Listing, other: Listing) -> list[str]:
    """What differs, a line each in the order of the paths; what either has mounted is left out."""
    found = []
    hidden = one.mounts | other.mounts
    hidden |= {path for path in _ENGINES if (path in one.records) != (path in other.records)}
    for path in sorted(one.records.keys() | other.records.keys()):
        if path in hidden or any(path.startswith(f"{mount}/") for mount in hidden):
            continue
        if line := _describe_difference(one.records.get(path), other.records.get(path)):
            found.append(f"{path}: {line}")
    return found


def _describe_difference(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> str | None:
    if one is None or other is None:
        return "only the second has it" if one is None else "only the first has it"
    for name, left, right in zip(FIELDS, one, other, strict=True):
        if left != right:
            return f"{name} {left[:40]}, {right[:40]}"
    return None


# ---- on the platforms ------------------------------------------------------------------------


def check_images(
    bench: Bench, images: Sequence[Image], say: Callable[[str], None]
) -> dict[str, list[Finding]]:
    """Each image on one container platform against every packing that guests have it in."""
    return {image.name: _check_image(bench, image, say) for image in images}


def compare_platforms(one: str, other: str, image: Image, bench: Bench) -> Finding:
    """One image on two platforms, without looking at what was found before."""
    left, right = (_list(each, image, bench, brief=True) for each in (one, other))
    packing = find_packing(bench.drivers[other], image).name
    if left == right:
        return Finding((one, other), packing, left.count, 0)
    left, right = (_list(each, image, bench, brief=False) for each in (one, other))
    found = find_differences(left, right)
    return Finding((one, other), packing, left.count, len(found), tuple(found[:_SHOWN]))


def require_same(findings: Mapping[str, Sequence[Finding]]) -> None:
    """Raise HostError for the first image that is not the same tree on two platforms."""
    for name, found in findings.items():
        for each in found:
            if each.differing:
                one, other = each.platforms
                raise HostError(
                    f"image {name} is not the same tree on {one} and {other}: {each.differing} of "
                    f"{each.entries} entries differ, such as {each.examples[0]}",
                    hint="--allow-different-trees measures them all the same",
                )


def find_packing(driver: Driver, image: Image) -> Path:
    """The file or folder that a platform's root file system is read from."""
    return driver.packed(image)[0].paths[0]


def build_report(findings: Mapping[str, Sequence[Finding]]) -> dict[str, object]:
    """The findings in JSON types, for the manifest."""
    return {name: [asdict(each) for each in found] for name, found in findings.items()}


def _check_image(bench: Bench, image: Image, say: Callable[[str], None]) -> list[Finding]:
    reference = _find_reference(bench)
    guests = _find_guests(bench, image)
    kept = _read_kept(image)
    found = []
    for guest, key in guests.items() if reference else ():
        assert reference is not None
        if key not in kept:
            say(f"{image.name}: comparing the trees that {reference} and {guest} show")
            kept[key] = compare_platforms(reference, guest, image, bench)
            _keep(image, kept)
        found.append(kept[key])
    return found


def _find_reference(bench: Bench) -> str | None:
    names = [*_PREFERRED, *bench.drivers]
    kinds = {name: driver.kind for name, driver in bench.drivers.items()}
    return next((each for each in names if kinds.get(each, "vm") in ("container", "process")), None)


def _find_guests(bench: Bench, image: Image) -> dict[str, str]:
    """A platform for each packing that guests have, and what its finding is kept under."""
    guests: dict[str, str] = {}
    for name, driver in bench.drivers.items():
        if driver.kind != "vm":
            continue
        key = _build_key(find_packing(driver, image), image)
        if key not in guests.values():
            guests[name] = key
    return guests


def _build_key(packing: Path, image: Image) -> str:
    info = packing.stat()
    agent = digest_file(image.tree / AGENT)
    marks = (info.st_size, info.st_mtime_ns, info.st_ino) if packing.is_file() else ()
    return " ".join([image.digest, packing.name, *map(str, marks), agent])


def _list(platform: str, image: Image, bench: Bench, *, brief: bool) -> Listing:
    words = ("--list", "--brief") if brief else ("--list",)
    spec = replace(_build_spec(platform, image, bench), command=(f"/{AGENT}", *words), ready="exit")
    driver = bench.drivers[platform]
    try:
        with _folder_of(spec, bench) as own, driver.start_instance(own) as instance:
            instance.channel.kept = _LISTING_MOST
            instance.wait_ready()
            instance.channel.wait_exit(read_clock() + int(_TIMEOUT * _NANOSECONDS))
            return parse_listing(instance.channel.output.decode())
    except Exception as error:
        message = f"image {image.name} cannot be listed on {platform}: {describe_error(error)}"
        raise Unlistable(platform, message, find_remedy(error)) from error


def _build_spec(platform: str, image: Image, bench: Bench) -> InstanceSpec:
    """An instance of the platform that has nothing but the image."""
    lister = Workload("list", image.name, (f"/{AGENT}",), "exit", _TIMEOUT, user="0:0")
    alone = replace(bench, images={image.name: image}, workloads={lister.name: lister})
    scheduled = ScheduledTrial(0, 0, 0, platform, lister.name, warmup=False)
    spec = build_spec(scheduled, alone)
    return replace(spec, folder=bench.scratch / "listing", environment={}, directory="/")


@contextlib.contextmanager
def _folder_of(spec: InstanceSpec, bench: Bench) -> Iterator[InstanceSpec]:
    """The spec with its folder and groups made; they are gone afterwards."""
    spec.folder.mkdir(parents=True)
    try:
        if bench.tree:
            spec = replace(spec, cgroups=bench.tree.start(spec.name))
        yield spec
    finally:
        cgroup.kill_processes(spec.cgroups)
        cgroup.remove(spec.cgroups)
        shutil.rmtree(spec.folder, ignore_errors=True)


# ---- what was found before -------------------------------------------------------------------


def _read_kept(image: Image) -> dict[str, Finding]:
    try:
        document = json.loads((image.folder / _KEPT).read_text())
        return {
            key: Finding(
                (value["platforms"][0], value["platforms"][1]),
                value["packing"],
                value["entries"],
                value["differing"],
                tuple(value["examples"]),
            )
            for key, value in document.items()
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}


def _keep(image: Image, findings: Mapping[str, Finding]) -> None:
    """A cache that cannot be written only costs the next run the comparison."""
    document = {key: asdict(each) for key, each in findings.items()}
    with contextlib.suppress(OSError, HarnessError):
        write_text(image.folder / _KEPT, json.dumps(document, indent=1) + "\n")
