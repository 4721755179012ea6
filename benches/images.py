"""Disks of an imported image beside a tar of the same tree: `python -m benches.images`.

None needs root: run it as an ordinary user, and as root for comparison.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benches.rig import Samples
from harness.images.bootable import disks_dir, require_disk
from harness.images.catalog import import_image
from harness.images.model import Image
from harness.images.pack import write_ext4
from harness.images.rooted import run_rooted
from harness.images.workshop import remove_tree

SIZE = 200_000_000
FILES = 6000
_LARGEST = 60_000


def measure_disks(repeats: int = 10, seed: int = 1) -> Samples:
    """Seconds to write the tar (``tar``) of a tree of 200 MB, the ext4 disk that guests with a
    kernel of their own get (``disk``), and the disk with boot loader and systemd (``boot``).

    The system that lies on the latter beside the image is the same for all and made once before.
    """
    found: dict[str, list[float]] = {"tar": [], "disk": [], "boot": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HARNESS_CACHE"] = str(folder / "cache")  # nothing of this stays
        write_tree(folder / "tree", seed)
        image = import_image(str(folder / "tree"), "large", lambda _: None)
        for _ in range(repeats + 1):
            found["tar"].append(_time_tar(image, folder / "x.tar"))
            found["disk"].append(_time_disk(image, folder / "disk"))
            found["boot"].append(_time_bootable(image))
    return {way: seconds[1:] for way, seconds in found.items()}  # the first warms up


def write_tree(folder: Path, seed: int) -> None:
    """Many small files, and a large one that makes it SIZE bytes; nothing of it compresses."""
    source = random.Random(seed)
    sizes = [source.randrange(_LARGEST) for _ in range(FILES)]
    for number, size in enumerate(sizes):
        parent = folder / f"usr/lib/{number % 40}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / str(number)).write_bytes(source.randbytes(size))
    (folder / "usr/large").write_bytes(source.randbytes(SIZE - sum(sizes)))


def _time_tar(image: Image, out: Path) -> float:
    begun = time.monotonic()
    words = ["tar", "--create", "--numeric-owner", f"--directory={image.tree}", f"--file={out}"]
    run_rooted([*words, "."], timeout=300)
    return time.monotonic() - begun


def _time_disk(image: Image, out: Path) -> float:
    out.unlink(missing_ok=True)
    begun = time.monotonic()
    write_ext4(image.tree, out, image.digest, FILES + 100, SIZE)
    return time.monotonic() - begun


def _time_bootable(image: Image) -> float:
    remove_tree(disks_dir())
    begun = time.monotonic()
    require_disk(image, lambda _: None)
    return time.monotonic() - begun


def main(repeats: int) -> None:
    samples = measure_disks(repeats)
    for way, seconds in samples.items():
        print(f"{way}: {statistics.median(seconds):.2f} s")
    for way in ("disk", "boot"):
        ratios = [disk / tar for tar, disk in zip(samples["tar"], samples[way], strict=True)]
        span = f"{min(ratios):.2f}–{max(ratios):.2f} in {repeats} pairs"
        print(f"{way} to tar: {statistics.median(ratios):.2f} × (at most 3 ×); {span}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
