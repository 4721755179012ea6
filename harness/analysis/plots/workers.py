"""Figures drawn by several processes at once: copies of this one, so that nothing is read twice.

Whoever is free takes the next job, by reading its number from a pipe that all of them share. A
figure depends on the results alone, so its bytes do not depend on who drew it.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection

from harness.analysis.plots.layout import Drawing
from harness.analysis.results import Results

Job = Callable[[], list[Drawing]]
Done = dict[int, list[Drawing]]

_LARGE = 40
"""Platforms × workloads from which on a second process is worth its start."""
_MOST = 4
"""Processes: there are hardly more large figures than that."""
_PATIENCE_S = 60
"""A copy of a process with threads may stand still; then its figures are drawn here."""
_NUMBER = 4
"""Bytes of a job's number in the pipe."""


def count_processes(results: Results) -> int:
    """How many processes shall draw: one for a small run, and where this one cannot be copied."""
    large = len(results.platforms) * len(results.workloads) >= _LARGE
    copied = sys.platform == "linux" and threading.active_count() == 1  # a copy has one thread
    if not (large and copied) or current_process().daemon:
        return 1
    return min(_MOST, len(os.sched_getaffinity(0)))


def run_jobs(jobs: Sequence[Job], processes: int) -> list[list[Drawing]]:
    """What each job draws, in order; this process works too.

    What a process did not give back (killed, stuck, or its job failed) is drawn here, where an
    error is raised as usual.
    """
    queue = _fill_queue(len(jobs))
    done: Done = {}
    try:
        with ExitStack() as stack:
            workers = [stack.enter_context(_start_worker(jobs, queue)) for _ in range(1, processes)]
            for number in _take(queue):
                done[number] = jobs[number]()
            for worker in workers:
                with suppress(EOFError, OSError):
                    if worker.poll(_PATIENCE_S):
                        done.update(worker.recv())
    finally:
        os.close(queue)
    return [done[number] if number in done else job() for number, job in enumerate(jobs)]


def _fill_queue(count: int) -> int:
    """The reading end of a pipe that holds the numbers of all jobs, and then ends."""
    reader, writer = os.pipe()
    os.write(writer, b"".join(number.to_bytes(_NUMBER, "little") for number in range(count)))
    os.close(writer)
    return reader


def _take(queue: int) -> Iterator[int]:
    while number := os.read(queue, _NUMBER):
        yield int.from_bytes(number, "little")


@contextmanager
def _start_worker(jobs: Sequence[Job], queue: int) -> Iterator[Connection]:
    """A process that sends what it drew; it is gone at the end, finished or not."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(jobs, queue, sender), daemon=True)
    with warnings.catch_warnings(), receiver:
        # Threads that libraries have for computing count as well; they start theirs anew.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
        sender.close()
        try:
            yield receiver
        finally:
            process.kill()
            process.join()


def _work(jobs: Sequence[Job], queue: int, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process answers Ctrl-C for all
    first, done = os.getppid(), Done()
    with suppress(Exception):  # the first process finds the same fault, and says it
        for number in _take(queue):
            if os.getppid() != first:  # it was killed
                return
            done[number] = jobs[number]()
    with suppress(OSError):  # nobody listens any more
        sender.send(done)
