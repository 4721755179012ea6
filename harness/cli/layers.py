"""`layers`: what a change costs to rebuild and to ship."""

import secrets
import sys
from pathlib import Path

import click

from harness.cli.measure import RESULTS
from harness.cli.output import naming_full_disk, say, shorten_path
from harness.errors import HostError, InputError

_SEEDS = 1 << 32


@click.command(short_help="Measure what a change costs to rebuild and to ship.")
@click.option(
    "--repeats", type=click.IntRange(1, 1000), default=3, show_default=True, metavar="N",
    help="Rebuilds of each kind.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), metavar="S", help="Decides their order.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The result folder.")
def layers(repeats: int, seed: int | None, out: Path | None) -> int:
    """Measure what a change costs to rebuild and to ship.

    After a change of the code, of a dependency and of the base: a container image rebuilt by
    buildah with its layer cache, with good and with bad order of instructions, against a virtual
    machine's disk made anew or updated.
    """
    import datetime

    from harness.cli.progress import start_listener
    from harness.rebuild_session import RebuildOrder, run_rebuilds
    from harness.session import build_run_id

    if out is not None and (out / "manifest.json").exists():
        raise InputError(f"--out: {out} already holds a run", hint="name another folder")
    run_id = build_run_id(datetime.datetime.now(datetime.UTC))
    folder = (out or RESULTS / run_id).absolute()
    chosen = secrets.randbelow(_SEEDS) if seed is None else seed
    command = ("python", "-m", "harness", *sys.argv[1:])
    listener = start_listener()
    try:
        code = run_rebuilds(RebuildOrder(repeats, chosen, folder, command, run_id), listener)
    finally:
        listener.close()
    return code if code != 0 else _conclude(folder)


def _conclude(folder: Path) -> int:
    from harness.analysis.rebuild import format_rebuilds
    from harness.analysis.report import render_report
    from harness.analysis.results import load_results
    from harness.store import read_journal, write_samples

    say("writing the report")
    with naming_full_disk(folder):
        write_samples(folder)
        render_report(folder)
    click.echo(format_rebuilds(load_results(folder)))
    click.echo(f"report: {shorten_path(folder / 'report.html')}")
    outcomes = read_journal(folder / "journal.jsonl")
    if all(outcome.status == "failed" for outcome in outcomes):
        raise HostError("every rebuild failed", hint=f"the reasons are in {shorten_path(folder)}")
    return 0
