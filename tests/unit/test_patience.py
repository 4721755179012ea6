"""Time-outs of the tests: they end what hangs, and a loaded machine is no hang."""

import pytest

from tests.conftest import PATIENCE

STATED = 40


def read_seconds(request: pytest.FixtureRequest) -> float:
    marker = request.node.get_closest_marker("timeout")
    assert marker is not None
    return float(marker.args[0])


def test_a_test_without_a_time_out_has_several_times_the_usual(
    request: pytest.FixtureRequest,
) -> None:
    assert read_seconds(request) == PATIENCE * float(request.config.getini("timeout"))


@pytest.mark.timeout(STATED)
def test_a_test_has_several_times_what_it_states(request: pytest.FixtureRequest) -> None:
    assert read_seconds(request) == PATIENCE * STATED
