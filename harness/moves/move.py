"""One move, from the first byte to ``ready``: measured, counted, and torn down again."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import cgroup, linux
from harness.drivers.base import Driver, InstanceSpec
from harness.errors import HarnessError, HostError, TrialError
from harness.images.model import Packing
from harness.model import NO_ACCELERATOR, Measurement
from harness.moves.link import Speed, Traffic
from harness.moves.model import SCENARIOS, Method, Site
from harness.moves.place import Place
from harness.probes import page_cache
from harness.starter import read_clock

AREA = "portability"
BODY_METRICS = {"first": f"{AREA}.first_app"}
"""What a scenario's bytes are called where not by its own name: `portability.first` is counted in
every run, of the image alone."""

_NANOSECONDS = 1_000_000_000
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SLOWEST = 0.5
"""A step may take as long as the link would need at this share of its bandwidth…"""
_WAIT_LEAST = 120.0
"""…and so many seconds on top."""


@dataclass(slots=True)
class Account:
    """What a move took: seconds by part, and bytes. Parts that do not occur are not there."""

    seconds: dict[str, float] = field(default_factory=dict)
    body: int = 0
    down: Traffic = field(default_factory=Traffic)
    up: Traffic = field(default_factory=Traffic)
    read: int | None = None
    whole: int | None = None
    accelerator: str = NO_ACCELERATOR
    left: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def time(self, part: str) -> Iterator[None]:
        begin = read_clock()
        yield
        self.seconds[part] = (read_clock() - begin) / _NANOSECONDS


@dataclass(frozen=True, slots=True)
class Order:
    """Which move: of what, how, by which link; ``spec`` is the instance that it ends in.

    ``groups`` makes the control groups of a start by its name. With ``cold`` a second start tells
    what a start reads.
    """

    driver: Driver
    spec: InstanceSpec
    packing: str
    scenario: str
    speed: Speed
    groups: cgroup.CgroupTree | None
    cold: bool = False


def run_move(order: Order, place: Place) -> Account:
    """Do it; raises HarnessError or OSError with the reason. Its folder is gone afterwards."""
    method = place.require_method(order.driver, order.spec.image, order.packing)
    scenario, service = SCENARIOS[order.scenario], place.services[method.service]
    folder, account = order.spec.folder, Account()
    site = Site(folder, order.spec.image, place.link, _find_wait(order))
    folder.mkdir()
    try:
        method.prepare(site, scenario)
        place.link.shape(order.speed)
        sent, down, up = service.read_sent(), place.link.read_down(), place.link.read_up()
        try:
            with account.time("transfer"):
                method.transfer(site, scenario)
        except (HarnessError, OSError) as error:
            raise _explain(error, service.find_fault()) from error
        account.down = place.link.read_down().since(down)
        account.up = place.link.read_up().since(up)
        unpacking = Account() if order.packing == "casync" and scenario.present else account
        with unpacking.time("unpack"):
            arrived = method.unpack(site, scenario)
        _start(order, arrived, account)
        account.body = service.read_sent() - sent  # the log is complete by now
        if order.cold:
            _read_cold(order, method, arrived, account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return account


def _find_wait(order: Order) -> float:
    """The longest that a step may take: a link that stands still must not stop a run."""
    most = sum(packing.apparent for name, packing in order.spec.image.packings.items()
               if name != "ext4-raw")  # fmt: skip
    return _WAIT_LEAST + most * 8 / order.speed.bandwidth / _SLOWEST


def _explain(error: HarnessError | OSError, fault: str | None) -> HarnessError:
    """A failed transfer in one line: what the client says, and whether the server has ended."""
    message = error.message if isinstance(error, HarnessError) else _describe(error)
    hint = error.hint if isinstance(error, HarnessError) else None
    if "no space left on device" in message.lower():
        return HostError(message, hint="free some space, or point HARNESS_CACHE at a larger disk")
    return TrialError(f"{fault}: {message}" if fault else message, hint=hint)


def _describe(error: OSError) -> str:
    return f"{error.filename or 'the transfer'}: {error.strerror or error}"


def _start(order: Order, arrived: Mapping[str, Packing], account: Account) -> None:
    """Start what has arrived and stop it; ``start`` is from the request to ``ready``."""
    image = order.spec.image
    moved = replace(image, packings={**image.packings, **arrived})
    name = order.spec.name
    spec = replace(
        order.spec, image=moved, folder=order.spec.folder / f"instance-{len(account.seconds)}"
    )
    spec.folder.mkdir()
    if order.groups:
        spec = replace(spec, cgroups=order.groups.start(name))
    try:
        with order.driver.start_instance(spec) as instance:
            instance.wait_ready()
            stamps = instance.milestones
            seconds = (stamps["ready"] - stamps["request"]) / _NANOSECONDS
            account.seconds.setdefault("start", seconds)
            account.accelerator = instance.accelerator
            instance.stop()
    finally:
        cgroup.kill_processes(spec.cgroups)
        account.left += cgroup.remove(spec.cgroups)


def _read_cold(
    order: Order, method: Method, arrived: Mapping[str, Packing], account: Account
) -> None:
    """Start once more with none of the files in memory, and see which pages it brought in."""
    files = method.list_files(arrived)
    page_cache.set_cache_state(files, "cold")
    before, _ = count_pages(files)
    _start(order, arrived, account)
    after, whole = count_pages(files)
    account.read, account.whole = max(0, after - before) * _PAGE, whole * _PAGE


def count_pages(files: Iterable[Path]) -> tuple[int, int]:
    """(resident, all) pages of the data in ``files``: holes are read too, but hold no bytes."""
    resident = pages = 0
    for path in files:
        with path.open("rb") as file:
            for offset, size in _find_data(file.fileno()):
                found, count = linux.read_resident_pages(file.fileno(), size, offset)
                resident, pages = resident + found, pages + count
    return resident, pages


def _find_data(file: int) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of every part of an open file that is no hole (lseek(2))."""
    end, size = 0, os.fstat(file).st_size
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole follows
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end - begin


# ---- rows ------------------------------------------------------------------------------------


def build_rows(order: Order, account: Account) -> list[Measurement]:
    """A move's rows: bytes of bodies by packing, bytes on the link and seconds by packing and
    link, the seconds in their parts too, and what a cold start reads."""
    scenario, way = order.scenario, f"{order.packing}@{order.speed.label}"
    seconds = f"{AREA}.{scenario}_seconds"
    rows = [
        Measurement(BODY_METRICS.get(scenario, f"{AREA}.{scenario}"), account.body, order.packing),
        Measurement(f"{AREA}.{scenario}_link", account.down.wire, way),
        Measurement(seconds, sum(account.seconds.values()), way),
    ]
    rows += [
        Measurement(seconds, value, f"{way}/{part}") for part, value in account.seconds.items()
    ]
    if account.read is not None and account.whole is not None:
        rows.append(Measurement(f"{AREA}.start_read", account.read))
        rows.append(Measurement(f"{AREA}.start_read", account.whole, "whole"))
    return rows


def build_details(order: Order, account: Account) -> dict[str, object]:
    """The evidence of a move, in JSON types."""
    pulled = account.seconds.get("transfer", 0.0) + account.seconds.get("unpack", 0.0)
    return {
        "scenario": order.scenario,
        "packing": order.packing,
        "link": order.speed.label,
        "body_bytes": account.body,
        "link_bytes": account.down.wire,
        "link_packets": account.down.packets,
        "interface_bytes": account.down.interface,
        "link_bytes_up": account.up.wire,
        "overhead_share": round(account.down.wire / account.body - 1, 6) if account.body else None,
        "pull_share": round(pulled / sum(account.seconds.values()), 6),
        **({"left": account.left} if account.left else {}),
    }
