"""Which runs a site holds against which."""

from dataclasses import replace
from itertools import pairwise

import pytest

from harness.analysis.site.facts import Facts
from harness.analysis.site.history import list_dates
from harness.analysis.site.pages import choose_pair, say_kinds
from harness.analysis.site.pairs import MOST, build_lines, build_pairs, find_dimensions

CASES = (("namespace", "noop"),)


def build_run(
    number: int, host: str = "one", unfit: str = "", workload: str = "noop", kind: str = "starts"
) -> Facts:
    return Facts(
        run_id=f"r{number:03}", name=f"r{number:03}", created_at=f"2025-{number:06}", host=host,
        machine="", emulated="", platforms=("namespace",), workloads=(workload,), blocks=10,
        trials=10, headline="", marks=(), notes=(), cases=(("namespace", workload),), points=(),
        traits=(("host", "", host),), unfit=unfit,
        kind=kind,
    )  # fmt: skip


@pytest.mark.parametrize(("count", "pairs"), [(1, 0), (2, 1), (MOST, 66), (MOST + 1, MOST)])
def test_every_pair_of_a_few_runs_and_steps_of_many(count: int, pairs: int) -> None:
    found = build_pairs([build_run(each) for each in range(count)])
    assert len(found) == pairs
    assert all(each.base.created_at < each.new.created_at for each in found)


def test_of_many_each_run_meets_the_one_before_it_on_its_own_host() -> None:
    runs = [build_run(each, "one" if each % 2 else "two") for each in range(MOST + 4)]
    found = {(each.base.run_id, each.new.run_id): each for each in build_pairs(runs[::-1])}
    for line in (runs[::2], runs[1::2]):
        assert all((one.run_id, other.run_id) in found for one, other in pairwise(line))
    refused = [each for each in found.values() if each.refusal]
    assert [find_dimensions(each) for each in refused] == [("host",)], "the first of host one"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (build_run(1, host="two"), "host is one in BASE and two in NEW"),
        (build_run(1, unfit="measured with two caches"), "run r001: measured with two caches"),
        (build_run(1, kind="isolation", host="two"),
         "another kind of run: starts in BASE and isolation in NEW"),
        (build_run(1, workload="httpd"), "no platform with a workload was measured in both"),
    ],
)  # fmt: skip
def test_a_pair_that_cannot_be_compared_says_why(other: Facts, reason: str) -> None:
    (pair,) = build_pairs([build_run(0), other])
    assert pair.refusal == reason
    assert len(build_lines([build_run(0), other])) == 2


def test_the_page_opens_with_the_newest_two_that_can_be_compared() -> None:
    runs = [build_run(0), build_run(1), build_run(2, kind="isolation"), build_run(3, host="two")]
    assert choose_pair(build_pairs(runs)) == ("r000", "r001")
    assert choose_pair(build_pairs(runs[1:3])) == ("r001", "r002"), "none can be compared"
    assert choose_pair(()) == ("", "")


def test_runs_are_counted_by_what_they_measured() -> None:
    runs = [build_run(0), build_run(1)]
    assert say_kinds(runs) == " of the same workloads both ways"
    more = [*runs, build_run(2, kind="rebuilds")]
    assert say_kinds(more) == ": 2 of the same workloads both ways, 1 of changed images"


def test_two_runs_of_one_day_have_different_labels() -> None:
    moments = ("2025-03-01T09:26:53", "2025-03-01T17:00:01", "2025-03-02T09:00:00")
    runs = [replace(build_run(number), created_at=each) for number, each in enumerate(moments)]
    assert list_dates(runs) == ["2025-03-01 09:26", "2025-03-01 17:00", "2025-03-02"]
