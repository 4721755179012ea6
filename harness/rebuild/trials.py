"""One rebuild after the other, each from the same warm state, and what each left behind.

The image before the change is built once for each way. Before a trial of buildah that very build
is repeated, and every one of its instructions must come from the cache; after it, all that the
trial has brought is removed.
"""

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import TrialError
from harness.images.model import Image
from harness.images.oci import compress_file
from harness.images.workshop import Progress, remove_tree
from harness.model import NO_ACCELERATOR, Measurement, Outcome
from harness.probes import noise
from harness.rebuild import disks
from harness.rebuild.cases import IMAGE, LAYERED, WORKLOAD, ScheduledCase, Way
from harness.rebuild.layers import COMPRESSIONS, Blobs, Builder, Built
from harness.rebuild.material import Base, Packages, build_updated
from harness.rebuild.recipe import (
    Version,
    build_change,
    build_context,
    count_expected,
    find_changed,
)
from harness.rebuild.shipping import find_new, write_changed
from harness.runner import describe_error, find_remedy, keep_trace
from harness.starter import read_clock

MARK = "cache-not-warm"
_BEFORE, _AFTER = "before", "after"


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that trials share, made once: the state before a change, on both sides."""

    folder: Path
    image: Image
    packages: Packages
    builder: Builder
    bases: tuple[Base, Base]
    before: Version
    blobs: dict[Way, Blobs]
    warm: frozenset[str]
    disk: Path
    upper: Path


def prepare_site(image: Image, packages: Packages, folder: Path, say: Progress) -> Site:
    """Build the image before the change by every way; raises HostError or TrialError."""
    say("rebuild: preparing a base with a security update")
    bases = build_updated(image, folder)
    builder = Builder(folder / "buildah", packages.folder)
    builder.folder.mkdir()
    for number, base in enumerate(bases, 1):
        builder.pull(base.layout, number)
    before = Version("1", packages.first)
    say("rebuild: building what is there before a change")
    for way in LAYERED:
        builder.build(way, before, build_tag(way, _BEFORE))
    blobs = {way: builder.read_blobs(build_tag(way, _BEFORE)) for way in LAYERED}
    upper, disk = folder / "upper", folder / "before.raw"
    debs = [packages.folder / name for name in packages.first]
    change = disks.Change(tuple(debs), build_context(before))
    disks.apply_change([image.tree], upper, change)
    disks.write_disk([image.tree], upper, disk, image.digest)
    warm = builder.list_images()
    return Site(folder, image, packages, builder, bases, before, blobs, warm, disk, upper)


def run_cases(schedule: Sequence[ScheduledCase], site: Site, logs: Path) -> Iterator[Outcome]:
    """Yield the outcome of each rebuild as it ends; ``logs`` is the result folder's."""
    for scheduled in schedule:
        yield run_case(scheduled, site, logs)


def run_case(scheduled: ScheduledCase, site: Site, logs: Path) -> Outcome:
    """One rebuild; one that fails is an outcome too. Only an interrupt of the user gets out."""
    outcome = build_outcome(scheduled)
    trial = _Trial(site, scheduled, site.folder / f"t{scheduled.trial}")
    try:
        trial.folder.mkdir()
        before = noise.read_noise(read_clock())
        rows = trial.rebuild_layers() if scheduled.case.way in LAYERED else trial.rebuild_disk()
        trial.note_noise(before)
    except Exception as error:
        failed = replace(outcome, status="failed", error=describe_error(error),
                         hint=find_remedy(error))  # fmt: skip
        if kept := keep_trace(error, logs, scheduled.trial):
            trial.details["logs"] = kept
        return replace(failed, details=trial.details)
    finally:
        remove_tree(trial.folder)
    marks = tuple(trial.marks)
    return replace(outcome, measurements=tuple(rows), marks=marks, details=trial.details)


def build_outcome(scheduled: ScheduledCase) -> Outcome:
    """The outcome of a rebuild that starts now, before anything is known of it."""
    return Outcome(
        block=scheduled.block,
        trial=scheduled.trial,
        order=scheduled.order,
        platform=scheduled.case.platform,
        kind=scheduled.case.kind,
        accelerator=NO_ACCELERATOR,
        image=IMAGE,
        workload=WORKLOAD,
        cache="warm",
        instances=1,
        warmup=False,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(),
        status="ok",
    )


def build_tag(way: Way, state: str) -> str:
    return f"{way}-{state}"


class _Trial:
    """One rebuild in progress, with a folder of its own."""

    def __init__(self, site: Site, scheduled: ScheduledCase, folder: Path) -> None:
        self.site, self.case, self.folder = site, scheduled.case, folder
        self.details: dict[str, object] = {"change": self.case.change, "way": self.case.way}
        self.marks: list[str] = []
        mark = f"change {scheduled.trial}"
        self.after = build_change(site.before, self.case.change, mark, site.packages.added)

    def note_noise(self, before: noise.Noise) -> None:
        """Mark what disturbed the rebuild from outside. Waiting for the disk is no disturbance but
        part of a rebuild; it is stored all the same."""
        after = noise.read_noise(read_clock())
        marks = noise.find_marks(before, after)
        self.marks += [mark for mark in marks if not mark.startswith("pressure-")]
        self.details["noise"] = noise.build_details(before, after)

    # ---- by layers ---------------------------------------------------------------------------

    def rebuild_layers(self) -> list[Measurement]:
        builder, way = self.site.builder, self.case.way
        self._require_warm()
        tag = build_tag(way, _AFTER)
        try:
            built = builder.build(way, self.after, tag)
            self._note_cached(built)
            blobs = builder.read_blobs(tag)
            return self._measure_layers(built, blobs)
        finally:
            if len(builder.list_images()) > len(self.site.warm):
                builder.remove(tag)

    def _require_warm(self) -> None:
        """The cache holds what it held before the first trial, and a build finds all of it."""
        builder, way = self.site.builder, self.case.way
        again = builder.build(way, self.site.before, build_tag(way, _BEFORE))
        self.details["warm"] = {"steps": again.steps, "cached": again.cached}
        if again.cached != again.steps:
            raise TrialError(
                f"the layer cache is not warm: {again.cached} of {again.steps} instructions of the "
                "build before the change came from it"
            )
        if builder.list_images() != self.site.warm:
            raise TrialError("the layer cache is not what it was before the first trial")

    def _note_cached(self, built: Built) -> None:
        expected = count_expected(self.case.change, self.case.way)
        self.details["rebuild"] = {
            "steps": built.steps, "cached": built.cached, "expected": expected,
        }  # fmt: skip
        if built.cached != expected:
            self.marks.append(MARK)

    def _measure_layers(self, built: Built, blobs: Blobs) -> list[Measurement]:
        before, phase = self.site.blobs[self.case.way], self.case.phase
        layers = find_new(before.layers, blobs.layers)
        words = sum(find_new(before.descriptions, blobs.descriptions).values())
        self.details["new_layers"] = layers
        rows = [
            Measurement("rebuild.seconds", built.seconds, phase("image")),
            Measurement("rebuild.bytes", sum(layers.values()), phase("image")),
        ]
        for kind in COMPRESSIONS:
            size = sum(self.site.builder.compress(layers, kind).values())
            rows.append(Measurement("rebuild.shipped", size + words, phase(f"oci-{kind}")))
        return rows

    # ---- by disk -----------------------------------------------------------------------------

    def rebuild_disk(self) -> list[Measurement]:
        out, begun = self.folder / "after.raw", time.monotonic()
        if self.case.way == "rebuild":
            self._make_anew(out)
        else:
            self._update(out)
        seconds = time.monotonic() - begun
        changed = write_changed(self.site.disk, out, self.folder / "blocks")
        self.details["changed_blocks"] = changed.blocks
        written = out.stat().st_blocks * 512 if self.case.way == "rebuild" else changed.bytes
        rows = [
            Measurement("rebuild.seconds", seconds, self.case.phase("ext4-raw")),
            Measurement("rebuild.bytes", written, self.case.phase("ext4-raw")),
        ]
        return rows + self._measure_shipped(out)

    def _make_anew(self, out: Path) -> None:
        """As a disk image is built: the base's tree, dpkg, the code, and a new file system."""
        base, upper = self.site.bases[self.after.base - 1], self.folder / "upper"
        debs = [self.site.packages.folder / name for name in self.after.dependencies]
        change = disks.Change(tuple(debs), build_context(self.after))
        disks.apply_change([base.tree], upper, change)
        disks.write_disk([base.tree], upper, out, self.site.image.digest)

    def _update(self, out: Path) -> None:
        """Only the change, above the tree before it, and from there into a copy of the disk."""
        site, upper = self.site, self.folder / "upper"
        old, new = build_context(site.before), build_context(self.after)
        added = [name for name in self.after.dependencies if name not in site.before.dependencies]
        base = site.bases[1] if self.after.base > site.before.base else None
        change = disks.Change(
            tuple(site.packages.folder / name for name in added),
            {path: new[path] for path in find_changed(old, new)},
            base.tree if base else None,
            self._list_updated(base) if base else (),
        )
        disks.apply_change([site.upper, site.image.tree], upper, change)
        disks.update_disk(site.disk, upper, out)

    def _list_updated(self, base: Base) -> tuple[str, ...]:
        """The updated base's files, but for those that an installation has changed meanwhile."""
        return tuple(path for path in base.changed if not (self.site.upper / path).exists())

    def _measure_shipped(self, out: Path) -> list[Measurement]:
        """The whole disk, or the changed blocks; an updated disk as an overlay on the old one."""
        sizes = {"blocks-zstd": self._compress("blocks")}
        if self.case.way == "rebuild":
            sizes["qcow2"] = disks.write_qcow2(out, self.folder / "after.qcow2")
        else:
            disks.write_overlay(self.site.disk, out, self.folder / "overlay.qcow2")
            sizes["overlay-zstd"] = self._compress("overlay.qcow2")
        return [
            Measurement("rebuild.shipped", size, self.case.phase(packing))
            for packing, size in sizes.items()
        ]

    def _compress(self, name: str) -> int:
        packed = self.folder / f"{name}.zst"
        compress_file(self.folder / name, packed, "zstd")
        return packed.stat().st_size
