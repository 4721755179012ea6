"""Evidence from other runs of the same host: isolation, rebuilds, base images, storms.

A report is of one run. What is measured by commands of their own (`isolation`, `layers`, a plan
such as `base-ladder`) comes into it as chapters that say which run they are from. No figure of one
run is ever held against one of another; `compare` is there for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.compare_traits import build_host_traits, find_differences
from harness.analysis.plots import Drawing, draw_figures
from harness.analysis.results import Results, load_results
from harness.analysis.wording import describe_accelerators, quote
from harness.errors import InputError

CHAPTERS = ("bases", "efficiency", "rebuild", "density", "storm", "isolation")
"""What can be taken from another run, by anchor, where the run itself has none of it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Another run of the same host, summarised, and its figures."""

    results: Results
    drawings: Mapping[str, list[Drawing]]

    @property
    def origin(self) -> str:
        """Where a chapter comes from, in a sentence."""
        manifest = self.results.manifest
        day = str(manifest.get("created_at") or "")[:10]
        on = f" on {day}" if day else ""
        ran = describe_accelerators(self.results)
        return (
            f"Measured on the same host in another run, {quote(str(manifest['run_id']))}{on}"
            f"{f'. {ran}' if ran else ''}."
        )


def load_evidence(results: Results, folders: Sequence[Path]) -> tuple[Evidence, ...]:
    """The runs in ``folders``; raises InputError for one of another host, or the same run."""
    found = []
    for folder in dict.fromkeys(folders):
        other = load_results(folder)
        _require_same_host(results, other, folder)
        found.append(Evidence(other, draw_figures(other)))
    return tuple(found)


def _require_same_host(results: Results, other: Results, folder: Path) -> None:
    if other.manifest.get("run_id") == results.manifest.get("run_id"):
        raise InputError(f"--evidence: {folder} is the reported run itself", hint="leave it out")
    ours, theirs = (build_host_traits(each.manifest) for each in (results, other))
    if differences := find_differences(ours, theirs):
        first = differences[0]
        raise InputError(
            f"--evidence: {folder} is of another host: its {first.dimension} is {first.new}, "
            f"not {first.base}",
            hint="measure both on one host, or publish them side by side",
        )
