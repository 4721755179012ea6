"""The UEFI firmware of this host's distribution, found where its package puts it.

Where none of the usual places has it, the descriptions are read that distributions install for
whoever starts virtual machines (QEMU's docs/interop/firmware.json).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HostError

PACKAGE = "ovmf"


@dataclass(frozen=True, slots=True)
class Firmware:
    """``code`` is shared and read-only; each machine gets a copy of ``variables`` of its own."""

    code: Path
    variables: Path


CANDIDATES = tuple(
    Firmware(Path(folder, code), Path(folder, variables))
    for folder, code, variables in (
        ("/usr/share/OVMF", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF", "OVMF_CODE.fd", "OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf", "OVMF_CODE.fd", "OVMF_VARS.fd"),
        ("/usr/share/edk2/x64", "OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
        ("/usr/share/edk2-ovmf/x64", "OVMF_CODE.fd", "OVMF_VARS.fd"),
        ("/usr/share/qemu", "ovmf-x86_64-4m-code.bin", "ovmf-x86_64-4m-vars.bin"),
        ("/usr/share/qemu", "ovmf-x86_64-code.bin", "ovmf-x86_64-vars.bin"),
    )
)
"""Without Secure Boot, as the boot loader of a built disk is not signed. Debian, Fedora, Arch,
SUSE."""

DESCRIPTIONS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
"""Folders of descriptions; a file in the first hides one of its name in the second."""

_UNFIT = {"enrolled-keys", "requires-smm"}


def find_firmware(
    candidates: Sequence[Firmware] = CANDIDATES, descriptions: Sequence[Path] = DESCRIPTIONS
) -> Firmware | None:
    """The first that is installed with both of its files."""
    found = next((each for each in candidates if _is_whole(each)), None)
    return found or next((each for each in _read_all(descriptions) if _is_whole(each)), None)


def require_firmware(
    candidates: Sequence[Firmware] = CANDIDATES, descriptions: Sequence[Path] = DESCRIPTIONS
) -> Firmware:
    """As `find_firmware`; raises HostError."""
    found = find_firmware(candidates, descriptions)
    if found is None:
        places = ", ".join(dict.fromkeys(str(each.code.parent) for each in candidates))
        raise HostError(
            f"there is no UEFI firmware in {places}", hint=f"install the package {PACKAGE}"
        )
    return found


def parse_description(text: str) -> Firmware | None:
    """The firmware of a description, if a plain x86-64 machine of type q35 can start with it.

    Only raw files of two parts: what is copied for each machine is the second.
    """
    try:
        document = json.loads(text)
        mapping = document["mapping"]
        fits = (
            "uefi" in document["interface-types"]
            and mapping["device"] == "flash"
            and mapping.get("mode", "split") == "split"
            and not _UNFIT.intersection(document["features"])
            and any(map(_is_q35, document["targets"]))
        )
        parts = [mapping[each] for each in ("executable", "nvram-template")]
        if not fits or any(each["format"] != "raw" for each in parts):
            return None
        return Firmware(*(Path(each["filename"]) for each in parts))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_q35(target: dict[str, Any]) -> bool:
    machines = [str(each) for each in target["machines"]]
    return target["architecture"] == "x86_64" and any("q35" in each for each in machines)


def _read_all(folders: Sequence[Path]) -> list[Firmware]:
    """What is described, by the names of the files: these say what comes first."""
    files = {path.name: path for each in reversed(folders) for path in each.glob("*.json")}
    found = (parse_description(files[name].read_text(errors="replace")) for name in sorted(files))
    return [each for each in found if each is not None]


def _is_whole(firmware: Firmware) -> bool:
    return firmware.code.is_file() and firmware.variables.is_file()
