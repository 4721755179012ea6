"""Odd hosts: this one, with something about it that is unusual, for one run of the harness.

What is odd is made in a mount namespace of the run's own. A run works, or ends with one line that
names the thing and the remedy. ``python -m tests.hosts odd`` tries them all; the short form tries
`EVERYTHING` at once.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
from harness.images.programs import build_programs
from harness.images.workshop import remove_tree
from harness.paths import cache_dir
from harness.process import run_command
from harness.store import read_journal
from tests.hosts.findings import Check, Verdict
from tests.hosts.jobs import build_plan

PLATFORMS = ("process", "namespace", "crun", "runc", "podman", "vm-direct")
_HOST = "this host"
_ROOT = Path(__file__).resolve().parents[2]
_KEPT = ("images", "kernels", "programs")
_RUN_S = 400.0
_LONG = "n" * 100 + "/" + "m" * 90


@dataclass(frozen=True, slots=True)
class Odd:
    """A host on which something is odd.

    ``cache`` is the name of the cache's folder; ``before`` are lines of shell that make the rest so
    (WORK and CACHE are folders). ``says`` are words of the one line that the run ends with, where
    it cannot work; None where it works.
    """

    name: str
    cache: str = "cache"
    before: str = ""
    platforms: Sequence[str] = PLATFORMS
    says: tuple[str, ...] | None = None


EVERYTHING = Odd(
    "blank, comma, quotes, a colon, letters beyond ASCII; umask 077; a mount of its own",
    "ca che,'\"ü:c",
    'umask 077; mkdir "$WORK/t m,p"; export TMPDIR="$WORK/t m,p"; mount --bind "$CACHE" "$CACHE"',
)
ODD = (
    EVERYTHING,
    Odd("a blank in the cache's path", "ca che"),
    Odd("a comma in the cache's path", "ca,che"),
    Odd("quotes in the cache's path", "ca'ch\"e"),
    Odd("a colon in the cache's path", "ca:che"),
    Odd("a backslash in the cache's path", "ca\\che"),
    Odd("letters beyond ASCII in the cache's path", "caché"),
    Odd("190 letters in the cache's path", _LONG),
    Odd("the cache on a mount of its own", before='mount --bind "$CACHE" "$CACHE"'),
    Odd("an umask of 077", before="umask 077"),
    Odd("a TMPDIR with a blank", before='mkdir "$WORK/t m"; export TMPDIR="$WORK/t m"'),
    Odd(
        "a full /tmp", before="mount -t tmpfs -o size=4k tmpfs /tmp; cat /dev/zero >/tmp/full || :"
    ),
    Odd("a German locale", before="export LC_ALL=de_DE.ISO-8859-1 LANG=de_DE.UTF-8"),
    Odd("no HOME", before="unset HOME"),
    Odd("no /dev/kvm", before="mount --bind /dev/null /dev/kvm || :"),
    Odd(
        "no /dev/net/tun",
        before="mount -t tmpfs tmpfs /dev/net",
        platforms=("namespace", "vm-direct"),
    ),
    Odd(
        "a cache that is mounted noexec",
        before='mount --bind "$CACHE" "$CACHE"; mount -o remount,bind,noexec "$CACHE"',
        says=("noexec", "HARNESS_CACHE"),
    ),
    Odd(
        "a cache that is full",
        before='mount -t tmpfs -o size=96k tmpfs "$CACHE"',
        says=("no space left", "HARNESS_CACHE"),
    ),
)


def try_all() -> Iterator[Check]:
    """Every odd host, one after the other."""
    for odd in ODD:
        yield try_one(odd)


def try_one(odd: Odd) -> Check:
    """One block of `noop` on a host that is odd."""
    build_programs()
    require_image("tiny", print)
    require_guest_kernel(print)
    work = Path(tempfile.mkdtemp(prefix="odd-", dir=cache_dir()))
    try:
        return Check(_HOST, odd.name, *_judge(odd, *_run(odd, work)))
    finally:
        remove_tree(work)


def _run(odd: Odd, work: Path) -> tuple[int, str, Path]:
    cache, out = work / odd.cache, work / "out"
    cache.mkdir(parents=True)
    for name in _KEPT:
        run_command(["cp", "-a", "--reflink=auto", cache_dir() / name, cache / name], timeout=120)
    (work / "plan.toml").write_text(build_plan(odd.platforms))
    script = f"{odd.before}\nexec .venv/bin/python -m harness run $WORK/plan.toml --out $WORK/out"
    done = run_command(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        timeout=_RUN_S,
        check=False,
        cwd=_ROOT,
        env={"WORK": str(work), "CACHE": str(cache), "HARNESS_CACHE": str(cache)},
    )
    return done.returncode, done.stderr, out


def _judge(odd: Odd, code: int, said: str, out: Path) -> tuple[Verdict, str]:
    """Verdict and reason."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if "Traceback" in said:
        return "failed", f"a traceback: {last}"
    if odd.says is not None:
        return ("ran", "") if code == 3 and all(w in last for w in odd.says) else ("failed", last)
    if code != 0:
        return "failed", f"ended with {code}: {last}"
    outcomes = read_journal(out / "journal.jsonl")
    bad = [f"{each.platform}: {each.error}" for each in outcomes if each.status != "ok"]
    return ("failed", "; ".join(bad)) if bad else ("ran", "")
