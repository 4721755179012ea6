"""Plans that come with the harness: the files beside this one, run by their name."""

from pathlib import Path

from harness.errors import InputError
from harness.inputs import suggest

FOLDER = Path(__file__).parent
_SUFFIX = ".toml"


def list_plans() -> list[str]:
    """The names of the plans that come with the harness."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}"))


def find_plan(name: Path) -> Path:
    """The plan of a path, or of the name of one that comes with the harness.

    A file of the user's own goes first. Raises InputError for a name that is neither; a path is
    left to whoever reads it.
    """
    if name.exists() or len(name.parts) > 1:
        return name
    stem = name.name.removesuffix(_SUFFIX)
    if stem in list_plans():
        return FOLDER / f"{stem}{_SUFFIX}"
    if name.suffix == _SUFFIX:
        return name
    known = suggest(stem, list_plans(), "plans that come with the harness")
    raise InputError(f"there is no plan {str(name)!r}", hint=f"{known}; a file ends in .toml")
