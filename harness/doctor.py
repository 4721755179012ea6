"""What can run on this host, what cannot and why, and what makes it noisy.

Works when hardly anything is installed: only the standard library is imported at the top.
"""

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import lab, preflight, system
from harness.drivers import PLATFORMS
from harness.drivers.base import Toolbox
from harness.errors import HarnessError, describe_import, describe_unexpected
from harness.host import Host, Noise, find_noise, read_host
from harness.marks import START_KSM
from harness.system import SystemPackage
from harness.units import format_seconds

MODULES = (
    "click", "docker", "jinja2", "libvirt", "msgspec", "pandas", "psutil", "pyarrow", "pyperf",
    "rich", "scipy", "seaborn",
)  # fmt: skip
"""Python packages that a run needs, by the name that is imported."""

SET_UP = "make run"
UNTRIED = "not tried: its disk takes minutes to build, and the first run does that"
NOTHING_RUNS = 3


@dataclass(frozen=True, slots=True)
class PlatformCheck:
    """Whether a platform runs here; if not, why, and the command that mends it.

    ``proved`` is true after a real trial of `noop`, which was ready after ``seconds``; its guest,
    if it had one, ran on ``accelerator``.
    """

    name: str
    kind: str | None
    available: bool
    reason: str | None = None
    remedy: str | None = None
    proved: bool = False
    seconds: float | None = None
    accelerator: str | None = None


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
    state: preflight.State


def main(as_json: bool, *, prove: bool = True, start_engines: bool = False) -> int:
    """Examine and print; 0 if any platform runs here, else 3."""
    checkup = examine(prove=prove, start_engines=start_engines)
    print(json.dumps(asdict(checkup), indent=2) if as_json else format_checkup(checkup))
    return 0 if any(each.available for each in checkup.platforms) else NOTHING_RUNS


def examine(*, prove: bool = False, start_engines: bool = False) -> Checkup:
    """Look at this host; with ``prove``, try each platform for real."""
    facts, state = read_host(), preflight.read_state()  # before anything of its own runs
    missing = system.find_missing(system.read_packages())
    platforms = tuple(check_platform(name, missing, start_engines) for name in PLATFORMS)
    if prove:
        platforms = prove_all(platforms, start_engines)
    return Checkup(
        host=facts,
        privileged=lab.is_privileged(),
        platforms=platforms,
        accelerator=check_accelerator(),
        missing=(*_describe_missing(missing), *_find_missing_modules()),
        noise=(*find_noise(facts), *preflight.find_noise(state)),
        state=state,
    )


def prove_all(checks: Sequence[PlatformCheck], start_engines: bool) -> tuple[PlatformCheck, ...]:
    """The checks after one real trial of each platform that seems to run here."""
    names = [each.name for each in checks if each.available and _is_cheap(each.name)]
    try:
        from harness.drivers.accelerator import forget_failures
        from harness.proof import prove_platforms

        forget_failures()
        options = {"start_engines": start_engines}
        proofs = prove_platforms(names, options, lambda text: print(text, file=sys.stderr))
    except ImportError as error:
        return tuple(_disprove(each, describe_import(error), SET_UP) for each in checks)
    except HarnessError as error:  # what none of them can do without
        return tuple(_disprove(each, error.message, error.hint) for each in checks)
    found = []
    for check in checks:
        proof = proofs.get(check.name)
        if proof is None:
            tried = not check.available or _is_cheap(check.name)
            found.append(check if tried else replace(check, reason=UNTRIED))
        elif proof.seconds is None:
            found.append(_disprove(check, str(proof.reason), None))
        else:
            found.append(
                replace(check, proved=True, seconds=proof.seconds, accelerator=proof.accelerator)
            )
    return tuple(found)


def _is_cheap(name: str) -> bool:
    """Whether a trial needs nothing that takes minutes to build: a bootable disk does."""
    if name != "vm-disk":
        return True
    from harness.images.bootable import find_disk
    from harness.images.catalog import find_image

    image = find_image("tiny")
    return image is not None and find_disk(image) is not None


def _disprove(check: PlatformCheck, reason: str, remedy: str | None) -> PlatformCheck:
    if not check.available:
        return check
    return replace(check, available=False, reason=reason, remedy=remedy)


def check_platform(
    name: str, missing: Sequence[SystemPackage], start_engines: bool = False
) -> PlatformCheck:
    """Ask a platform's driver; a package of ``missing`` that it needs is the remedy."""
    module, _, class_name = PLATFORMS[name].partition(":")
    try:
        driver = getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        return PlatformCheck(name, None, False, describe_import(error), SET_UP)
    lacking = [package for package in missing if name in package.platforms]
    if lacking:
        names = " ".join(system.build_names(lacking, "apt"))
        return PlatformCheck(
            name,
            driver.kind,
            False,
            f"{names} is not installed",
            _build_remedy(lacking),
        )
    if fault := find_lab_fault():
        return PlatformCheck(name, driver.kind, False, *fault)
    try:
        own = driver(Toolbox(starter=Path("starter"), start_engines=start_engines))
        reason = own.unavailable()
    except ImportError as error:
        return PlatformCheck(name, driver.kind, False, describe_import(error), SET_UP)
    except HarnessError as error:
        return PlatformCheck(name, driver.kind, False, error.message, error.hint)
    except Exception as error:  # of one platform, and no reason to say nothing of the others
        reason = f"internal error: {describe_unexpected(error)}"
        return PlatformCheck(name, driver.kind, False, reason)
    return PlatformCheck(name, own.kind, reason is None, reason)


def find_lab_fault() -> tuple[str, str | None] | None:
    """Why this user cannot enter the lab that every platform runs in, and what mends it; None if it
    was entered. It is asked by entering it, once."""
    return _find_lab_fault(lab.is_privileged())


@functools.cache
def _find_lab_fault(_privileged: bool) -> tuple[str, str | None] | None:
    try:
        code = lab.run_inside(lambda: 0, f"doctor-{os.getpid()}")
    except HarnessError as error:
        return error.message, error.hint
    except OSError as error:
        return describe_unexpected(error), None
    lab.raise_interrupt(code)
    return None if code == 0 else (f"the lab ended with {code}", None)


def check_accelerator() -> AcceleratorCheck:
    """Prove the accelerator with the guest kernel, if that was built already."""
    try:
        from harness.drivers.accelerator import build_direct_guest, prove_accelerator
        from harness.images.kernel import find_guest_kernel

        kernel = find_guest_kernel()
        if kernel is None:
            return AcceleratorCheck(None, False, "the guest kernel is not built yet: a run does it")
        proof = prove_accelerator(build_direct_guest(kernel))
    except ImportError as error:
        return AcceleratorCheck(None, False, describe_import(error))
    except HarnessError as error:
        return AcceleratorCheck(None, False, str(error))
    except OSError as error:
        return AcceleratorCheck(None, False, describe_unexpected(error))
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
    lines += ["", "density with KSM", f"  {_format_merging(facts.same_page_merging)}"]
    lines += ["", "the processor", *(f"  {line}" for line in preflight.list_facts(checkup.state))]
    missing = {f"{each.name}: {each.purpose}": each.remedy for each in checkup.missing}
    noise = {each.problem: each.advice for each in checkup.noise}
    lines += _format_pairs("missing", missing) + _format_pairs("what makes this host noisy", noise)
    return "\n".join(lines)


def _format_platform(check: PlatformCheck) -> list[str]:
    if check.available:
        untried = "" if check.reason is None else f"; {check.reason}"
        words = "seems to run here" if untried else "runs here"
        return [f"  {check.name:<14} {words}{_format_proof(check)}{untried}"]
    remedy = [f"  {'':<14} → {check.remedy}"] if check.remedy else []
    return [f"  {check.name:<14} cannot run here: {check.reason}", *remedy]


def _format_proof(check: PlatformCheck) -> str:
    if check.seconds is None:
        return ""
    words = {"tcg": ", emulated (TCG)", "kvm": " under KVM"}
    how = words.get(check.accelerator or "", f", {check.accelerator}" if check.accelerator else "")
    return f": noop was ready in {format_seconds(check.seconds)}{how}"


def _format_accelerator(check: AcceleratorCheck) -> str:
    if check.name is None:
        return f"not proved: {check.reason}"
    return f"{check.name}, {'proved' if check.proved else 'not proved'}: {check.reason}"


def _format_merging(running: bool | None) -> str:
    """Whether a density series can be measured with same-page merging."""
    if running is None:
        return "not here: this kernel has none"
    if running:
        return "measured: ksmd runs; `/no-ksm` machines are measured without"
    return f"withheld: ksmd does not run\n    → {START_KSM}"


def _format_pairs(title: str, pairs: Mapping[str, str]) -> list[str]:
    if not pairs:
        return []
    return ["", title, *(f"  {what}\n    → {advice}" for what, advice in pairs.items())]
