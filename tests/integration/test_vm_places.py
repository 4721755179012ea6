"""Virtual machines wherever the cache and temporary files are: what paths get into is quoted."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.images.model import GuestKernel, Image, Programs
from harness.paths import cache_dir

PROJECT = Path(__file__).parents[2]
ODD = "ca che, q'u\"o: é %s #1"
PLATFORMS = ("vm-direct", "vm-microvm", "vm-restore")

# A cache on a mount of its own, as on a volume.
MOUNTED = 'mount --bind "$1" "$1" && shift && umask 077 && exec "$@"'


@pytest.fixture
def place(tiny_image: Image, programs: Programs, guest_kernel: GuestKernel) -> Iterator[Path]:
    """A folder for a cache of its own, with what the tests' cache has already."""
    with tempfile.TemporaryDirectory(prefix="harness-places-") as name:
        yield Path(name)


def copy_cache(to: Path) -> None:
    to.mkdir(parents=True)
    for name in ("images/tiny", "kernels", "programs"):
        copy = ["cp", "-a", "--reflink=auto", "--sparse=always"]
        (to / name).parent.mkdir(exist_ok=True)
        subprocess.run([*copy, cache_dir() / name, to / name], check=True)


def run_vms(cache: Path, temporary: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    words = [word for platform in PLATFORMS for word in ("--platform", platform)]
    harness = [sys.executable, "-m", "harness", "run", "--blocks", "1", "--seed", "1"]
    harness += ["--workload", "noop", "--accelerator", "tcg", "--out", str(out), *words]
    mounted = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTED, "sh"]
    return subprocess.run(
        [*mounted, str(cache), *harness],
        cwd=PROJECT,
        env={**os.environ, "HARNESS_CACHE": str(cache), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [ODD, f"{'n' * 120}/{'m' * 60}"], ids=["odd", "long"])
def test_a_cache_anywhere_with_an_umask_of_077(place: Path, name: str) -> None:
    cache, temporary, out = place / "cache" / name, place / "tmp" / name, place / "out"
    copy_cache(cache)
    temporary.mkdir(parents=True)
    done = run_vms(cache, temporary, out)
    assert done.returncode == 0, done.stderr
    outcomes = read_outcomes(out)
    assert [each for each in outcomes if each["status"] != "ok"] == []
    assert {each["platform"].partition("#")[0] for each in outcomes} == set(PLATFORMS)
    assert list(temporary.iterdir()) == []
    assert sorted(each.name for each in place.iterdir()) == ["cache", "out", "tmp"]
    shutil.rmtree(cache)


def read_outcomes(out: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines())
    return [line for line in lines if "platform" in line]
