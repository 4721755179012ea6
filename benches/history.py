"""`make asv`: measure this commit with asv, make the pages, and say which figures are missing.

asv is told of the repository as it is: wherever the checkout lies, whoever owns it, and whatever is
checked out in it. It ends with 2 for one failed benchmark; the pages are made all the same.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benches import ROOT
from harness.errors import HarnessError, HostError

FAILED = 1
_SOME_FAILED = 2
"""asv's exit code where a benchmark failed, and nothing else did."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A figure without a value: a benchmark that ``failed``, or has nothing to measure here."""

    name: str
    failed: bool


def main(words: Sequence[str] = ()) -> int:
    """Measure and publish; 0, also where this host lacks what a figure needs, or FAILED.

    ``words`` are further ones for `asv run`: ``--bench PATTERN`` measures some of them.
    """
    try:
        environment = build_environment(ROOT, os.environ)
        commit = _ask_git("rev-parse", "HEAD", environment=environment)
        branch = _find_branch(environment)
        config = _write_config(branch)
        _run_asv("machine", "--yes", config=config, environment=environment)
        options = ("--python=same", "--record-samples", "--show-stderr")
        run = ("run", *options, f"--set-commit-hash={commit}", *words)
        _run_asv(*run, config=config, environment=environment, accepted=(0, _SOME_FAILED))
        _run_asv("publish", config=config, environment=environment)
        gaps = list(read_gaps(ROOT / ".asv/results", commit))
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in format_gaps(gaps):
        print(line)
    print(f"pages: {ROOT / '.asv/html/index.html'}")
    return FAILED if any(gap.failed for gap in gaps) else 0


def build_environment(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which git reads ``root`` though it may be another user's. Pure.

    git-config(1): of the places that ``safe.directory`` may stand in, these are the command's own.
    """
    count = int(environment.get("GIT_CONFIG_COUNT", "0"))
    own = {
        f"GIT_CONFIG_KEY_{count}": "safe.directory",
        f"GIT_CONFIG_VALUE_{count}": str(root),
        "GIT_CONFIG_COUNT": str(count + 1),
    }
    return {**environment, **own}


def build_config(root: Path, branch: str) -> dict[str, Any]:
    """asv's configuration for this checkout: its own file, with places and branch as they are."""
    config: dict[str, Any] = json.loads((root / "benches/asv.conf.json").read_text())
    folders = {"benchmark_dir": "benches/suite", "env_dir": ".asv/env"}
    folders |= {"results_dir": ".asv/results", "html_dir": ".asv/html"}
    places = {name: str(root / folder) for name, folder in folders.items()}
    return {**config, **places, "repo": str(root), "branches": [branch]}


def read_gaps(results: Path, commit: str) -> Iterator[Gap]:
    """The figures of a commit that asv has stored no value of, by name and parameters."""
    known = json.loads((results / "benchmarks.json").read_text())
    for path in sorted(results.glob(f"*/{commit[:8]}-*.json")):
        document = json.loads(path.read_text())
        columns = document["result_columns"]
        for name, row in document["results"].items():
            if name in known:
                yield from _find_gaps(name, dict(zip(columns, row, strict=False)))


def _find_gaps(name: str, found: Mapping[str, Any]) -> Iterator[Gap]:
    """asv keeps null for a failure, and NaN for what the benchmark says it cannot measure."""
    names = [", ".join(words) for words in product(*(found.get("params") or []))]
    values = found.get("result")
    for number, words in enumerate(names):
        value = values[number] if values else None
        if value is None or math.isnan(value):
            yield Gap(f"{name}({words})" if words else name, value is None)


def format_gaps(gaps: Sequence[Gap]) -> list[str]:
    """A line for the figures that failed, and one for those that this host has not. Pure."""
    lines = []
    for failed, words in ((True, "failed, and missing in the pages"), (False, "not on this host")):
        names = [gap.name for gap in gaps if gap.failed == failed]
        lines += [f"{words}: {'; '.join(names)}"] if names else []
    return lines


def _find_branch(environment: Mapping[str, str]) -> str:
    """What is checked out: a branch's name, or HEAD where it is a commit."""
    return _ask_git("rev-parse", "--abbrev-ref", "HEAD", environment=environment)


def _ask_git(*words: str, environment: Mapping[str, str]) -> str:
    """What git says of this checkout; raises HostError."""
    hint = "the history is kept by commit: clone the repository with git"
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise HostError(f"git cannot be run: {error.strerror}", hint="install git") from error
    if done.returncode != 0:
        told = (done.stderr.strip().splitlines() or ["git says nothing"])[0]
        raise HostError(f"{ROOT} has no commit to measure: {told}", hint=hint)
    return done.stdout.strip()


def _write_config(branch: str) -> Path:
    path = ROOT / ".asv/asv.conf.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(build_config(ROOT, branch), indent=4) + "\n")
    return path


def _run_asv(
    *words: str, config: Path, environment: Mapping[str, str], accepted: Sequence[int] = (0,)
) -> None:
    """One command of asv's, whose output is the user's; raises HostError where it fails."""
    argv = [sys.executable, "-m", "asv", *words, "--config", str(config)]
    code = subprocess.run(argv, cwd=ROOT, env=environment, check=False).returncode
    if code not in accepted:
        raise HostError(f"asv {words[0]} ended with {code}", hint="its own words are above")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
