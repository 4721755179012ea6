"""Figures drawn by several processes are the same figures, and no process outlives them."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest

from harness.analysis.plots import count_processes, draw_figures
from harness.analysis.plots.data import build_data
from harness.analysis.plots.layout import Drawing
from harness.analysis.plots.workers import run_jobs
from harness.analysis.results import load_results
from harness.errors import InputError
from tests.unit.synthetic import Synthetic, write_run

HERE = os.getpid()


def draw(name: str) -> list[Drawing]:
    return [Drawing(name, "", "", "", b"", str(os.getpid()).encode(), build_data((), []))]


def die_elsewhere(name: str) -> list[Drawing]:
    if os.getpid() != HERE:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(name)


def fail_elsewhere(name: str) -> list[Drawing]:
    if os.getpid() != HERE:
        raise RuntimeError("not here")
    return draw(name)


def fail(name: str) -> list[Drawing]:
    raise InputError(f"{name} cannot be drawn")


@pytest.mark.parametrize("made", [draw, die_elsewhere, fail_elsewhere])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_job_is_done_in_order_whatever_becomes_of_its_process(
    made: Callable[[str], list[Drawing]], processes: int
) -> None:
    names = [f"figure-{number}" for number in range(200)]
    found = run_jobs([partial(made, name) for name in names], processes)
    assert [each.name for drawings in found for each in drawings] == names
    assert active_children() == []


def test_two_processes_share_the_work() -> None:
    """Each of two jobs waits for the other to have begun: one process alone would wait forever."""
    meeting = [os.pipe(), os.pipe()]

    def meet(number: int) -> list[Drawing]:
        os.write(meeting[number][1], b".")
        os.read(meeting[1 - number][0], 1)
        return draw(str(number))

    found = run_jobs([partial(meet, 0), partial(meet, 1)], 2)
    assert len({each.png for drawings in found for each in drawings}) == 2
    for end in (end for ends in meeting for end in ends):
        os.close(end)


@pytest.mark.parametrize("processes", [1, 3])
def test_an_error_is_raised_as_from_one_process(processes: int) -> None:
    with pytest.raises(InputError, match="the third cannot be drawn"):
        run_jobs([partial(draw, "a"), partial(draw, "b"), partial(fail, "the third")], processes)
    assert active_children() == []


def test_the_bytes_are_those_of_one_process(tmp_path: Path) -> None:
    plan = Synthetic(platforms=("namespace", "vm-direct"), aa=(), blocks=3)
    results = load_results(write_run(tmp_path / "r", plan))
    assert draw_figures(results, 3) == draw_figures(results)


def test_only_a_large_run_is_drawn_by_several_and_only_where_no_thread_is_at_work(
    tmp_path: Path,
) -> None:
    names = tuple(f"crun/{number}" for number in range(40))
    small, large = (
        load_results(write_run(tmp_path / str(len(each)), Synthetic(each, (), ("noop",), 1)))
        for each in (names[:3], names)
    )
    most = len(os.sched_getaffinity(0))
    assert count_processes(small) == 1 and count_processes(large) == min(most, 4)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert count_processes(large) == 1
    end.set()
    thread.join()
