"""Moves as plain values: commands, names, counters, logs, and the order of a run's moves."""

import json
import struct
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from harness.analysis.plots.moves import choose_ticks
from harness.errors import HostError, InputError, TrialError
from harness.model import Measurement, Outcome
from harness.moves import series
from harness.moves.app import FOLDER, RELEASES, build_layer, build_site, write_site
from harness.moves.containers import build_extract
from harness.moves.disks import IMAGE_TYPE, ROOT_TYPE, build_script, find_offset, find_problem
from harness.moves.layers import find_blob, read_manifest, write_layers
from harness.moves.link import Speed, Traffic, build_shaping, parse_received, parse_shaped
from harness.moves.machines import build_casync
from harness.moves.move import Account, Order, build_details, build_rows
from harness.moves.series import build_moves, choose_moves, list_unmovable
from harness.moves.servers import (
    build_registry_config,
    find_skopeo_reason,
    parse_files_log,
    parse_registry_log,
)
from harness.plan_file import read_plan
from harness.runner import build_spec
from harness.store.journal import encode_outcome
from harness.units import format_bandwidth, parse_bandwidth
from tests.unit.fakes import FakeDriver
from tests.unit.test_runner import build_bench, build_trials

MBIT = 1_000_000
MOVES = {"moves": True, "workloads": ("noop",), "platforms": ("namespace", "vm-direct")}


# ---- words and commands ----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["100Mbit", "1Gbit", "2.5Gbit", "64kbit"])
def test_a_bandwidth_is_written_as_it_is_read(text: str) -> None:
    assert format_bandwidth(parse_bandwidth(text)) == text


@pytest.mark.parametrize("text", ["", "fast", "100", "100MB", "0Mbit", "-1Mbit"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a bandwidth"):
        parse_bandwidth(text)


def test_a_link_is_named_by_what_it_is_shaped_to() -> None:
    assert Speed(100 * MBIT).label == "100Mbit"
    assert Speed(1000 * MBIT, 0.005).label == "1Gbit+5ms"


def test_a_link_is_shaped_by_a_bucket_and_delayed_below_it() -> None:
    (bucket,) = build_shaping("eth", Speed(1000 * MBIT))
    assert " ".join(bucket) == (
        "tc qdisc replace dev eth root handle 1: tbf rate 1000000000bit burst 125000 latency 50ms"
    )
    bucket, delay = build_shaping("eth", Speed(10 * MBIT, 0.0025))
    assert bucket[bucket.index("burst") + 1] == "32768"
    assert " ".join(delay).startswith("tc qdisc replace dev eth parent 1:1 handle 10: netem")
    assert delay[delay.index("delay") + 1] == "2500us"


def test_layers_are_unpacked_with_owners_modes_and_attributes() -> None:
    words = build_extract(Path("/b"), "zstd", Path("/out"))
    assert {"--zstd", "--same-owner", "--numeric-owner", "--xattrs"} <= set(words)


def test_casync_takes_from_a_seed_what_it_can() -> None:
    words = build_casync("http://s/x", "shop", ["--seed=/old"], Path("/disk"))
    assert words[1:] == [
        "extract", "--store=http://s/x/store", "--seed=/old", "http://s/x/shop.caibx",
        Path("/disk"),
    ]  # fmt: skip


def test_a_registry_keeps_its_blobs_where_it_is_told() -> None:
    document = json.loads(build_registry_config(Path("/blobs"), "10.0.0.1"))
    assert document["storage"]["filesystem"]["rootdirectory"] == "/blobs"
    assert document["http"]["addr"] == "10.0.0.1:5000"


@pytest.mark.parametrize(("low", "high", "first"), [(0.04, 60, 0.1), (0.03, 0.5, 0.03), (1, 4, 1)])
def test_a_logarithmic_axis_has_some_round_ticks(low: float, high: float, first: float) -> None:
    ticks = choose_ticks(low, high)
    assert ticks[0] == pytest.approx(first)
    assert 3 <= len(ticks) <= 9


# ---- counters and logs -----------------------------------------------------------------------


def test_counters_are_read_from_what_tc_and_ip_print() -> None:
    shaped = '[{"kind":"tbf","handle":"1:","root":true,"bytes":1803995,"packets":1250,"drops":0}]'
    assert parse_shaped(shaped) == (1803995, 1250)
    assert parse_received('[{"stats64":{"rx":{"bytes":17,"packets":2},"tx":{"bytes":3}}}]') == 17
    assert Traffic(9, 3, 8).since(Traffic(4, 1, 2)) == Traffic(5, 2, 6)


def test_a_registry_s_log_counts_completed_answers_to_get() -> None:
    def line(method: str, written: int, message: str = "response completed") -> str:
        return json.dumps({
            "msg": message, "http.request.method": method, "http.response.written": written,
        })  # fmt: skip

    lines = [line("GET", 100), line("PUT", 7), line("GET", 9, "authorized request"),
             "not JSON", line("GET", 11)]  # fmt: skip
    assert parse_registry_log("\n".join(lines)) == 111


def test_a_file_server_s_log_counts_what_was_sent() -> None:
    assert parse_files_log("200 10 /a\n404 0 /b\n200 5 /with space\nTraceback of a fault\n") == 15


def test_skopeo_s_reason_is_its_last_message() -> None:
    text = 'Getting image\ntime="now" level=fatal msg="reading \\"x\\": unexpected EOF"\n'
    assert find_skopeo_reason(text) == 'reading "x": unexpected EOF'
    assert find_skopeo_reason("") == "it said nothing"


# ---- what moves ------------------------------------------------------------------------------


def test_the_application_is_the_same_every_time_and_an_update_changes_one_file() -> None:
    shop, later, other = map(build_site, RELEASES)
    assert shop == build_site("shop")
    assert [name for name in shop if shop[name] != later[name]] == ["page-07.html"]
    assert set(shop) == set(other)
    assert not {shop[name] for name in shop} & {other[name] for name in other}
    assert 500_000 < sum(map(len, shop.values())) < 2_000_000


def test_a_layer_is_a_tar_with_the_files_and_their_folders() -> None:
    files = build_site("shop")
    with tarfile.open(fileobj=BytesIO(build_layer(files))) as archive:
        names = archive.getnames()
        page = archive.extractfile(f"{FOLDER}/page-07.html")
        assert page is not None
        assert page.read() == files["page-07.html"]
    assert names[:2] == ["srv", FOLDER]
    assert build_layer(files) == build_layer(build_site("shop"))


def test_a_layer_on_a_base_shares_the_base_s_blobs(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    first = write_layers(base, build_layer(build_site("shop")), "gzip", tmp_path / "a")
    second = write_layers(base, build_layer(build_site("other")), "gzip", tmp_path / "b")
    assert first.base == second.base
    assert first.top != second.top
    manifest = read_manifest(first.folder)
    assert [each["digest"] for each in manifest["layers"]] == [*first.base, first.top]
    config = json.loads(find_blob(first.folder, manifest["config"]["digest"]).read_text())
    assert len(config["rootfs"]["diff_ids"]) == 2
    for each in manifest["layers"]:
        assert find_blob(first.folder, each["digest"]).stat().st_size == each["size"]


def write_base(folder: Path) -> Path:
    from harness.images.oci import write_layout

    tar = folder.with_suffix(".tar")
    tar.write_bytes(build_layer({"base.txt": b"base\n"}))
    write_layout(tar, "sha256:" + "0" * 64, "gzip", folder)
    return folder


def test_debugfs_is_told_every_file_and_heard_when_it_complains(tmp_path: Path) -> None:
    write_site({"a.html": b"x"}, tmp_path / "site")
    script = build_script([tmp_path / "site" / "a.html"])
    assert script.splitlines() == [
        "mkdir /srv", f"mkdir /{FOLDER}", f'write "{tmp_path}/site/a.html" /{FOLDER}/a.html',
    ]  # fmt: skip
    assert find_problem("debugfs 1.47.0 (5-Feb-2023)\n") is None
    full = "debugfs 1.47.0\nmkdir: Directory already exists \nwrite: Could not allocate block"
    assert find_problem(full) == "write: Could not allocate block"


def test_a_root_partition_begins_where_the_table_says(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    assert find_offset(disk) == 0
    table = bytearray(4096)
    table[512:520] = b"EFI PART"
    struct.pack_into("<QII", table, 512 + 72, 2, 4, 128)
    disk.write_bytes(table)
    with pytest.raises(HostError, match="no root partition"):
        find_offset(disk)
    table[1024 + 256 : 1024 + 272] = ROOT_TYPE.bytes_le
    struct.pack_into("<Q", table, 1024 + 256 + 32, 2048)
    disk.write_bytes(table)
    assert find_offset(disk) == 1 << 20
    table[1024 : 1024 + 16] = IMAGE_TYPE.bytes_le
    struct.pack_into("<Q", table, 1024 + 32, 8192)
    disk.write_bytes(table)
    assert find_offset(disk) == 4 << 20  # not the system's root


# ---- the moves of a run ----------------------------------------------------------------------


def drivers() -> dict[str, FakeDriver]:
    return {"namespace": FakeDriver(), "vm-direct": FakeDriver("vm-direct", "vm")}


def test_every_repeat_has_each_move_once_in_an_order_of_the_seed() -> None:
    plan = read_plan(None, {**MOVES, "repeats": 2}, new_seed=1)
    moves = build_moves(plan, drivers(), 100)
    assert len(moves) == 2 * (2 + 4) * 3 * 2
    assert [each.scheduled.trial for each in moves] == list(range(100, 172))
    halves = [
        [(m.scheduled.platform, m.scenario, m.packing, m.speed) for m in moves
         if m.scheduled.block == block] for block in (0, 1)
    ]  # fmt: skip
    assert halves[0] != halves[1]
    assert set(halves[0]) == set(halves[1])
    assert moves == build_moves(plan, drivers(), 100)
    assert sum(each.cold for each in moves) == 2 * 2


def test_without_moves_there_are_none_and_nothing_is_said() -> None:
    plan = read_plan(None, {**MOVES, "moves": False}, new_seed=1)
    assert build_moves(plan, drivers(), 0) == []
    assert list_unmovable(plan, drivers()) == []


@pytest.mark.parametrize(
    ("missing", "packings"),
    [("docker-registry", "oci-gzip, oci-zstd"), ("skopeo", "oci-gzip, oci-zstd"),
     ("casync", "casync")],
)  # fmt: skip
def test_a_missing_program_is_one_line_with_its_package(
    missing: str, packings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(missing, monkeypatch)
    plan = read_plan(None, MOVES, new_seed=1)
    line = f"moves by {packings}: {missing} is not installed; the package is called {missing}"
    assert list_unmovable(plan, drivers()) == [line]
    left = {each.packing for each in choose_moves(build_moves(plan, drivers(), 0))}
    assert left and not left & set(packings.split(", "))


def hide(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "find_command", lambda name: None if name == program else "/x")
    monkeypatch.setattr(series, "find_link_fault", lambda: None)


def test_without_tc_there_are_no_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("tc", monkeypatch)
    plan = read_plan(None, MOVES, new_seed=1)
    assert list_unmovable(plan, drivers()) == [
        "moves: tc is not installed; the package is called iproute2"
    ]
    assert choose_moves(build_moves(plan, drivers(), 0)) == []


def test_without_netem_that_is_said_and_only_bandwidths_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide("", monkeypatch)
    monkeypatch.setattr(series, "find_delay_fault", lambda: "this kernel has no netem")
    plan = read_plan(None, {**MOVES, "delay": "5ms"}, new_seed=1)
    assert list_unmovable(plan, drivers()) == ["moves with a delay: this kernel has no netem"]
    moves = choose_moves(build_moves(plan, drivers(), 0))
    assert {each.speed.label for each in moves} == {"100Mbit", "1Gbit"}


def test_machines_of_another_libvirt_do_not_move() -> None:
    plan = replace(read_plan(None, MOVES, new_seed=1), connection="qemu:///system")
    assert {each.scheduled.platform for each in build_moves(plan, drivers(), 0)} == {"namespace"}
    assert list_unmovable(plan, {"vm-direct": FakeDriver("vm-direct", "vm")}) == [
        "moves of vm-direct: its disks are those of qemu:///system"
    ]


@pytest.mark.parametrize("words", [("fast",), ("1Gbit", "1000Mbit")])
def test_bad_bandwidths_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="bandwidths"):
        read_plan(None, {**MOVES, "bandwidths": words}, new_seed=1)


# ---- rows ------------------------------------------------------------------------------------


def build_order(tmp_path: Path, scenario: str) -> Order:
    bench = build_bench(tmp_path, FakeDriver())
    spec = build_spec(build_trials(1)[0], bench)
    return Order(bench.drivers["namespace"], spec, "oci-zstd", scenario, Speed(100 * MBIT), None)


ACCOUNT = Account(
    seconds={"transfer": 0.3, "unpack": 0.1, "start": 0.4},
    body=1000,
    down=Traffic(1100, 3, 1060),
    read=50,
    whole=80,
)


def test_bytes_are_named_by_packing_and_seconds_by_packing_and_link(tmp_path: Path) -> None:
    rows = build_rows(build_order(tmp_path, "update"), ACCOUNT)
    assert rows[:2] == [
        Measurement("portability.update", 1000, "oci-zstd"),
        Measurement("portability.update_link", 1100, "oci-zstd@100Mbit"),
    ]
    assert (rows[2].metric, rows[2].phase) == ("portability.update_seconds", "oci-zstd@100Mbit")
    assert rows[2].value == pytest.approx(0.8)
    parts = {row.phase: row.value for row in rows if "/" in row.phase}
    assert parts == {
        "oci-zstd@100Mbit/transfer": 0.3, "oci-zstd@100Mbit/unpack": 0.1,
        "oci-zstd@100Mbit/start": 0.4,
    }  # fmt: skip
    assert rows[-2:] == [
        Measurement("portability.start_read", 50),
        Measurement("portability.start_read", 80, "whole"),
    ]


def test_bytes_of_the_first_move_are_not_those_that_every_run_counts(tmp_path: Path) -> None:
    names = {row.metric for row in build_rows(build_order(tmp_path, "first"), ACCOUNT)}
    assert "portability.first" not in names
    assert "portability.first_app" in names


def test_the_evidence_has_both_counts_and_the_share_of_the_pull(tmp_path: Path) -> None:
    details = build_details(build_order(tmp_path, "update"), ACCOUNT)
    assert (details["body_bytes"], details["link_bytes"]) == (1000, 1100)
    assert (details["overhead_share"], details["pull_share"]) == (0.1, 0.5)
    json.dumps(details)


def test_servers_that_cannot_start_are_failed_moves_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise TrialError("the registry does not start: port in use")

    monkeypatch.setattr(series, "start_place", refuse)
    bench = build_bench(tmp_path, FakeDriver())
    plan = read_plan(None, {**MOVES, "platforms": ("namespace",), "repeats": 1}, new_seed=1)
    moves = build_moves(plan, bench.drivers, 5)
    outcomes: list[Outcome] = list(series.run_moves(moves, bench, lambda _: None))
    assert [each.status for each in outcomes] == ["failed"] * len(moves)
    assert outcomes[0].error is not None
    assert outcomes[0].error.endswith("the registry does not start: port in use")
    assert all(encode_outcome(each) for each in outcomes)
    assert list(bench.scratch.iterdir()) == []
