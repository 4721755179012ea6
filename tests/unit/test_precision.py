"""When a run with a wanted precision ends, what it says of it, and what that does to coverage."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.analysis import statistics
from harness.analysis.precision import decide, find_failing, read_decision
from harness.cli.look import build_judge
from harness.errors import InputError
from harness.model import Outcome
from harness.pace import Budget, Pace
from harness.plan import Plan, ScheduledTrial
from harness.plan_file import read_plan
from harness.precision import (
    LOOKS,
    Decision,
    Ending,
    Width,
    describe_ending,
    find_half_width,
    find_looks,
    find_next_look,
    format_ending,
    group_undone,
    parse_decision,
)
from tests.unit.synthetic import Synthetic, build_outcomes, write_run

WIDE = Width("vm-direct", "noop", "startup.ready", 0.031)
SLIM = Width("vm-direct", "noop", "startup.ready", 0.018)

Floats = NDArray[np.float64]


# ---- the rule ----------------------------------------------------------------------------------


def test_a_half_width_is_the_same_for_a_ratio_and_its_reciprocal() -> None:
    assert find_half_width(0.98, 1.02) == pytest.approx(0.0202, abs=1e-4)
    assert find_half_width(1 / 1.3, 1 / 1.1) == pytest.approx(find_half_width(1.1, 1.3))
    assert find_half_width(2.0, 2.0) == 0


def test_looks_are_twice_as_far_each_time_and_the_end_is_none() -> None:
    assert all(later == 2 * first for first, later in itertools.pairwise(LOOKS))
    assert find_looks(80) == (10, 20, 40)
    assert [find_next_look(blocks, 50) for blocks in (0, 9, 10, 20, 40)] == [10, 10, 20, 40, 50]


# ---- coverage ----------------------------------------------------------------------------------


def find_intervals(rows: Floats) -> tuple[Floats, Floats]:
    """The interval of the median of each row, as reports have it."""
    runs, size = rows.shape
    groups, blocks = np.repeat(np.arange(runs), size), np.tile(np.arange(size), runs)
    found = statistics.summarise_groups(rows.ravel(), groups, runs, blocks)
    return found.low, found.high


def simulate(
    ratios: Floats, truth: float, precision: float, looks: Iterable[int], confirmed: bool
) -> tuple[float, Floats]:
    """Coverage when each run (a row of log ratios) ends by a rule, and where it ended.

    The rule is ours where ``confirmed``; else a run ends at the first look that is narrow.
    """
    runs = len(ratios)
    ends, held = np.zeros(runs), np.zeros(runs, dtype=bool)
    going, before = np.ones(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for blocks in looks:
        rows = np.flatnonzero(going)
        low, high = find_intervals(ratios[rows, :blocks])
        narrow = np.sqrt(np.exp(high - low)) - 1 <= precision
        ending = (narrow & (before[rows] | (not confirmed))) | (blocks == ratios.shape[1])
        ended = rows[ending]
        ends[ended] = blocks
        held[ended] = (low[ending] <= truth) & (truth <= high[ending])
        before[rows] = narrow
        going[ended] = False
    assert not going.any()
    return float(held.mean()), ends


RUNS = 4000
SPREAD = 0.10


@pytest.mark.parametrize(
    ("precision", "typical"), [(0.03, 160), (0.04, 80), (0.06, 40), (0.10, 20), (0.12, 20)]
)
def test_a_run_that_ends_by_the_rule_holds_the_truth_as_promised(
    precision: float, typical: int
) -> None:
    """Log-normal paired ratios whose blocks' spread is 10 %, of a true ratio of 1.3."""
    truth = np.log(1.3)
    ratios = np.random.default_rng(2026).normal(truth, SPREAD, (RUNS, LOOKS[-1]))
    coverage, ends = simulate(ratios, truth, precision, LOOKS, confirmed=True)
    low, high = find_intervals(ratios[:, :typical])
    fixed = float(((low <= truth) & (truth <= high)).mean())
    assert np.median(ends) == typical
    assert 0.93 <= coverage <= 0.97
    assert fixed - coverage < 0.02, "little is lost to the same number of blocks, fixed beforehand"


def test_stopping_at_the_first_narrow_interval_would_cost_coverage() -> None:
    """Why the rule is what it is: the check above can fail."""
    ratios = np.random.default_rng(2026).normal(0, SPREAD, (RUNS, 200))
    coverage, _ = simulate(ratios, 0.0, 0.03, range(10, 201), confirmed=False)
    assert coverage < 0.925


# ---- what a look finds -------------------------------------------------------------------------

ONE = next(build_outcomes(Synthetic(blocks=1)))
TWENTY = Synthetic(blocks=20, workloads=("noop",))


def look(outcomes: Iterable[Outcome], precision: float, blocks: int = 20) -> Decision:
    plan = {"platforms": list(TWENTY.platforms), "seed": 1}
    return decide(list(outcomes), {"run_id": "r", "plan": plan}, blocks, precision)


def fail(outcome: Outcome) -> Outcome:
    return replace(outcome, status="failed", measurements=(), error="broken")


def test_a_look_names_the_widest_ratio_and_compares_that() -> None:
    found = look(build_outcomes(TWENTY), 0.5)
    assert found.widest is not None and found.widest.half_width is not None
    assert found.narrow and found.left_out == ()
    assert look(build_outcomes(TWENTY), found.widest.half_width).narrow
    assert not look(build_outcomes(TWENTY), found.widest.half_width * 0.999).narrow


def test_a_look_sees_only_the_blocks_that_it_is_asked_about() -> None:
    outcomes = list(build_outcomes(TWENTY))
    early = [each for each in outcomes if each.block <= 10]
    assert look(outcomes, 0.1, blocks=10) == look(early, 0.1, blocks=10)
    assert look(outcomes, 0.1, blocks=10) != look(outcomes, 0.1)


def test_fewer_blocks_than_an_interval_needs_are_never_narrow() -> None:
    found = look(build_outcomes(TWENTY), 0.99, blocks=5)
    assert (found.narrow, found.widest is not None and found.widest.half_width) == (False, None)


def test_a_platform_that_always_fails_is_not_waited_for() -> None:
    outcomes = [
        fail(each) if each.platform == "vm-direct" else each for each in build_outcomes(TWENTY)
    ]
    found = look(outcomes, 0.5)
    assert found.narrow
    assert found.left_out == ("vm-direct with noop: 20 of 20 trials failed",)


def test_one_that_fails_now_and_then_is_waited_for() -> None:
    outcomes = [
        fail(each) if each.platform == "vm-direct" and each.block % 3 == 0 else each
        for each in build_outcomes(TWENTY)
    ]
    assert find_failing([each for each in outcomes if not each.warmup]) == {}
    found = look(outcomes, 0.5)
    assert found.widest is not None and found.left_out == ()


def test_where_all_but_the_reference_fail_there_is_nothing_to_look_at() -> None:
    outcomes = [
        each if each.platform.startswith("namespace") else fail(each)
        for each in build_outcomes(TWENTY)
    ]
    found = look(outcomes, 0.5)
    assert (found.narrow, found.widest) == (False, None)
    assert len(found.left_out) == 3


def test_the_run_asks_a_process_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", TWENTY)
    judge = build_judge(folder, 0.5, pytest.fail)
    assert judge is not None
    found = judge(20)
    assert found == read_decision(folder, 20, 0.5)
    assert parse_decision(json.dumps(asdict(found))) == found


def test_a_look_that_fails_is_said_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    judge = build_judge(tmp_path / "nowhere", 0.5, said.append)
    assert judge is not None
    assert judge(20) == Decision(narrow=False, failed=True)
    assert "could not be looked at" in said[0] and "nowhere" in said[0]
    with pytest.raises(InputError):
        read_decision(tmp_path / "nowhere", 20, 0.5)


# ---- where the blocks end ----------------------------------------------------------------------


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plan_of(**options: object) -> Plan:
    keys = {"platforms": ("process", "namespace"), "workloads": ("noop",), **options}
    return read_plan(None, keys, new_seed=1)


def walk(pace: Pace, clock: Clock, seconds: float, stored: int = 0) -> list[int]:
    """The blocks that are run when each takes ``seconds``; the first ones are ``stored``."""
    plan, ran = pace.plan, []
    blocks = (
        () if number < stored else (ScheduledTrial(number, number, 0, "process", "noop", False),)
        for number in range(plan.warmup + plan.blocks)
    )
    for (trial,) in pace.choose_blocks(blocks):
        ran.append(trial.block)
        for _ in pace.budget.watch("block", [outcome_of(trial)]):
            clock.now += seconds
    return ran


def outcome_of(trial: ScheduledTrial) -> Outcome:
    return replace(ONE, block=trial.block)


def test_a_run_ends_where_two_looks_in_a_row_are_narrow() -> None:
    clock, asked = Clock(), list[int]()
    answers = {10: True, 20: False, 40: True, 80: True}

    def judge(blocks: int) -> Decision:
        asked.append(blocks)
        return Decision(answers[blocks], SLIM if answers[blocks] else WIDE)

    totals: list[int] = []
    pace = Pace(plan_of(precision="2%"), Budget(None, clock), judge, totals.append)
    assert walk(pace, clock, 1.0)[-1] == 80, "one warm-up block, numbered 0"
    ending = pace.conclude()
    assert (ending.reason, ending.blocks, ending.widest) == ("precision", 80, SLIM)
    assert totals == [20, 40, 80], "how far it goes on is told at each look"
    assert set(asked) == {10, 20, 40, 80}


def test_a_resumed_run_looks_at_the_same_places_and_not_again_where_it_went_on() -> None:
    clock, asked = Clock(), list[int]()

    def judge(blocks: int) -> Decision:
        asked.append(blocks)
        return Decision(blocks >= 20, SLIM)

    pace = Pace(plan_of(precision="2%"), Budget(None, clock), judge)
    assert walk(pace, clock, 1.0, stored=16) == list(range(16, 41))
    assert pace.conclude().reason == "precision"
    assert asked[0] == 20


def test_the_last_block_is_looked_at_too() -> None:
    clock = Clock()
    narrow = Pace(plan_of(precision="2%", blocks=30), Budget(None, clock),
                  lambda blocks: Decision(blocks >= 20, SLIM))  # fmt: skip
    wide = replace_judge(narrow, lambda blocks: Decision(blocks == 20, WIDE))
    assert walk(narrow, clock, 1.0)[-1] == walk(wide, clock, 1.0)[-1] == 30
    assert narrow.conclude().reason == "precision"
    assert wide.conclude().reason == "blocks"


def replace_judge(pace: Pace, judge: Any) -> Pace:
    return Pace(pace.plan, Budget(None), judge)


def test_a_run_without_any_ratio_ends_at_its_first_look() -> None:
    clock = Clock()
    lines = ("vm-direct with noop: 10 of 10 trials failed",)
    pace = Pace(
        plan_of(precision="2%"), Budget(None, clock), lambda _: Decision(False, None, lines)
    )
    assert walk(pace, clock, 1.0)[-1] == 10
    ending = pace.conclude()
    assert (ending.reason, ending.left_out) == ("nothing", lines)


def test_looks_that_fail_do_not_end_a_run() -> None:
    clock = Clock()
    plan = plan_of(precision="2%", blocks=30)
    pace = Pace(plan, Budget(None, clock), lambda _: Decision(False, failed=True))
    assert walk(pace, clock, 1.0)[-1] == 30


@pytest.mark.parametrize(("budget", "last"), [(35.0, 2), (40.0, 3), (5.0, 0), (1e9, 10)])
def test_a_block_that_would_overrun_the_budget_is_not_begun(budget: float, last: int) -> None:
    clock = Clock()
    pace = Pace(plan_of(budget=f"{budget:.0f}s"), Budget(budget, clock))
    assert walk(pace, clock, 10.0)[-1] == last
    assert pace.conclude().reason == ("blocks" if last == 10 else "budget")


def test_the_longest_of_a_kind_says_whether_another_fits() -> None:
    clock = Clock()
    budget = Budget(100.0, clock)
    for seconds in (10, 40, 20):
        for _ in budget.watch("series", [ONE]):
            clock.now += seconds
    assert not budget.allows("series"), "30 s are left, and one took 40"
    assert budget.allows("search"), "none was begun yet: nothing is known of it"
    assert budget.allows("search", likely=30.0) and not budget.allows("search", likely=31.0)
    clock.now = 100
    assert not budget.allows("search")
    assert Budget(None, clock).allows("series")


# ---- in words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending("blocks", 10, 10), ""),
        (
            Ending("precision", 40, 320, 0.02, widest=SLIM),
            "The run ended after 40 blocks, when the 95 % interval of every headline ratio was "
            "within 2 % of its middle at two looks in a row; the widest, that of `startup.ready` "
            "of `vm-direct` with `noop`, reaches 1.8 %.",
        ),
        (
            Ending("budget", 7, 10, budget=600.0, undone=("3 of 24 moves",)),
            "The run ended after 7 blocks of 10, when its budget of 10 min was spent. The budget "
            "had no time for: 3 of 24 moves.",
        ),
        (
            Ending("budget", 1, 320, 0.02, 60.0, replace(WIDE, half_width=None)),
            "The run ended after 1 block of at most 320, when its budget of 60 s was spent, before "
            "the 95 % interval of every headline ratio was within 2 % of its middle at two looks "
            "in a row; the widest, that of `startup.ready` of `vm-direct` with `noop`, cannot be "
            "told from so few pairs.",
        ),
        (
            Ending("blocks", 40, 40, 0.02, widest=WIDE, left_out=("crun with noop: 9 of 9",)),
            "The run ended after 40 blocks, the most it was to have, before the 95 % interval of "
            "every headline ratio was within 2 % of its middle at two looks in a row; the widest, "
            "that of `startup.ready` of `vm-direct` with `noop`, reaches 3.1 %. Not waited for, "
            "because it keeps failing: crun with noop: 9 of 9.",
        ),
        (
            Ending("nothing", 10, 320, 0.02),
            "The run ended after 10 blocks: there was no ratio left whose interval could become "
            "narrow enough (2 % was asked).",
        ),
        (
            Ending("blocks", 10, 10, budget=60.0, undone=("the density series of crun with noop",)),
            "The budget had no time for: the density series of crun with noop.",
        ),
    ],
)
def test_an_ending_in_words_and_through_the_manifest(ending: Ending, words: str) -> None:
    assert format_ending(ending) == words
    assert describe_ending(json.loads(json.dumps({"ending": asdict(ending)}))) == words


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), []),
        (("3 of 24 moves",), ["3 of 24 moves"]),
        (("the storm of crun with noop",), ["the storm of crun with noop"]),
        (
            [f"the storm of p{number // 6} with noop" for number in range(66)],
            ["66 storms of 11 platforms, 6 each"],
        ),
        (
            ["the storm of crun with a", "the density series of runc with a", "3 of 24 moves",
             "the storm of crun with b", "the density series of podman/ip=static with a",
             "the storm of runc with a"],
            ["3 storms (2 of crun, 1 of runc)", "2 density series of runc, podman/ip=static",
             "3 of 24 moves"],
        ),
        (
            ["the search for the smallest memory of crun with a"] * 2,
            ["2 searches for the smallest memory of crun"],
        ),
    ],
)  # fmt: skip
def test_what_there_was_no_time_for_is_counted_by_kind(
    lines: Sequence[str], words: list[str]
) -> None:
    assert group_undone(lines) == words


@pytest.mark.parametrize("found", [None, "x", {}, {"reason": "budget"}, {"widest": {"a": 1}}])
def test_a_damaged_ending_says_nothing(found: object) -> None:
    assert describe_ending({"ending": found}) == ""
    assert describe_ending({}) == ""
