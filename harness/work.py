"""All that a run has to do once it is set up, in order, as far as its pace allows.

Blocks come first, then density series, searches for the smallest memory, moves and storms. What
comes after the blocks is numbered after all blocks that there may be, so that no number depends on
where the blocks end: a run that goes on later finds the same ones.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.density import CONTAINER_FACTOR, ENDED, run_density
from harness.drivers.base import Driver
from harness.minimum import build_searches, run_search
from harness.model import Outcome, base_platform
from harness.moves.series import Move, build_moves, choose_moves, run_moves
from harness.pace import Pace
from harness.plan import (
    Plan,
    ScheduledTrial,
    Workload,
    build_block,
    count_trials,
    runs_on,
    walk_schedule,
)
from harness.runner import Bench, run_schedule
from harness.storm import Size, Storm, build_storms, count_starts, find_size, run_storm

STARTS = 20
"""About so many starts has a search; what it takes is guessed from the longest block."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do. ``series`` are first trials and how many instances they start;
    ``done`` are the numbers of the trials that are stored already.
    """

    plan: Plan
    bench: Bench
    series: Sequence[tuple[ScheduledTrial, int]]
    searches: Sequence[ScheduledTrial]
    moves: Sequence[Move]
    storms: Sequence[Storm]
    say: Callable[[str], None]
    done: frozenset[int] = frozenset()

    def count(self, blocks: int) -> int:
        """How many trials there are with so many measured blocks."""
        arms = self._count_arms()
        steps = sum(count + 1 for _, count in self.series)
        starts = sum(len(each.arrivals) for each in self.storms)
        rest = steps + len(self.searches) + len(self.moves) + starts
        return (self.plan.warmup + blocks) * arms + rest

    def run(self, pace: Pace) -> Iterator[Sequence[Outcome]]:
        """Do it as far as ``pace`` and its budget allow; what they do not is noted there.

        Outcomes come together where one means nothing without the others: those of a storm.
        """
        for outcome in self._run_before_storms(pace):
            yield (outcome,)
        yield from self._run_storms(pace)

    def _run_storms(self, pace: Pace) -> Iterator[Sequence[Outcome]]:
        """A platform's storms are as small as the smallest before them, or they could not be
        compared with each other."""
        each = self._guess_trial(pace)
        sizes: dict[str, Size] = {}
        for storm in self.storms:
            likely = len(storm.arrivals) * each + storm.arrivals[-1]
            if self._may_begin(storm.first, "storm", pace, likely):
                platform, size = storm.first.platform, find_size(storm, self.bench)
                size = sizes[platform] = min(sizes.get(platform, size), size)
                yield tuple(pace.budget.watch("storm", run_storm(storm, self.bench, size)))

    def _run_before_storms(self, pace: Pace) -> Iterator[Outcome]:
        budget, bench = pace.budget, self.bench
        blocks = (tuple(filter(self._is_left, block)) for block in walk_schedule(self.plan))
        for block in pace.choose_blocks(blocks):
            yield from budget.watch("block", run_schedule(block, bench))
        each = self._guess_trial(pace)
        for first, count in self.series:
            if self._may_begin(first, "density series", pace, (count + 1) * each):
                yield from budget.watch("density series", run_density(first, count, bench))
        for search in self.searches:
            if self._may_begin(search, "search for the smallest memory", pace, STARTS * each):
                found = (run_search(each, bench) for each in (search,))
                yield from budget.watch("search for the smallest memory", found)
        yield from self._run_moves(pace)

    def _guess_trial(self, pace: Pace) -> float:
        """How long a trial is likely to take, in seconds, by the longest block."""
        return pace.budget.longest.get("block", 0.0) / max(1, self._count_arms())

    def count_unfinished(self, outcomes: Sequence[Outcome]) -> int:
        """How many of the last outcomes are a part of a density series or storm that was
        interrupted: it would pass for a smaller one."""
        if not outcomes:
            return 0
        last = outcomes[-1]
        for first, count in self.series:
            numbers = range(first.trial, first.trial + count + 1)
            if last.trial in numbers and ENDED not in last.details and last.status == "ok":
                return sum(each.trial in numbers for each in outcomes)
        for storm in self.storms:
            numbers = range(storm.first.trial, storm.first.trial + len(storm.arrivals))
            stored = sum(each.trial in numbers for each in outcomes)
            if last.trial in numbers and stored < count_starts(last):
                return stored
        return 0

    def _run_moves(self, pace: Pace) -> Iterator[Outcome]:
        left = [each for each in self.moves if each.scheduled.trial not in self.done]
        moved = run_moves(left, self.bench, self.say)
        for number in range(len(left)):
            if not pace.budget.allows("move"):
                pace.undone.append(f"{len(left) - number} of {len(self.moves)} moves")
                return
            yield from pace.budget.watch("move", itertools.islice(moved, 1))

    def _count_arms(self) -> int:
        """How many trials of a block run here."""
        return sum(runs_here(trial, self.bench) for trial in build_block(self.plan, 0))

    def _is_left(self, trial: ScheduledTrial) -> bool:
        return trial.trial not in self.done and runs_here(trial, self.bench)

    def _may_begin(self, first: ScheduledTrial, kind: str, pace: Pace, likely: float) -> bool:
        """Whether one more of a kind is to be begun; noted where there is no time for it."""
        if first.trial in self.done:
            return False
        if pace.budget.allows(kind, likely):
            return True
        pace.undone.append(f"the {kind} of {first.platform} with {first.workload}")
        return False


def build_work(plan: Plan, bench: Bench, say: Callable[[str], None]) -> Work:
    """All that a run has to do, in the order in which it is numbered."""
    series = build_series(plan, bench.drivers)
    number = find_next(plan, series)
    searches = build_searches(plan, bench.drivers, number, grouped=bench.tree is not None)
    moves = build_moves(plan, bench.drivers, number + len(searches))
    storms = build_storms(plan, bench.drivers, number + len(searches) + len(moves))
    return Work(plan, bench, series, searches, choose_moves(moves), storms, say)


def runs_here(scheduled: ScheduledTrial, bench: Bench) -> bool:
    """Whether a trial's platform runs on this host, with the network that its workload needs."""
    driver = bench.drivers.get(base_platform(scheduled.platform))
    if driver is None:
        return False
    return not (bench.workloads[scheduled.workload].network and driver.no_network)


def build_series(plan: Plan, drivers: Mapping[str, Driver]) -> list[tuple[ScheduledTrial, int]]:
    """The density series of a run: the first trial of each, and how many instances it starts.

    They come after the blocks, for the plan's first workload that a platform runs; loaded ones for
    the steady workload.
    """
    if plan.density == 0:
        return []
    number = count_trials(plan)
    found = []
    for load in plan.density_load:
        choice = [plan.steady] if load == "loaded" and plan.steady else plan.workloads
        for platform, driver in drivers.items():
            workload = next((each for each in choice if _fits(each, platform, driver)), None)
            if workload is None:
                continue
            count = plan.density * (1 if driver.kind == "vm" else CONTAINER_FACTOR)
            first = ScheduledTrial(0, number, 0, platform, workload.name, warmup=False)
            found.append((first, count))
            number += count + 1
    return found


def _fits(workload: Workload, platform: str, driver: Driver) -> bool:
    return runs_on(workload, platform) and not (workload.network and driver.no_network)


def find_next(plan: Plan, series: Sequence[tuple[ScheduledTrial, int]]) -> int:
    """The number of the first trial after the blocks and the density series."""
    return max([count_trials(plan), *(first.trial + count + 1 for first, count in series)])
