"""`run` and `clean`."""

import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import format_tree, naming_full_disk, say, shorten_path
from harness.errors import HarnessError, HostError, InputError

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.session import Order

RESULTS = Path("results")
_SEEDS = 1 << 32
_BESIDE_RESUME = ("out", "dry_run")


@click.command()
@click.argument("plan_file", metavar="[PLAN.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--platform", "platforms", metavar="P", multiple=True, help="A platform to compare.")
@click.option(
    "--workload", "workloads", metavar="W", multiple=True, help="A workload: a name or a file."
)
@click.option(
    "--image",
    "images",
    metavar="I",
    multiple=True,
    help="Run the workloads in it: a name, or what `images import` takes.",
)
@click.option(
    "--ready",
    metavar="CONDITION",
    help="Run the image's own command, which is ready then: exit, output:TEXT or tcp:PORT.",
)
@click.option("--request", metavar="PATH", help="Beside --ready: ask for it once it is ready.")
@click.option(
    "--command", metavar="'WORDS'", help="Beside --ready: run this instead of the image's own."
)
@click.option("--blocks", type=int, metavar="N", help="Trials of each combination.")
@click.option(
    "--precision",
    metavar="2%",
    help="Go on until every headline ratio's 95 % interval is no wider than this either way; with "
    "it, --blocks are the most.",
)
@click.option("--budget", metavar="10m", help="Begin nothing new after this time.")
@click.option("--cache", type=click.Choice(["warm", "cold"]), help="State of the page cache.")
@click.option(
    "--minimum/--no-minimum",
    default=None,
    help="Search the smallest memory with which each workload still gets ready.",
)
@click.option(
    "--storm", type=int, metavar="K", help="Start so many instances of each platform at once too."
)
@click.option(
    "--moves/--no-moves",
    default=None,
    help="Move the images over a shaped link too: bytes and seconds to `ready`.",
)
@click.option("--seed", type=int, metavar="S", help="Decides the order of trials.")
@click.option("--accelerator", type=click.Choice(["auto", "kvm", "tcg"]), help="How guests run.")
@click.option("--connection", metavar="URI", help="A libvirt other than the embedded one.")
@click.option(
    "--start-engines/--no-start-engines",
    default=None,
    help="Measure Docker on a daemon of the run's own, unless --docker-host names one.",
)
@click.option("--docker-host", metavar="URL", help="Address of the Docker daemon.")
@click.option(
    "--allow-different-trees",
    is_flag=True,
    default=None,
    help="Measure although an imported image is not the same everywhere; the report says so.",
)
@click.option("--quick", is_flag=True, help="Only 3 blocks: a look, no verdicts.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The result folder.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with a broken-off run."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
def run(
    plan_file: Path | None,
    quick: bool,
    out: Path | None,
    resume: Path | None,
    dry_run: bool,
    **given: object,
) -> int:
    """Measure, write a result folder and its report.

    PLAN is a file, or the name of a plan that comes with the harness (`list plans`).
    Options go before the plan's keys, those before the defaults: 10 blocks of noop and httpd on
    every platform.
    """
    options = {key: value for key, value in given.items() if value not in (None, ())}
    if resume is not None:
        if plan_file or options or quick or out or dry_run:
            raise InputError(
                "--resume takes the plan of the run it goes on with", hint="say it alone"
            )
        return _measure(_read_order(resume))
    if quick:
        from harness.plan_file import QUICK_BLOCKS

        if "precision" in options:
            raise InputError(
                f"--quick is {QUICK_BLOCKS} blocks, too few for --precision", hint="say one of them"
            )
        options.setdefault("blocks", QUICK_BLOCKS)
    plan, strict = _read_plan(_find_plan(plan_file), options, dry=dry_run)
    if dry_run:
        return _show_plan(plan)
    return _measure(_build_order(plan, out, strict))


def _find_plan(file: Path | None) -> Path | None:
    from harness.plans import find_plan

    return None if file is None else find_plan(file)


def _read_plan(file: Path | None, options: dict[str, object], *, dry: bool) -> tuple["Plan", bool]:
    """The plan, and whether its platforms were asked for by name."""
    from harness.images.catalog import list_names
    from harness.inputs import read_toml
    from harness.one_line import build_own_workloads, require_sources, take_own_options
    from harness.plan import require_images
    from harness.plan_file import read_plan

    described = take_own_options(options)
    given = options.get("images")
    images = require_sources(given, say, dry=dry) if isinstance(given, tuple) else ()
    if images:
        options["images"] = images
    own = build_own_workloads(described, images) if described else ()
    plan = read_plan(file, options, new_seed=secrets.randbelow(_SEEDS), own=own)
    require_images(plan, list_names())
    return plan, "platforms" in options or (file is not None and "platforms" in read_toml(file))


def _build_order(plan: "Plan", out: Path | None, strict: bool) -> "Order":
    import datetime

    from harness.session import Order, build_run_id

    if out is not None and (out / "manifest.json").exists():
        raise InputError(
            f"--out: {out} already holds a run",
            hint=f"--resume {shlex.quote(str(out))} goes on with it",
        )
    run_id = build_run_id(datetime.datetime.now(datetime.UTC))
    return Order(plan, (out or RESULTS / run_id).absolute(), _typed(), run_id, strict)


def _read_order(folder: Path) -> "Order":
    from harness.session import read_order

    return read_order(folder.absolute(), _typed())


def _typed() -> tuple[str, ...]:
    """The command line, as it can be typed again."""
    return ("python", "-m", "harness", *sys.argv[1:])


def _measure(order: "Order") -> int:
    """Run the trials, then write everything that is made from them."""
    from harness.cli.look import build_judge
    from harness.cli.progress import start_listener
    from harness.session import run_order

    listener = start_listener()
    judge = build_judge(order.folder, order.plan.precision, listener.say)
    try:
        code = run_order(order, listener, judge)
    except HarnessError:
        _say_rest(order.folder)
        raise
    finally:
        listener.close()
    if code != 0:
        _say_rest(order.folder)
        return code
    return _conclude(order.folder)


def _say_rest(folder: Path) -> None:
    """Where the trials, or the logs, of a run are that did not come to its end."""
    shown = shorten_path(folder)
    if (folder / "journal.jsonl").exists():
        say(f"what was measured is in {shown}")
        say(f"to go on: python -m harness run --resume {shlex.quote(shown)}")
    elif (folder / "logs").exists():
        say(f"its logs are in {shown}")


def _conclude(folder: Path) -> int:
    from harness.analysis.report import format_summary, render_report
    from harness.store import read_journal, write_pyperf, write_samples

    say("writing the report")
    with naming_full_disk(folder):
        write_samples(folder)
        write_pyperf(folder)
        render_report(folder)
    click.echo(format_summary(folder))
    click.echo(f"report: {shorten_path(folder / 'report.html')}")
    outcomes = read_journal(folder / "journal.jsonl")
    finished = [each for each in outcomes if each.status == "ok" and each.milestones]
    if not finished:
        raise HostError("every trial failed", hint=f"{shorten_path(folder)}/logs has their logs")
    if all(each.warmup for each in finished):
        raise HostError(
            "no measured trial was finished, only warm-up",
            hint=f"a longer --budget, or {shorten_path(folder)}/logs says why",
        )
    return 0


def _show_plan(plan: "Plan") -> int:
    from harness.dry_run import build_preview

    click.echo(format_tree(build_preview(plan)))
    return 0


@click.command(short_help="Remove whatever an interrupted run left.")
def clean() -> int:
    """Remove whatever an interrupted run left; never anything that no run made."""
    from harness.lab import clean_dead_runs

    lines = clean_dead_runs()
    for line in lines or ["there is nothing to clean"]:
        click.echo(line)
    return 1 if any(line.startswith("could not") for line in lines) else 0
