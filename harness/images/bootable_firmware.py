"""The UEFI firmware of this host's distribution, found where its package puts it."""

from dataclasses import dataclass
from pathlib import Path

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
    )
)
"""Without Secure Boot, as the boot loader of a built disk is not signed. Debian, Fedora, Arch."""


def find_firmware(candidates: tuple[Firmware, ...] = CANDIDATES) -> Firmware | None:
    """The first that is installed with both of its files."""
    return next((each for each in candidates if _is_whole(each)), None)


def require_firmware(candidates: tuple[Firmware, ...] = CANDIDATES) -> Firmware:
    """As `find_firmware`; raises HostError."""
    found = find_firmware(candidates)
    if found is None:
        places = ", ".join(dict.fromkeys(str(each.code.parent) for each in candidates))
        raise HostError(
            f"there is no UEFI firmware in {places}", hint=f"install the package {PACKAGE}"
        )
    return found


def _is_whole(firmware: Firmware) -> bool:
    return firmware.code.is_file() and firmware.variables.is_file()
