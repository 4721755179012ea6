"""Which platforms run on this host: the others have no figures here, and take none with them."""

import sys
from collections.abc import Iterable

from harness import doctor, system
from harness.errors import HarnessError


def list_available(platforms: Iterable[str]) -> list[str]:
    """Those of ``platforms`` that say they run here; the reason of the others is told on stderr."""
    missing = system.find_missing(system.read_packages())
    checks = [doctor.check_platform(name, missing, start_engines=True) for name in platforms]
    for check in checks:
        if not check.available:
            tell_left_out(check.name, check.reason)
    return [check.name for check in checks if check.available]


def tell_left_out(name: str, reason: str | HarnessError | None) -> None:
    """Say that a platform has no figures here, and why."""
    print(f"left out: {name}: {reason}", file=sys.stderr, flush=True)
