"""What gVisor ran on in a result folder that does not say it.

The harness once asked gVisor for ``ptrace`` in every sandbox that it started, and stored of each
that it ran on nothing. The manifest of such a run has no accelerator of that platform. A Docker
daemon may have been the user's, with a platform in its own configuration, and the manifest does not
surely tell whose it was: what its sandboxes ran on is not known.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.model import NO_ACCELERATOR, Outcome, base_platform

ALWAYS = "ptrace"
_ENGINE = "docker"


def is_untold(platform: str, kind: str, accelerator: str, manifest: Mapping[str, object]) -> bool:
    """Whether it is a sandbox of a run that did not store what its sandboxes ran on."""
    told = manifest.get("accelerator")
    known = isinstance(told, Mapping) and base_platform(platform) in told
    return kind == "sandbox" and accelerator == NO_ACCELERATOR and not known


def find_accelerator(
    platform: str, kind: str, accelerator: str, manifest: Mapping[str, object]
) -> str | None:
    """What a platform ran on, from what is stored of it; None where it is not known."""
    if not is_untold(platform, kind, accelerator, manifest):
        return accelerator
    return None if platform.startswith(_ENGINE) else ALWAYS


def complete_outcomes(outcomes: Iterable[Outcome], manifest: Mapping[str, object]) -> list[Outcome]:
    """The same outcomes, each with what it ran on, as far as that is known."""
    return [_complete(each, manifest) for each in outcomes]


def _complete(outcome: Outcome, manifest: Mapping[str, object]) -> Outcome:
    found = find_accelerator(outcome.platform, outcome.kind, outcome.accelerator, manifest)
    return replace(outcome, accelerator=found) if found else outcome
