"""Remove things from the cache, beside runs and builds that go on."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from harness.errors import HostError, InputError
from harness.images.workshop import PREFIX, remove_tree
from harness.stock.decide import Verdict
from harness.stock.inventory import Item
from harness.stock.usage import MARK, try_lock


def require_names(items: Sequence[Item], names: Sequence[str]) -> None:
    """Raise InputError for a name that nothing in the cache has."""
    known = sorted({each.name for each in items if each.kind in ("image", "disk", "snapshot")})
    for name in names:
        if name not in known:
            nearest = get_close_matches(name, known, n=1, cutoff=0.5)
            there = f"there are {', '.join(known)}" if known else "the cache has none"
            hint = f"did you mean {nearest[0]!r}?" if nearest else there
            raise InputError(f"there is no image {name!r} to remove", hint=hint)


def carry_out(verdicts: Sequence[Verdict]) -> Iterator[Verdict]:
    """Remove what goes. A verdict is another one where a run or a build came in between.

    Raises HostError for what cannot be removed. What vanished meanwhile is gone.
    """
    for verdict in verdicts:
        busy = _remove_item(verdict.item) if verdict.goes else ""
        yield Verdict(verdict.item, goes=False, why=busy) if busy else verdict


def _remove_item(item: Item) -> str:
    """Remove it under the locks of who builds and who uses it; what it is busy with, or nothing."""
    entry = item.path.parent if item.kind == "initramfs" else item.path
    try:
        with try_lock(entry.parent / ".lock") as still, try_lock(entry / MARK) as idle:
            if not still:
                return "a build is at work there"
            if not idle:
                return "a run uses it now"
            _remove(item.path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise HostError(
            f"{item.path} cannot be removed: {error.strerror or error}",
            hint="is the cache folder yours, and may it be written?",
        ) from error
    return ""


def _remove(path: Path) -> None:
    """Out of sight in one step first: what is half removed must not look whole."""
    if not path.is_dir():
        path.unlink()
        return
    gone = path.with_name(f"{PREFIX}gone-{path.name}-{os.getpid()}")  # a full disk has no room
    path.rename(gone)
    remove_tree(gone)
    link = path.parent / "current"
    if link.is_symlink() and not link.exists():
        link.unlink()
