"""What all tests share: the real parts, built once, and no way around them in CI."""

import os
from collections.abc import Callable, Generator, Mapping

import pytest

from harness.drivers.accelerator import build_direct_guest, prove_accelerator
from harness.images.catalog import require_image
from harness.images.kernel import require_guest_kernel
from harness.images.model import GuestKernel, Image, Programs
from harness.images.programs import build_programs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files and tables anew"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def programs() -> Programs:
    return build_programs()


@pytest.fixture(scope="session")
def tiny_image() -> Image:
    return require_image("tiny", print)


@pytest.fixture(scope="session")
def guest_kernel() -> GuestKernel:
    """What guests boot, and known once for all tests what they run on: a KVM that cannot boot it
    would be tried anew in each lab, which is a process of its own."""
    kernel = require_guest_kernel(print)
    prove_accelerator(build_direct_guest(kernel))
    return kernel


# ---- on a loaded machine ------------------------------------------------------------------------

PATIENCE = 3
"""A time-out only ends what hangs. On two CPUs that others use too, everything takes longer."""

_PARTS: Mapping[str, Callable[[], object]] = {
    "programs": build_programs,
    "tiny_image": lambda: require_image("tiny", print),
    "guest_kernel": lambda: require_guest_kernel(print),
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test ``PATIENCE`` times the seconds that it states, or that all have."""
    usual = float(config.getini("timeout"))
    for item in items:
        own = item.get_closest_marker("timeout")
        seconds = float(own.args[0]) if own and own.args else usual
        item.add_marker(pytest.mark.timeout(PATIENCE * seconds), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build what the tests share before the first: no test's time-out has to pay for it."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name, build in _PARTS.items():
        if name in wanted:
            build()


# ---- in CI a missing component is a failure, not a skip ----------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure where CI says that it is CI."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI allows no skip: {report.longrepr}"
