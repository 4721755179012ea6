"""`make hosts`: the project on hosts that it has never seen, and the table of what they showed.

    python -m tests.hosts [odd] [bare] [machine] [bookworm] [trixie] [--write]

Words choose some of the hosts; without any, all of them are visited. What each showed last is kept
in the cache; ``--write`` puts it into docs/hosts.md. Ends with 1 where a platform or a command
failed.
"""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.process import run_command
from tests.hosts import commands, jobs, odd
from tests.hosts.bare import start_visit
from tests.hosts.findings import Book, Check, Result
from tests.hosts.roots import RELEASES, Release, hosts_dir

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hosts.md"
MARK = "<!-- what follows is written by `make hosts` -->"


def visit_bare(release: Release) -> Iterator[Result]:
    """The README's commands on a root with nothing but make."""
    with start_visit(release) as visit:
        yield from commands.try_first(visit)
        yield from commands.try_asv(visit)
        yield from commands.try_documented(visit)
        yield from commands.try_site(visit)


def visit_machine(release: Release) -> Iterator[Result]:
    """A host with systemd, as root and as two ordinary users."""
    for job in jobs.JOBS:
        yield from job.run(release)


def visit_odd(release: Release) -> Iterator[Result]:
    """This host with something odd about it; once, whatever the releases are."""
    if release == RELEASES[0]:
        yield from odd.try_all()


FORMS: dict[str, Callable[[Release], Iterator[Result]]] = {
    "odd": visit_odd,
    "bare": visit_bare,
    "machine": visit_machine,
}


def main(words: Sequence[str]) -> int:
    """Visit the hosts that were chosen; the exit code."""
    forms = [name for name in FORMS if name in words] or list(FORMS)
    suites = [each.suite for each in RELEASES if each.suite in words]
    releases = [each for each in RELEASES if not suites or each.suite in suites]
    book = Book.open(hosts_dir() / "results.json", _read_commit())
    failed = 0
    for release in releases:
        for form in forms:
            for each in _follow(FORMS[form](release), f"{release.name}, {form}"):
                book.add(each)
                failed += each.verdict == "failed"
    print(book.format())
    if "--write" in words:
        head, mark, _ = PAGE.read_text().partition(MARK)
        PAGE.write_text(f"{head}{mark}\n\n{book.format()}")
    return 1 if failed else 0


def _follow(found: Iterator[Result], host: str) -> Iterator[Result]:
    """Hand on what is found, and say it; a host that cannot be made is a failure."""
    try:
        for each in found:
            print(f"hosts: {each.host}: {each.what}: {each.words} {each.reason}", file=sys.stderr)
            yield each
    except Exception as error:  # what was seen of other hosts is not lost for it
        traceback.print_exc()
        yield Check(host, "the host itself", "failed", f"{type(error).__name__}: {error}")


def _read_commit() -> str:
    return run_command(["git", "rev-parse", "--short", "HEAD"], timeout=30).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
