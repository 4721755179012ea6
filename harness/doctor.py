"""What can run on this host, what cannot and why, and what makes it noisy.

Works when hardly anything is installed: only the standard library is imported at the top.
"""

import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import lab, system
from harness.drivers import PLATFORMS
from harness.drivers.base import Toolbox
from harness.errors import HarnessError
from harness.host import Host, Noise, find_noise, read_host
from harness.system import SystemPackage

MODULES = (
    "click", "docker", "jinja2", "libvirt", "msgspec", "pandas", "psutil", "pyarrow", "pyperf",
    "rich", "scipy", "seaborn",
)  # fmt: skip
"""Python packages that a run needs, by the name that is imported."""

SET_UP = "make run"
NOTHING_RUNS = 3


@dataclass(frozen=True, slots=True)
class PlatformCheck:
    """Whether a platform runs here; if not, why, and the command that mends it."""

    name: str
    kind: str | None
    available: bool
    reason: str | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class AcceleratorCheck:
    """What guests run on. ``proved`` is true only after the guest kernel booted on it here."""

    name: str | None
    proved: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A package that is not installed, and the command that installs it."""

    name: str
    purpose: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that `doctor` says, as data."""

    host: Host
    privileged: bool
    platforms: tuple[PlatformCheck, ...]
    accelerator: AcceleratorCheck
    missing: tuple[Missing, ...]
    noise: tuple[Noise, ...]


def main(as_json: bool) -> int:
    """Examine and print; 0 if any platform runs here, else 3."""
    checkup = examine()
    print(json.dumps(asdict(checkup), indent=2) if as_json else format_checkup(checkup))
    return 0 if any(each.available for each in checkup.platforms) else NOTHING_RUNS


def examine() -> Checkup:
    facts = read_host()
    missing = system.find_missing(system.read_packages())
    return Checkup(
        host=facts,
        privileged=lab.is_privileged(),
        platforms=tuple(check_platform(name, missing) for name in PLATFORMS),
        accelerator=check_accelerator(),
        missing=(*_describe_missing(missing), *_find_missing_modules()),
        noise=tuple(find_noise(facts)),
    )


def check_platform(name: str, missing: Sequence[SystemPackage]) -> PlatformCheck:
    """Ask a platform's driver; a package of ``missing`` that it needs is the remedy."""
    module, _, class_name = PLATFORMS[name].partition(":")
    try:
        driver = getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        return PlatformCheck(name, None, False, _describe_import(error), SET_UP)
    lacking = [package for package in missing if name in package.platforms]
    if lacking:
        names = " ".join(system.build_names(lacking, "apt"))
        return PlatformCheck(
            name, driver.kind, False, f"{names} is not installed", _build_remedy(lacking)
        )
    reason = driver(Toolbox(starter=Path("starter"))).unavailable() or _find_lab_fault()
    return PlatformCheck(name, driver.kind, reason is None, reason)


def _describe_import(error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is not installed"
    return f"a Python package does not load: {error}"


def _find_lab_fault() -> str | None:
    """Why this user cannot enter the lab that every platform runs in."""
    try:
        if os.geteuid() != 0:
            lab.require_subordinate_ids()
    except HarnessError as error:
        return str(error)
    return None


def check_accelerator() -> AcceleratorCheck:
    """Prove the accelerator with the guest kernel, if that was built already."""
    try:
        from harness.drivers.accelerator import prove_accelerator
        from harness.images.kernel import find_guest_kernel

        kernel = find_guest_kernel()
        if kernel is None:
            return AcceleratorCheck(None, False, "the guest kernel is not built yet: a run does it")
        proof = prove_accelerator(kernel)
    except ImportError as error:
        return AcceleratorCheck(None, False, _describe_import(error))
    except HarnessError as error:
        return AcceleratorCheck(None, False, str(error))
    return AcceleratorCheck(proof.name, proof.proved, proof.reason)


def _describe_missing(packages: Sequence[SystemPackage]) -> list[Missing]:
    manager = system.find_manager()
    return [
        Missing(
            next(iter(system.build_names([each], manager or "apt")), each.probes[0]),
            each.purpose,
            _build_remedy([each]),
        )
        for each in packages
    ]


def _build_remedy(packages: Sequence[SystemPackage]) -> str:
    return system.format_remedy(packages, system.find_manager(), root=os.geteuid() == 0)


def _find_missing_modules() -> list[Missing]:
    return [
        Missing(name, "a Python package of the harness", SET_UP)
        for name in MODULES
        if not _has_module(name)
    ]


def _has_module(name: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):
        return importlib.util.find_spec(name) is not None
    return False


# ---- as text ---------------------------------------------------------------------------------


def format_checkup(checkup: Checkup) -> str:
    """The examination in lines for people; pure."""
    facts = checkup.host
    lines = [
        f"{facts.name}: {facts.os}, Linux {facts.kernel}",
        f"{facts.cpus} × {facts.cpu}, {facts.memory / 2**30:.1f} GiB, "
        f"{'root' if checkup.privileged else 'not root: user namespaces'}, cgroups {facts.cgroup}",
        "",
        "platforms",
        *(line for each in checkup.platforms for line in _format_platform(each)),
        "",
        "accelerator",
        f"  {_format_accelerator(checkup.accelerator)}",
    ]
    missing = {f"{each.name}: {each.purpose}": each.remedy for each in checkup.missing}
    noise = {each.problem: each.advice for each in checkup.noise}
    lines += _format_pairs("missing", missing) + _format_pairs("what makes this host noisy", noise)
    return "\n".join(lines)


def _format_platform(check: PlatformCheck) -> list[str]:
    if check.available:
        return [f"  {check.name:<12} runs here"]
    remedy = [f"  {'':<12} → {check.remedy}"] if check.remedy else []
    return [f"  {check.name:<12} cannot run here: {check.reason}", *remedy]


def _format_accelerator(check: AcceleratorCheck) -> str:
    if check.name is None:
        return f"not proved: {check.reason}"
    return f"{check.name}, {'proved' if check.proved else 'not proved'}: {check.reason}"


def _format_pairs(title: str, pairs: Mapping[str, str]) -> list[str]:
    if not pairs:
        return []
    return ["", title, *(f"  {what}\n    → {advice}" for what, advice in pairs.items())]
