"""What can be counted in a root file system: how much there is to know about, and to update."""

from harness.images.archive import read_content
from harness.images.dpkg import STANZAS, STATUS, count_installed
from harness.images.recipes import AGENT
from harness.images.rootfs import Tree

_OURS = AGENT.partition("/")[0]


def count_facts(tree: Tree) -> dict[str, int]:
    """``files``: all but folders and the harness's own; ``packages``: those dpkg installed.

    A root without dpkg may keep a stanza for each package (`dpkg.STANZAS`); else it has none.
    """
    files = [
        path
        for path, entry in tree.items()
        if not entry.is_folder and path.partition("/")[0] != _OURS
    ]
    return {"files": len(files), "packages": _count_packages(tree)}


def _count_packages(tree: Tree) -> int:
    if STATUS in tree:
        return count_installed(read_content(tree[STATUS]).decode(errors="replace"))
    return sum(path.startswith(f"{STANZAS}/") for path in tree)
