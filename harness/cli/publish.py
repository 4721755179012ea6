"""`publish`: a static site over many runs. Exit 0: all of them; 2: some could not be taken."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import say, shorten_path
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.analysis.site.making import Task
    from harness.analysis.site.own_history import OwnHistory

INCOMPLETE = InputError.exit_code
ASV = Path(".asv/html")
_FEW = 4
"""Fewer runs are laid out sooner than further processes would be there."""


@click.command(short_help="Make a static site of many runs.")
@click.argument("folders", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@click.option(
    "--site", "out", required=True, metavar="OUT", type=click.Path(path_type=Path),
    help="Where to; an older site there is replaced.",
)  # fmt: skip
@click.option(
    "--asv", metavar="DIR", type=click.Path(path_type=Path),
    help="Pages of asv: the history of the harness itself. Default: `.asv/html`, if there.",
)  # fmt: skip
def publish(folders: tuple[Path, ...], out: Path, asv: Path | None) -> int:
    """Make a static site: index of runs, their reports, comparisons and histories.

    DIR is a result folder, or one that holds result folders, such as `results`. The site needs no
    server and asks nothing of the network; runs that have not changed are not laid out again.
    """
    from harness.analysis.site import publish_site

    done = publish_site(folders, out, _read_history(asv), _share_out)
    for each in done.left_out:
        say(f"left out: {each.name}: {each.reason}")
    say(f"{done.made} run{'' if done.made == 1 else 's'} laid out, {done.kept} unchanged")
    click.echo(shorten_path(done.index))
    return INCOMPLETE if any(each.fault for each in done.left_out) else 0


def _read_history(folder: Path | None) -> "OwnHistory | None":
    from harness.analysis.site.own_history import read_own_history

    if folder is None and not (ASV / "index.json").is_file():
        return None
    return read_own_history(folder or ASV)


def _share_out(make: "Callable[[Task], str]", tasks: "Sequence[Task]") -> Iterable[str]:
    """`map` over all CPUs. Fresh processes: threads of numerical libraries survive no fork."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    if len(tasks) < _FEW or workers < 2:
        return list(map(make, tasks))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            return list(pool.map(make, tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
