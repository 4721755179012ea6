"""Probes on real files, sockets and counters of this host."""

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from harness import fiemap
from harness.drivers.base import Packed
from harness.errors import InputError, TrialError
from harness.model import build_phases
from harness.probes import disk, memory, noise, page_cache, portability, request
from harness.starter import read_clock


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


def test_phases_always_sum_to_the_total() -> None:
    whole = {"request": 0, "created": 10, "kernel": 30, "init": 60, "exec": 70, "ready": 100}
    assert build_phases(whole)["residual"] == 0
    for missing in ("created", "init", "exec"):
        stamps = {name: stamp for name, stamp in whole.items() if name != missing}
        phases = build_phases(stamps)
        assert sum(phases.values()) == pytest.approx(100e-9)
        assert phases["residual"] > 0
        assert missing not in phases
