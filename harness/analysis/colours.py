"""One colour per platform, the same in every figure and table of a report.

Colours keep a contrast of 3:1 to white paper and to dark paper. Platforms of every day have a
colour of their own in every report; the others take one out of a spare set.
"""

import zlib
from collections.abc import Collection, Sequence

from harness.model import base_platform

PLATFORM_COLOURS = {
    "process": "#6f7b8a",
    "namespace": "#1a7fc1",
    "crun": "#159a86",
    "runc": "#4b8f29",
    "gvisor": "#8a7d12",
    "podman": "#7d6fd0",
    "docker": "#4f6fdc",
    "vm-direct": "#d55e00",
    "vm-microvm": "#b8529a",
    "vm-disk": "#b04a3c",
    "vm-restore": "#a8741a",
}

SPARE_COLOURS = (
    "#c2410c", "#0e8a9a", "#9a5bd0", "#5f8a10", "#c0437a", "#3f7f6b", "#a88e6d", "#b8798a",
    "#816094", "#10a969", "#ef5b72", "#c88055", "#865f55", "#1696fc", "#669e67",
)  # fmt: skip


def assign_colours(platforms: Sequence[str]) -> dict[str, str]:
    """A colour for each of ``platforms``; an A/A arm has that of its platform.

    Two platforms share one only where the spare set is used up. A platform's spare colour is the
    same in every run unless another one has taken it.
    """
    chosen: dict[str, str] = {}
    for base in dict.fromkeys(map(base_platform, platforms)):
        chosen[base] = PLATFORM_COLOURS.get(base) or _find_spare(base, chosen.values())
    return {platform: chosen[base_platform(platform)] for platform in platforms}


def _find_spare(name: str, taken: Collection[str]) -> str:
    first = zlib.crc32(name.encode("utf-8", "replace")) % len(SPARE_COLOURS)
    ordered = SPARE_COLOURS[first:] + SPARE_COLOURS[:first]
    return next((colour for colour in ordered if colour not in taken), ordered[0])
