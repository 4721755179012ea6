"""The application that moves: a small static web site, the same bytes every time.

It has three releases: ``shop``; ``shop-next``, in which one page has changed; and ``other``, a site
of its own on the same base.
"""

import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path

from harness.images.recipes import EPOCH

FOLDER = "srv/site"
RELEASES = ("shop", "shop-next", "other")

_PAGES = 20
_PICTURES = 4
_PAGE_WORDS = 2500
_PICTURE_BYTES = 128 << 10
_CHANGED = "page-07.html"


def build_site(release: str) -> dict[str, bytes]:
    """The files of a release by name: pages that compress well and pictures that do not."""
    site, _, later = release.partition("-")
    source = random.Random(site)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=k % 9 + 2)) for k in range(600)]
    files = {f"page-{number:02}.html": _build_page(source, words) for number in range(_PAGES)}
    files |= {f"picture-{number}.jpg": source.randbytes(_PICTURE_BYTES)
              for number in range(_PICTURES)}  # fmt: skip
    if later:
        files[_CHANGED] = files[_CHANGED].replace(b"</body>", b"<p>A line was added.</p>\n</body>")
    return files


def _build_page(source: random.Random, words: list[str]) -> bytes:
    lines = [" ".join(source.choices(words, k=12)) for _ in range(_PAGE_WORDS // 12)]
    text = "\n".join(f"<p>{line}</p>" for line in lines)
    return f"<!doctype html>\n<html><body>\n{text}\n</body></html>\n".encode()


def write_site(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a release into the new folder ``folder``."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644)


def build_layer(files: Mapping[str, bytes]) -> bytes:
    """A release as the tar of a container's layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        parent = FOLDER.split("/")[0]
        for path in (parent, FOLDER):
            archive.addfile(_build_member(path, tarfile.DIRTYPE, 0o755))
        for name in sorted(files):
            member = _build_member(f"{FOLDER}/{name}", tarfile.REGTYPE, 0o644)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def _build_member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime = kind, mode, EPOCH
    return member
