"""How far a run is: a bar with the time left on a terminal, a line for each block elsewhere."""

import time
from typing import TYPE_CHECKING

import click

from harness.cli.output import is_watched, say
from harness.model import Outcome
from harness.units import format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Lines:
    """Plain lines on stderr, for logs."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.failed = 0
        self.began_at = 0
        self.began = 0.0
        self.block = -1

    def say(self, text: str) -> None:
        say(text)

    def start(self, total: int, done: int) -> None:
        self.total, self.done, self.began_at = total, done, done
        self.began = time.monotonic()
        say(f"{total - done} trials to run" + (f", {done} are stored" if done else ""))

    def extend(self, total: int) -> None:
        if total > self.total:
            say(f"going on to {total} trials")
        self.total = total

    def advance(self, outcome: Outcome) -> None:
        self.done += 1
        if outcome.status == "failed":
            self.failed += 1
            say(format_failure(outcome))
        if outcome.block != self.block or self.done == self.total:
            self.block = outcome.block
            left = format_seconds(self._estimate_left())
            say(f"{self.done}/{self.total} trials, {self.failed} failed, about {left} left")

    def close(self) -> None:
        """Nothing to tidy up."""

    def _estimate_left(self) -> float:
        measured = self.done - self.began_at
        elapsed = time.monotonic() - self.began
        return elapsed / measured * (self.total - self.done) if measured else 0.0


class Bar:
    """A bar that moves, on stderr."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.task: TaskID | None = None

    def say(self, text: str) -> None:
        if self.progress is None:
            say(text)
        else:
            self.progress.console.print(text, markup=False, highlight=False)

    def start(self, total: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (BarColumn(), MofNCompleteColumn(), Left(), TextColumn("{task.description}"))
        # It is drawn between trials only: a thread that draws would disturb what is measured.
        self.progress = Progress(
            *columns, console=Console(stderr=True), transient=True, auto_refresh=False
        )
        self.task = self.progress.add_task("", total=total, completed=done)
        self.progress.start()

    def extend(self, total: int) -> None:
        if self.progress is None or self.task is None:
            return
        self.progress.update(self.task, total=total, refresh=True)
        if self.progress.finished:
            self.progress.stop()
        else:
            self.progress.start()  # it had stopped where what was known of was done

    def advance(self, outcome: Outcome) -> None:
        if self.progress is None or self.task is None:
            return
        if outcome.status == "failed":
            self.say(format_failure(outcome))
        name = f"{outcome.platform} {outcome.workload}"
        self.progress.update(self.task, advance=1, description=name, refresh=True)
        if self.progress.finished:
            self.progress.stop()

    def close(self) -> None:
        """Show the cursor again: the process that hid it may have been ended."""
        click.echo("\x1b[?25h", nl=False, err=True)


def start_listener() -> Lines | Bar:
    """The listener that suits whoever reads stderr."""
    return Bar() if is_watched() else Lines()


def format_failure(outcome: Outcome) -> str:
    hint = f" ({outcome.hint})" if outcome.hint else ""
    name = f"{outcome.platform} {outcome.workload}"
    return f"trial {outcome.trial}, {name}, failed: {outcome.error}{hint}"
