"""Probes on real files, sockets and counters of this host."""

import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness import fiemap
from harness.drivers.base import Packed
from harness.errors import InputError, TrialError
from harness.marks import LABELS, MARKS, explain_mark, find_mark_remedy
from harness.model import build_phases
from harness.probes import (
    disk,
    memory,
    noise,
    outside,
    page_cache,
    panic,
    portability,
    request,
    steady,
)
from harness.probes.outside import Spent
from harness.starter import read_clock

MIB = 1 << 20

ROOT = Path(__file__).parents[2]


def test_bytes_to_move_are_those_of_the_files(tmp_path: Path) -> None:
    sizes = {"small": 1, "chunk": 1 << 20, "odd": (1 << 20) + 12_345, "empty": 0}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(os.urandom(size))
    packed = [Packed("oci-gzip", (tmp_path,)), Packed("qcow2", (tmp_path / "odd",))]
    for _ in range(20):  # a count that is read too early is wrong only now and then
        rows = {row.phase: row.value for row in portability.measure_first(packed)}
        assert rows == {"oci-gzip": sum(sizes.values()), "qcow2": sizes["odd"], "": sizes["odd"]}


def test_what_an_instance_runs_from_does_not_travel(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert portability.measure_first([Packed("tree", (tmp_path,))]) == []


def test_sizes_count_holes_as_free_and_hard_links_once(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10 << 20)
    os.link(tmp_path / "sparse", tmp_path / "again")
    apparent, allocated = disk.read_sizes([tmp_path / "sparse", tmp_path / "again"])
    assert apparent == 10 << 20
    assert allocated < 1 << 20


def test_extents_are_read_as_the_kernel_writes_them() -> None:
    """fiemap.h: a head of 32 bytes with the number of extents, then 56 bytes for each."""
    request = fiemap.build_request(4096)
    assert struct.unpack_from("=QQLLLL", request) == (4096, 2**64 - 1 - 4096, 0, 0, 256, 0)
    struct.pack_into("=L", request, 20, 2)
    for number, flags in enumerate((fiemap.FLAG_SHARED, fiemap.FLAG_LAST)):
        place = 32 + 56 * number
        struct.pack_into("=QQQ", request, place, number << 12, 1 << 20, 4096)
        struct.pack_into("=L", request, place + 40, flags)
    first, last = fiemap.parse_answer(bytes(request))
    assert (first.logical, first.physical, first.length, first.shared) == (0, 1 << 20, 4096, True)
    assert (last.logical, last.shared, last.flags) == (4096, False, fiemap.FLAG_LAST)


def test_a_mark_is_a_whole_line_however_it_arrives(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    marks = disk.Marks(lambda: [tmp_path])
    for piece in (b"up\n@di", b"sk written\r\nsay @disk no\n", b"@disk ", b"kept\n@disk cut"):
        marks.take(piece)
    assert [row.phase for row in marks.rows] == ["written", "kept"]


def test_a_walk_does_not_count_what_vanishes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_bytes(b"x" * 100)
    monkeypatch.setattr("harness.probes.disk.os.listdir", lambda _: ["there", "gone"])
    apparent, _ = disk.read_sizes([tmp_path])
    assert apparent == 100 + tmp_path.stat().st_size


def test_cache_states_are_reached_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    cold = page_cache.set_cache_state([file], "cold")
    assert (cold.share, page_cache.find_mark(cold, "cold")) == (0.0, None)
    assert page_cache.find_mark(cold, "warm") == "cache-not-warm"
    warm = page_cache.set_cache_state([file], "warm")
    assert (warm.share, page_cache.find_mark(warm, "warm")) == (1.0, None)
    assert page_cache.find_mark(warm, "cold") == "cache-not-cold"
    assert warm.total == (1 << 20) // os.sysconf("SC_PAGESIZE")


def test_no_files_are_neither_cold_nor_unreadable(tmp_path: Path) -> None:
    assert page_cache.read_residency([tmp_path / "gone"]).total == 0


def test_the_ledger_has_no_row_for_what_could_not_be_read() -> None:
    rows = memory.build_ledger("vm", None, None, None, None, 5)
    assert [row.metric for row in rows] == ["memory.host_delta"]


def test_overhead_is_pss_beyond_the_guest_for_a_vm_and_the_helpers_for_a_container() -> None:
    vm = {row.metric: row.value for row in memory.build_ledger("vm", 100, 7, 60, None, 0)}
    assert (vm["memory.overhead"], vm["memory.guest_used"]) == (40, 60)
    container = memory.build_ledger("container", 100, 7, None, None, 0)
    assert {row.metric: row.value for row in container}["memory.overhead"] == 7


def test_pss_of_this_process_is_read() -> None:
    pss = memory.read_pss([os.getpid()])
    assert pss is not None and pss > 1 << 20
    assert memory.read_pss([2**22 + 1]) is None


def serve_once(answers: list[bytes]) -> int:
    """Answer one connection after another with raw bytes; the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_the_first_success_counts_not_the_first_answer() -> None:
    port = serve_once([b"HTTP/1.0 503 busy\r\n\r\n", b"garbage\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
    begin = read_clock()
    stamp = request.request_first_answer("127.0.0.1", port, "/", begin + 5_000_000_000)
    assert stamp > begin


def test_a_service_that_never_succeeds_says_why() -> None:
    port = serve_once([b"HTTP/1.0 404 no\r\n\r\n"])
    with pytest.raises(TrialError, match="no successful answer"):
        request.request_first_answer("127.0.0.1", port, "/", read_clock() + 300_000_000)


@pytest.mark.parametrize("url", ["https://:1/", "http://host:1/", "http://:/", "nonsense"])
def test_a_request_that_cannot_be_sent_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="cannot be sent"):
        request.parse_request(url)


def test_marks_name_what_disturbed_a_trial() -> None:
    before = noise.Noise(0, 1.0, 0.0, 0.0, 0.0, 5)
    quiet = noise.Noise(1_000_000_000, 1.0, 0.0, 0.0, 0.5, 5)
    loud = noise.Noise(1_000_000_000, 1.5, 0.5, 0.5, 0.5, 6)
    assert noise.find_marks(before, quiet) == []
    assert noise.find_marks(before, loud) == ["steal", "swap", "pressure-memory", "pressure-io"]
    assert noise.read_noise(read_clock()).clock > 0


STAT = "cpu  10 0 20 {idle} {wait} 0 0 {steal} 0 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n"


def spent(second: int, idle: float, own: float, *, wait: float = 0, steal: float = 0) -> Spent:
    """Counters after a second of a host with two CPUs; times in seconds."""
    tick = os.sysconf("SC_CLK_TCK")
    ticks = {"idle": idle, "wait": wait, "steal": steal}
    text = STAT.format(**{name: round(value * tick) for name, value in ticks.items()})
    return Spent(second * 1_000_000_000, *outside.parse_idle(text), own)


@pytest.mark.parametrize(
    ("after", "used", "mark"),
    [
        (spent(1, 2.0, 0.0), 0.0, None),
        (spent(1, 1.0, 1.0), 0.0, None),
        (spent(1, 1.0, 0.1, wait=0.5, steal=0.2), 0.2, None),
        (spent(1, 1.0, 0.0), 1.0, "outside-load"),
        (spent(1, 0.5, 0.5), 1.0, "outside-load"),
        (spent(1, 1.5, 2.0), 0.0, None),
    ],
    ids=["idle", "its own load", "a little", "one CPU", "both", "the grain of ticks"],
)
def test_what_others_used_is_what_the_host_spent_less_the_runs_own(
    after: Spent, used: float, mark: str | None
) -> None:
    seconds, share = outside.find_outside(spent(0, 0, 0), after)
    assert seconds == pytest.approx(used)
    assert share == pytest.approx(used / 2)
    assert outside.find_mark(seconds, share) == mark


def test_the_runs_own_time_holds_children_that_are_gone() -> None:
    before = outside.read_spent(read_clock())
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert outside.read_spent(read_clock()).own - before.own >= 0.28


def test_a_process_with_any_name_is_counted(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")  # the number is above any that the kernel gives
    (tmp_path / "stat").write_text(STAT.format(idle=0, wait=0, steal=0))
    (tmp_path / "4194305").mkdir()
    line = f"4194305 (a) 9 (b) S 1 1 1 0 -1 0 0 0 0 0 7 7 {tick} {2 * tick} 20 0"
    (tmp_path / "4194305" / "stat").write_text(line)
    assert outside.read_spent(0, tmp_path).own == 3.0


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("wall", "asleep", "marks"),
    [
        (0, 0, []),
        (20_000, 0, []),
        (3600 * SECOND, 0, ["clock-step"]),
        (-SECOND, 0, ["clock-step"]),
        (60 * SECOND, 60 * SECOND, ["suspended"]),
        (0, 60 * SECOND, ["clock-step", "suspended"]),
    ],
)
def test_clocks_that_part_are_marked(wall: int, asleep: int, marks: list[str]) -> None:
    before = noise.Clocks(1_700_000_000 * SECOND, 5 * SECOND)
    after = noise.Clocks(before.wall + wall, before.asleep + asleep)
    assert noise.find_clock_marks(before, after) == marks
    assert noise.find_clock_marks(None, after) == []


def test_clocks_of_a_host_that_is_left_alone_stay_together() -> None:
    assert noise.find_clock_marks(noise.read_clocks(), noise.read_clocks()) == []


def test_heat_is_counted_over_all_cpus(tmp_path: Path) -> None:
    assert noise.read_overheated(tmp_path / "none") == 0
    for cpu, count in (("cpu0", "2\n"), ("cpu1", "3\n"), ("cpufreq", "9\n")):
        folder = tmp_path / cpu / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(count)
    assert noise.read_overheated(tmp_path) == 5
    cool, hot = noise.Noise(0, 0, 0, 0, 0, 0, 5), noise.Noise(SECOND, 0, 0, 0, 0, 0, 6)
    assert noise.find_marks(cool, hot) == ["overheated"]
    assert noise.find_marks(cool, cool) == []


def test_load_is_not_laid_on_others_where_part_of_the_run_is_outside_of_it() -> None:
    quiet = noise.Noise(0, 0, 0, 0, 0, 0, spent=spent(0, 0, 0))
    loud = noise.Noise(SECOND, 0, 0, 0, 0, 0, spent=spent(1, 0, 0))
    assert noise.find_marks(quiet, loud) == ["outside-load"]
    assert noise.find_marks(quiet, loud, told=False) == []
    assert "outside_share" not in noise.build_details(quiet, loud, told=False)
    assert noise.build_details(quiet, loud)["outside_share"] == 1.0


def test_a_panic_is_found_in_the_consoles_log(tmp_path: Path) -> None:
    assert not panic.has_panicked(tmp_path)
    (tmp_path / "console.log").write_bytes(b"booting\n")
    assert not panic.has_panicked(tmp_path)
    (tmp_path / "console.log").write_bytes(b"\xff[ 1.0] Kernel panic - not syncing: out of memory")
    assert panic.has_panicked(tmp_path)


def test_every_mark_has_a_meaning_and_a_remedy_of_one_line() -> None:
    for mark in MARKS.values():
        for text in (mark.meaning, mark.remedy, mark.cure):
            assert text and "\n" not in text
    assert len(MARKS) == len({mark.meaning for mark in MARKS.values()})
    assert {"emulated"} == LABELS
    assert explain_mark("of-tomorrow") and find_mark_remedy("of-tomorrow") == ""


def test_every_mark_that_the_code_gives_is_in_the_table() -> None:
    """Read from the source: words in quotes that are handed to a list of marks."""
    given = set()
    for path in (ROOT / "harness").rglob("*.py"):
        text = path.read_text()
        given |= set(re.findall(r'marks (?:\+?= \[|= \()"([a-z-]+)"', text))
        given |= set(re.findall(r'marks\.append\("([a-z-]+)"\)', text))
        given |= set(re.findall(r'return "((?:cache|outside)-[a-z-]+)"', text))
        given |= set(re.findall(r'^_?MARK = "([a-z-]+)"', text, re.MULTILINE))
    assert given - MARKS.keys() == set()
    assert {"emulated", "steal", "swap", "panic", "outside-load", "cache-not-warm"} <= given


def test_phases_always_sum_to_the_total() -> None:
    whole = {"request": 0, "created": 10, "kernel": 30, "init": 60, "exec": 70, "ready": 100}
    assert build_phases(whole)["residual"] == 0
    for missing in ("created", "init", "exec"):
        stamps = {name: stamp for name, stamp in whole.items() if name != missing}
        phases = build_phases(stamps)
        assert sum(phases.values()) == pytest.approx(100e-9)
        assert phases["residual"] > 0
        assert missing not in phases


# ---- free memory that keeps still ----------------------------------------------------------------


def test_free_memory_is_waited_for_until_it_keeps_still() -> None:
    """It rises by 5 MiB a reading for a while, as after trials, then by less than 1 MiB in all."""
    rise = itertools.chain((5 * number * MIB for number in range(8)), itertools.repeat(35.5 * MIB))
    slept: list[float] = []
    found = steady.wait_steady(lambda: int(next(rise)), slept.append)
    assert found.steady and found.spread == MIB // 2
    assert len(slept) == 11, "seven readings rise, and a second's all lie within 1 MiB after that"
    assert found.waited_s == sum(slept)
    assert found.drift == MIB / 2


def test_memory_that_never_keeps_still_is_not_waited_for_longer() -> None:
    rise = itertools.count(0, 2 * MIB)
    slept: list[float] = []
    found = steady.wait_steady(lambda: next(rise), slept.append)
    assert not found.steady and found.drift == 8 * MIB
    assert found.waited_s == sum(slept) == steady.MOST_S


def test_the_hosts_own_memory_is_what_is_waited_for() -> None:
    slept: list[float] = []
    found = steady.wait_steady(sleep=slept.append)
    assert found.spread >= 0 and slept
