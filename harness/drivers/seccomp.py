"""The system call filter that engines put on by default, for OCI bundles that ask for one.

Engines share one profile file (containers-common); it is no OCI configuration yet: its groups hold
for some capabilities and processors only. Formats: seccomp.json(5) of containers-common, and
config-linux.md («Seccomp») of the OCI runtime specification.
"""

import json
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.variants import Options

PROFILES = (
    Path("/etc/containers/seccomp.json"),
    Path("/usr/share/containers/seccomp.json"),
)
_ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
}


def find_profile() -> Path | None:
    """The profile of this host's engines; the administrator's goes first."""
    return next((path for path in PROFILES if path.is_file()), None)


def find_filter_fault(options: Options) -> str | None:
    """Why a filter that ``options`` ask for cannot be had; None if it can or is not asked for."""
    if not options.seccomp or find_profile():
        return None
    return (
        f"there is no seccomp profile at {PROFILES[-1]} (package golang-github-containers-common)"
    )


def read_filter(capabilities: Collection[str]) -> Mapping[str, object]:
    """``linux.seccomp`` for a container that keeps ``capabilities``; raises OSError."""
    profile = find_profile()
    if profile is None:
        raise FileNotFoundError(2, "there is no seccomp profile", str(PROFILES[-1]))
    return build_filter(json.loads(profile.read_text()), capabilities, platform.machine())


def build_filter(
    profile: Mapping[str, Any], capabilities: Collection[str], machine: str
) -> Mapping[str, object]:
    """An engine's profile as OCI runtimes take it; pure."""
    short, name = _ARCHITECTURES[machine]
    archs = [name]
    for each in profile["archMap"]:
        archs += each["subArchitectures"] if each["architecture"] == name else []
    kept = (each for each in profile["syscalls"] if _holds(each, capabilities, short))
    default = {key: profile[key] for key in ("defaultErrnoRet",) if key in profile}
    return {
        "defaultAction": profile["defaultAction"],
        **default,
        "architectures": archs,
        "syscalls": [_build_group(each) for each in kept],
    }


def _holds(group: Mapping[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    includes, excludes = group.get("includes") or {}, group.get("excludes") or {}
    present = {"caps": set(capabilities), "arches": {architecture}}
    return all(
        (not includes.get(kind) or set(includes[kind]) & own)
        and not set(excludes.get(kind) or ()) & own
        for kind, own in present.items()
    )


def _build_group(group: Mapping[str, Any]) -> dict[str, object]:
    kept = ("names", "action", "errnoRet", "args")
    return {key: group[key] for key in kept if group.get(key) not in (None, [])}
