"""The services of packages, where systemd runs: they come, and are neither enabled nor started.

Debian's package scripts ask ``deb-systemd-helper was-enabled UNIT``, are told yes of every unit
that was never seen before, and enable and start it. A stand-in before the real helper in the PATH
that apt gives them says no of those; whatever was known already goes to the real one. What is left
then is what `systemctl disable` leaves, so upgrades do not enable the unit either, and
deb-systemd-invoke(1p) starts no disabled unit.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HELPER = Path("/usr/bin/deb-systemd-helper")
STATES = Path("/var/lib/systemd")

_APT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""What apt gives package scripts by itself (``apt-config dump DPkg::Path``)."""
_SCRIPT = """#!/bin/sh
states={states}/deb-systemd-helper-enabled asked= unit=
for word; do
    case $word in
    --user) states={states}/deb-systemd-user-helper-enabled ;;
    -*) ;;
    was-enabled) asked=yes ;;
    *) unit=$word ;;
    esac
done
if [ "$asked" ] && [ ! -e "$states/$unit.dsh-also" ]; then
    echo "$unit" >>{held}
    exit 1
fi
exec {helper} "$@"
"""


class Held:
    """The apt options that hold services back, and afterwards the ``units`` that were held."""

    def __init__(self, folder: Path) -> None:
        self.options: Sequence[str] = ("-o", f"DPkg::Path={folder}:{_APT_PATH}")
        self._list = folder / "held"

    @property
    def units(self) -> list[str]:
        """The system's units that came and were not enabled, by name."""
        return sorted(set(self._list.read_text().split())) if self._list.exists() else []


@contextmanager
def hold_back(parent: Path) -> Iterator[Held]:
    """Put the stand-in into a new folder of ``parent``, from which programs may be executed."""
    with TemporaryDirectory(prefix="services-", dir=parent) as name:
        folder = Path(name)
        script = folder / HELPER.name
        script.write_text(build_script(folder / "held"))
        script.chmod(0o755)
        yield Held(folder)


def build_script(held: Path, helper: Path = HELPER, states: Path = STATES) -> str:
    """The stand-in, which adds the units that it holds back to the file ``held``."""
    words = {"held": held, "helper": helper, "states": states}
    return _SCRIPT.format(**{name: shlex.quote(str(path)) for name, path in words.items()})
