"""The project's commands on a bare root, as the README shows them, and how each of them ended."""

from collections.abc import Iterator
from pathlib import Path

from tests.hosts.bare import FIRST_COMMAND, Answer, Visit, find_newest
from tests.hosts.findings import Check, Result

_README = Path(__file__).resolve().parents[2] / "README.md"
_ROUNDS = {"HARNESS_BENCH_ROUNDS": "2"}
_AT_ONCE_S = 15.0
_ISOLATION = "results/isolation"

_PLAN = 'platforms = ["process", "namespace"]\nworkloads = ["noop"]\nblocks = 6\nseed = 1\n'
_MINE = """\
name = "mine"
image = "tiny"
command = ["sh", "-c", "sleep 0.1; echo up"]
ready = "output:up"
timeout = "60s"
"""
_TYPED = ("make run", "make test", "make asv", "make site")
"""Those that are tried otherwise: `make test` is what continuous integration does."""
_SHORTER = " --blocks 1 --start-engines"
_LONG = {" run base-ladder": " --budget 1m --start-engines"}
_CODES = {" compare ": (0, 1, 2)}
"""Two short runs may differ, or be too short to be compared: that is an answer, too."""


def try_first(visit: Visit) -> Iterator[Result]:
    """The first command, word for word; what became of every platform; and once more."""
    first = visit.type(*FIRST_COMMAND)
    yield judge(visit, " ".join(FIRST_COMMAND), first)
    if first.code == 0:
        yield from visit.read_findings()
    again = visit.type("make", "setup")
    late = again.code == 0 and again.seconds > _AT_ONCE_S
    reason = f"it took {again.seconds:.0f} s" if late else ""
    yield judge(visit, "make run, its set-up again", again, reason)


def try_asv(visit: Visit) -> Iterator[Result]:
    """The project's own figures, and the pages that show them."""
    answer = visit.type("make", "asv", env=_ROUNDS)
    pages = visit.project / ".asv/html/index.html"
    yield judge(visit, "make asv", answer, "" if pages.is_file() else "there are no pages")


def try_site(visit: Visit) -> Iterator[Result]:
    """The static site of all runs that were made."""
    answer = visit.type("make", "site")
    pages = visit.project / "site/index.html"
    yield judge(visit, "make site", answer, "" if pages.is_file() else "there are no pages")


def try_documented(visit: Visit) -> Iterator[Result]:
    """Every other command of the README, with fewer blocks."""
    for name, text in (("plan.toml", _PLAN), ("gate.toml", _PLAN), ("mine.toml", _MINE)):
        (visit.project / name).write_text(text)
    _make_runs(visit)
    for command in list_documented(_README.read_text()):
        if not command.startswith(_TYPED):
            yield _try(visit, command)


def _make_runs(visit: Visit) -> None:
    """The runs that the README's commands name."""
    harness = (".venv/bin/python", "-m", "harness")
    visit.type(*harness, "run", "gate.toml", "--out", "results/base")
    visit.type(*harness, "isolation", "--platform", "namespace", "--out", _ISOLATION)


def _try(visit: Visit, command: str) -> Check:
    if "docker://" in command:
        return Check(visit.host, command, "left out", "needs a registry of images")
    answer = visit.type("sh", "-c", build_typed(command, find_newest(visit.project / "results")))
    codes = next((codes for word, codes in _CODES.items() if word in command), (0,))
    return judge(visit, command, answer, codes=codes)


def build_typed(command: str, run: Path) -> str:
    """What is typed for a command of the README: with the names of this host's runs, and short."""
    typed = command.replace("python -m", ".venv/bin/python -m")
    typed = typed.replace("results/ISOLATION-RUN", _ISOLATION)
    typed = typed.replace("RUN-ID", run.name)
    if not any(word in f" {typed} " for word in (" run ", " --moves ")):
        return typed
    if any(word in typed for word in ("--dry-run", "--resume", "gate.toml", "--quick")):
        return typed
    return typed + next((more for word, more in _LONG.items() if word in typed), _SHORTER)


def list_documented(readme: str) -> list[str]:
    """Every command that the README shows in its blocks of shell, without its comment."""
    shown = (block.partition("```")[0] for block in readme.split("```sh\n")[1:])
    lines = [line.partition(" #")[0].strip() for block in shown for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def judge(
    visit: Visit, what: str, answer: Answer, reason: str = "", codes: tuple[int, ...] = (0,)
) -> Check:
    """A command that ended with another code than it should, or for ``reason``, failed."""
    if answer.code not in codes:
        lines = [line for line in answer.output.splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), (lines or [""])[-1])
        reason = f"ended with {answer.code}: {said}"
    if "Traceback (most recent call last)" in answer.output:
        reason = "it printed a traceback"
    return Check(visit.host, what, "failed" if reason else "ran", reason)
