"""What a single platform needs besides the images: packings, disks, the guest's kernel."""

from collections.abc import Callable, Hashable, Mapping
from functools import partial

from harness.images.bootable import require_forms
from harness.images.catalog import require_packing
from harness.images.kernel import require_guest_kernel
from harness.images.model import Image
from harness.images.pack import EXTRA_PATHS
from harness.variants import parse_variant

_MACHINE = "vm-"
_FROM_DISK = "vm-disk"

Failed = dict[Hashable, Exception]
"""What could not be built in this run: it is not tried again for the next platform."""


def is_machine(platform: str) -> bool:
    """Whether a platform boots the guest's kernel."""
    return platform.startswith(_MACHINE)


def build_own(
    platform: str, images: Mapping[str, Image], failed: Failed, say: Callable[[str], None]
) -> None:
    """Build what the cache has not; raises whatever keeps it from being built."""
    variant = parse_variant(platform)
    packing = str(variant.options.disk)
    for name, image in images.items():
        if packing in EXTRA_PATHS:
            _build_once((name, packing), partial(require_packing, name, packing, say), failed)
        if variant.base == _FROM_DISK:
            _build_once((name, _FROM_DISK), partial(require_forms, image, say), failed)
    if is_machine(platform):
        _build_once(_MACHINE, partial(require_guest_kernel, say), failed)


def _build_once(key: Hashable, build: Callable[[], object], failed: Failed) -> None:
    if key in failed:
        raise failed[key]
    try:
        build()
    except Exception as error:
        failed[key] = error
        raise
