"""`isolation`: what the walls of each platform are made of, and whether they hold."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.measure import RESULTS
from harness.cli.output import naming_full_disk, say, shorten_path
from harness.errors import HostError, InputError

if TYPE_CHECKING:
    from harness.isolation.model import Limits, Reserve, Task


@click.command(short_help="Ask from inside what isolates each platform, and try its limits.")
@click.option(
    "--platform", "platforms", multiple=True, metavar="P",
    help="A platform, a variant too; repeat it. Default: seven kinds, those that run here.",
)  # fmt: skip
@click.option(
    "--containment/--no-containment", default=False, show_default=True,
    help="Let bounded hogs loose beside a victim whose latency is measured.",
)  # fmt: skip
@click.option(
    "--limits/--no-limits", "with_limits", default=True, show_default=True,
    help="Try whether each limit holds, from inside and outside.",
)  # fmt: skip
@click.option("--memory", default="128MiB", show_default=True, help="Memory of every instance.")
@click.option(
    "--processes", type=click.IntRange(64, 4096), default=256, show_default=True, metavar="N",
    help="Processes that an instance may have, an engine's helpers included.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, metavar="S",
    help="How long each hog goes on.",
)  # fmt: skip
@click.option(
    "--reserve-memory", default="1GiB", show_default=True, metavar="SIZE",
    help="Host memory that no hog takes.",
)  # fmt: skip
@click.option(
    "--reserve-processes", type=click.IntRange(0), default=1000, show_default=True, metavar="N",
    help="Processes of the host that no hog takes.",
)  # fmt: skip
@click.option(
    "--reserve-disk", default="2GiB", show_default=True, metavar="SIZE",
    help="Disk space of the host that no hog takes.",
)  # fmt: skip
@click.option(
    "--start-engines", is_flag=True, help="Start a Docker daemon of the run's own for it."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The result folder.")
@click.option("--json", "as_json", is_flag=True, help="The matrix with its evidence, for scripts.")
def isolation(
    platforms: tuple[str, ...],
    containment: bool,
    with_limits: bool,
    memory: str,
    processes: int,
    seconds: float,
    reserve_memory: str,
    reserve_processes: int,
    reserve_disk: str,
    start_engines: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    """Ask from inside what isolates each platform, and try its limits.

    A probe lists what an instance sees and may do: namespaces, capabilities, system calls, devices,
    mounts, sysctls, network. Then each limit is tried, and with --containment bounded hogs run
    beside a victim. Nothing is rated; the evidence stands behind every word of the matrix.
    """
    import datetime

    from harness.cli.progress import start_listener
    from harness.isolation.model import PLATFORMS
    from harness.isolation_session import IsolationOrder, run_isolation
    from harness.session import build_run_id

    if out is not None and (out / "manifest.json").exists():
        raise InputError(f"--out: {out} already holds a run", hint="name another folder")
    limits = _build_limits(memory, processes)
    reserve = _build_reserve(reserve_memory, reserve_processes, reserve_disk)
    _check_platforms(platforms)
    run_id = build_run_id(datetime.datetime.now(datetime.UTC))
    folder = (out or RESULTS / run_id).absolute()
    order = IsolationOrder(
        platforms=tuple(dict.fromkeys(platforms)) or PLATFORMS,
        tasks=_choose_tasks(with_limits, containment),
        folder=folder,
        command=("python", "-m", "harness", *sys.argv[1:]),
        run_id=run_id,
        strict=bool(platforms),
        limits=limits,
        reserve=reserve,
        seconds=seconds,
        start_engines=start_engines,
    )
    listener = start_listener()
    try:
        code = run_isolation(order, listener)
    finally:
        listener.close()
    return code if code != 0 else _conclude(folder, as_json)


def _choose_tasks(with_limits: bool, containment: bool) -> "tuple[Task, ...]":
    tasks: list[Task] = ["probe"]
    tasks += ["limits"] if with_limits else []
    tasks += ["containment"] if containment else []
    return tuple(tasks)


def _check_platforms(platforms: tuple[str, ...]) -> None:
    from harness.drivers import PLATFORMS
    from harness.variants import parse_variant

    for name in platforms:
        parse_variant(name, PLATFORMS)


def _build_limits(memory: str, processes: int) -> "Limits":
    from harness.isolation.model import MIB, Limits

    size = _parse("--memory", memory)
    if size < 64 * MIB:
        raise InputError(f"--memory: {memory} is too little", hint="give 64MiB or more")
    return Limits(memory=size, processes=processes)


def _build_reserve(memory: str, processes: int, disk: str) -> "Reserve":
    from harness.isolation.model import Reserve

    return Reserve(_parse("--reserve-memory", memory), processes, _parse("--reserve-disk", disk))


def _parse(option: str, text: str) -> int:
    from harness.units import parse_size

    try:
        return parse_size(text)
    except InputError as error:
        raise InputError(f"{option}: {error.message}", hint=error.hint) from None


def _conclude(folder: Path, as_json: bool) -> int:
    import json

    from harness.analysis.report import render_report
    from harness.analysis.report.terminal import format_table
    from harness.analysis.results import load_results
    from harness.analysis.walls import build_document, build_tables
    from harness.store import read_journal, write_samples

    say("writing the report")
    with naming_full_disk(folder):
        write_samples(folder)
        render_report(folder)
    results = load_results(folder)
    if as_json:
        click.echo(json.dumps(build_document(results), indent=1))
    else:
        for table in build_tables(results):
            click.echo(f"{table.caption}\n{format_table(table)}\n")
        click.echo(f"report: {shorten_path(folder / 'report.html')}")
    outcomes = read_journal(folder / "journal.jsonl")
    if all(outcome.status == "failed" for outcome in outcomes):
        raise HostError(
            "no platform could be asked", hint=f"the reasons are in {shorten_path(folder)}"
        )
    return 0
