"""Moves over a real shaped link: registry, HTTP server, counters, starts, and what goes wrong."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness import cgroup
from harness.drivers import load_driver
from harness.drivers.base import Toolbox
from harness.errors import HarnessError
from harness.images.model import GuestKernel, Image, Programs
from harness.model import Outcome
from harness.moves.fetch import start_client
from harness.moves.link import Speed, start_link
from harness.moves.machines import FILES
from harness.moves.place import Place, start_place
from harness.moves.series import Move, run_moves, run_one
from harness.moves.servers import FILES_PORT, start_files
from harness.paths import scratch_root
from harness.plan import ScheduledTrial
from harness.runner import Bench
from harness.starter import read_clock
from harness.workloads import Workload
from tests.integration.laboratory import run_in_lab
from tests.integration.test_run import (
    PROJECT,
    harness_words,
    read_outcomes,
    run_harness,
    wait_for_trials,
    wait_until_clean,
)

MBIT = 10**6
NOOP = Workload("noop", "tiny", ("true",), "exit", 60.0)
FAST = Speed(1000 * MBIT)
SLOW = Speed(2 * MBIT)
HEAD = 66
"""Ethernet, IP and TCP with its time stamps: what each packet has besides its payload."""


def build_bench(
    platform: str, image: Image, programs: Programs, run_id: str, kernel: GuestKernel | None = None
) -> Bench:
    """What moves need of a run; for use in the lab."""
    scratch = scratch_root() / run_id
    scratch.mkdir(parents=True, exist_ok=True)
    toolbox = Toolbox(programs.starter, kernel, "tcg", scratch=scratch, run_id=run_id)
    return Bench(
        run_id=run_id,
        drivers={platform: load_driver(platform, toolbox)},
        images={"tiny": image},
        workloads={"noop": NOOP},
        fixed={},
        scratch=scratch,
        logs=scratch / "logs",
        tree=cgroup.find_tree(run_id),
    )


def build_move(platform: str, number: int, packing: str, scenario: str, speed: Speed) -> Move:
    scheduled = ScheduledTrial(0, number, number, platform, "noop", warmup=False)
    return Move(scheduled, scenario, packing, speed, cold=number == 0)


# ---- the link --------------------------------------------------------------------------------


@pytest.mark.parametrize(("bandwidth", "size"), [(100 * MBIT, 10 << 20), (1000 * MBIT, 20 << 20)])
def test_a_link_reaches_its_bandwidth_and_counts_what_passes(
    bandwidth: int, size: int, tmp_path: Path
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "blob").write_bytes(os.urandom(size))

    def transfer(_run_id: str) -> Any:
        with start_link() as link, start_files(link.server, tmp_path / "www", tmp_path / "s") as up:
            link.shape(Speed(bandwidth))
            sent, before, seconds = up.read_sent(), link.read_down(), []
            with start_client(link.client, link.server.address, FILES_PORT, 30) as client:
                for turn in range(3):
                    begin = read_clock()
                    got = client.fetch("/blob", tmp_path / f"got{turn}")
                    seconds.append((read_clock() - begin) / 1e9)
            down = link.read_down().since(before)
            return [got, up.read_sent() - sent, asdict(down), min(seconds)]

    got, body, down, seconds = run_in_lab(transfer, tmp_path)
    assert got == size
    assert body == 3 * size, "the server's log agrees with the client to the byte"
    assert 0 <= down["wire"] - HEAD * down["packets"] - body < 2000, "the rest are heads of HTTP"
    assert 0.03 < down["wire"] / body - 1 < 0.07
    reached = down["wire"] / 3 * 8 / seconds
    assert reached == pytest.approx(bandwidth, rel=0.08)
    assert (tmp_path / "got0").read_bytes() == (tmp_path / "www" / "blob").read_bytes()


# ---- moves -----------------------------------------------------------------------------------


def run_all(moves: list[Move], bench: Bench) -> list[dict[str, Any]]:
    outcomes = [asdict(each) for each in run_moves(moves, bench, lambda _: None)]
    assert list(bench.scratch.glob("moves-*")) + list(bench.scratch.glob("t*")) == []
    return outcomes


def check(outcome: dict[str, Any]) -> dict[str, Any]:
    """What every move has to say; its evidence."""
    assert (outcome["status"], outcome["error"]) == ("ok", None)
    move: dict[str, Any] = outcome["details"]["move"]
    heads = move["link_bytes"] - HEAD * move["link_packets"] - move["body_bytes"]
    assert 0 < heads < 20_000
    assert 0.03 < move["overhead_share"] < 0.30
    assert move["interface_bytes"] <= move["link_bytes"]
    name = f"portability.{move['scenario']}_seconds"
    rows = {row["phase"]: row["value"] for row in outcome["measurements"] if row["metric"] == name}
    whole = rows.pop(f"{move['packing']}@{move['link']}")
    assert sum(rows.values()) == pytest.approx(whole)
    return move


def test_a_container_moves_its_missing_layers_alone(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    names = ("first", "shared_base", "update")

    def moves(run_id: str) -> Any:
        bench = build_bench("namespace", tiny_image, programs, run_id)
        wanted = [
            build_move("namespace", number, packing, scenario, FAST)
            for number, (packing, scenario) in enumerate(
                (packing, scenario) for packing in ("oci-gzip", "oci-zstd") for scenario in names
            )
        ]
        return run_all(wanted, bench)

    outcomes = run_in_lab(moves, tmp_path)
    found = [check(each) for each in outcomes]
    for packing in ("oci-gzip", "oci-zstd"):
        sizes = {each["scenario"]: each["body_bytes"] for each in found
                 if each["packing"] == packing}  # fmt: skip
        base = tiny_image.packings[packing].path / "blobs" / "sha256"
        layer = max(path.stat().st_size for path in base.iterdir())
        assert sizes["first"] - sizes["shared_base"] == layer
        assert abs(sizes["update"] - sizes["shared_base"]) < 20_000
    read = {row["phase"]: row["value"] for row in outcomes[0]["measurements"]
            if row["metric"] == "portability.start_read"}  # fmt: skip
    assert 0 < read[""] < read["whole"]


def test_a_registry_s_log_has_the_very_bytes_that_arrived(
    tiny_image: Image, programs: Programs, tmp_path: Path
) -> None:
    def move(run_id: str) -> Any:
        bench = build_bench("namespace", tiny_image, programs, run_id)
        with start_place(bench.scratch / "p", {"registry"}, False, lambda _: None) as place:
            one = build_move("namespace", 1, "oci-zstd", "first", FAST)
            outcome = asdict(run_one(one, bench, place))
            layout = bench.scratch / "p" / "namespace-tiny" / "oci-zstd" / "shop"
            blobs = sum(path.stat().st_size for path in (layout / "blobs/sha256").iterdir())
            return [outcome, blobs]

    outcome, blobs = run_in_lab(move, tmp_path)
    # Besides the blobs, the registry answers "{}" when it is asked for its version.
    assert check(outcome)["body_bytes"] == blobs + 2


@pytest.mark.timeout(120)
def test_a_machine_s_disk_arrives_whole_in_every_form(
    tiny_image: Image, programs: Programs, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    ways = (("overlay", "first"), ("overlay", "update"), ("casync", "update"),
            ("raw-zstd", "first"), ("qcow2", "shared_base"))  # fmt: skip

    def moves(run_id: str) -> Any:
        bench = build_bench("vm-direct", tiny_image, programs, run_id, guest_kernel)
        wanted = [build_move("vm-direct", number + 1, *way, FAST)
                  for number, way in enumerate(ways)]  # fmt: skip
        return run_all(wanted, bench)

    found = {
        (move["packing"], move["scenario"]): move["body_bytes"]
        for move in map(check, run_in_lab(moves, tmp_path))
    }
    boot = guest_kernel.bzimage.stat().st_size + guest_kernel.initramfs.stat().st_size
    assert found["raw-zstd", "first"] > boot
    assert found["overlay", "first"] > boot + tiny_image.packings["qcow2"].apparent
    assert found["casync", "update"] < found["overlay", "update"] < found["qcow2", "shared_base"]


def test_every_form_gives_the_same_disk(
    tiny_image: Image, programs: Programs, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    from harness.moves.model import SCENARIOS, Site
    from harness.process import run_command

    def compare(run_id: str) -> Any:
        bench = build_bench("vm-direct", tiny_image, programs, run_id, guest_kernel)
        found = {}
        with start_place(bench.scratch / "p", {FILES}, True, lambda _: None) as place:
            place.link.shape(FAST)
            for packing in ("qcow2", "raw-zstd", "overlay", "casync"):
                method = place.require_method(bench.drivers["vm-direct"], tiny_image, packing)
                for scenario in SCENARIOS.values():
                    folder = bench.scratch / f"{packing}-{scenario.name}"
                    folder.mkdir()
                    site = Site(folder, tiny_image, place.link, 60)
                    method.prepare(site, scenario)
                    method.transfer(site, scenario)
                    disk = method.unpack(site, scenario)["ext4-raw"].path
                    wanted = bench.scratch / "p" / "www" / "vm-direct-tiny" / scenario.moved
                    kind = disk.suffix.removeprefix(".")
                    done = run_command(
                        ["qemu-img", "compare", "-f", kind, "-F", "raw", disk, f"{wanted}.raw"],
                        timeout=60,
                    )
                    found[f"{packing} {scenario.name}"] = done.stdout.strip()
        return found

    found = run_in_lab(compare, tmp_path)
    assert len(found) == 12
    assert set(found.values()) == {"Images are identical."}


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(("platform", "packing", "service"), [
    ("namespace", "oci-gzip", "registry"), ("vm-direct", "raw-zstd", "files"),
    ("vm-direct", "casync", "files"),
])  # fmt: skip
def test_a_server_that_dies_in_mid_transfer_is_a_failed_move_with_a_reason(
    platform: str,
    packing: str,
    service: str,
    tiny_image: Image,
    programs: Programs,
    guest_kernel: GuestKernel,
    tmp_path: Path,
) -> None:
    def kill(place: Place) -> None:
        os.kill(place.services[service].pid, signal.SIGKILL)

    outcome = run_in_lab(
        lambda run_id: disturb(
            build_bench(platform, tiny_image, programs, run_id, guest_kernel),
            build_move(platform, 1, packing, "first", SLOW), service, kill,
        ),
        tmp_path,
    )  # fmt: skip
    assert outcome["status"] == "failed"
    where = {"registry": "the registry has ended", "files": "the HTTP server has ended"}[service]
    assert outcome["error"].startswith(f"moving first by {packing} at 2Mbit: {where}: ")
    assert "\n" not in outcome["error"]
    assert outcome["measurements"] == []
    assert outcome["left"] == []


def disturb(
    bench: Bench, move: Move, service: str, what: Callable[[Place], None]
) -> dict[str, Any]:
    """A move, and something that happens while it transfers; its outcome and what it left."""
    with start_place(bench.scratch / "p", {service}, move.packing == "casync", _quiet) as place:
        driver = bench.drivers[move.scheduled.platform]
        place.require_method(driver, bench.images["tiny"], move.packing)
        timer = threading.Timer(1.0, what, (place,))
        timer.start()
        outcome: Outcome = run_one(move, bench, place)
        timer.join()
        assert place.is_whole() is False
    return {**asdict(outcome), "left": [path.name for path in bench.scratch.glob("t*")]}


def _quiet(_text: str) -> None:
    """Nobody listens."""


def test_a_full_disk_is_a_failed_move_with_a_remedy(
    tiny_image: Image, programs: Programs, guest_kernel: GuestKernel, tmp_path: Path
) -> None:
    from harness import linux

    def move(run_id: str) -> Any:
        bench = build_bench("vm-direct", tiny_image, programs, run_id, guest_kernel)
        with start_place(bench.scratch / "p", {FILES}, False, _quiet) as place:
            one = build_move("vm-direct", 1, "raw-zstd", "first", FAST)
            place.require_method(bench.drivers["vm-direct"], tiny_image, "raw-zstd")
            full = bench.scratch / "full"
            full.mkdir()
            linux.mount("tmpfs", full, "tmpfs", 0, "size=4m")
            crowded = Bench(**{**{name: getattr(bench, name) for name in bench.__slots__},
                               "scratch": full})  # fmt: skip
            outcome = asdict(run_one(one, crowded, place))
            assert list(full.iterdir()) == []
            linux.unmount(full)
        return outcome

    outcome = run_in_lab(move, tmp_path)
    assert outcome["status"] == "failed"
    assert "No space left on device" in outcome["error"]
    assert outcome["hint"] == "free some space, or point HARNESS_CACHE at a larger disk"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()

    def fetch(_run_id: str) -> str:
        with start_link() as link, start_files(link.server, tmp_path / "www", tmp_path / "s"):
            try:
                with start_client(link.client, link.server.address, FILES_PORT, 30) as client:
                    client.fetch("/../etc/passwd", tmp_path / "out")
            except HarnessError as error:
                return error.message
        return ""

    assert run_in_lab(fetch, tmp_path) == "the server answers /../etc/passwd with 404"


# ---- through the command line ------------------------------------------------------------------

PLAN = 'platforms = ["namespace"]\nworkloads = ["noop"]\ndensity = 0\nwarmup = 0\naa = []\n'


def read_moves(folder: Path) -> list[dict[str, Any]]:
    return [each for each in read_outcomes(folder) if "move" in each["details"]]


def test_a_run_moves_after_its_trials_and_resume_goes_on(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(f'{PLAN}bandwidths = ["1Gbit", "500Mbit"]\n')
    done = run_harness("run", str(plan), "--moves", "--blocks", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    moves = read_moves(out)
    assert read_outcomes(out)[-len(moves) :] == moves
    assert [each["status"] for each in moves] == ["ok"] * (2 * 3 * 2 * 3)
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    phases = {row["phase"] for row in rows if row["metric"] == "portability.update_seconds"}
    assert {"oci-gzip@1Gbit", "oci-zstd@500Mbit", "oci-zstd@500Mbit/unpack"} <= phases
    text = (out / "report.md").read_text()
    assert "Moved to a host that has nothing" in text
    assert "What a cold start reads of the image" in text
    assert (out / "plots" / "portability-moves.svg").exists()
    run_id = json.loads((out / "manifest.json").read_text())["run_id"]
    assert wait_until_clean(run_id) == []

    journal = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    (out / "journal.jsonl").write_text("".join(journal[:-2]))
    done = run_harness("run", "--resume", str(out))
    assert done.returncode == 0, done.stderr
    again = read_moves(out)
    assert again[:-2] == moves[:-2]
    assert [each["trial"] for each in again] == [each["trial"] for each in moves]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_moves_that_are_broken_off_leave_nothing(end: signal.Signals, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(f'{PLAN}blocks = 1\nmoves = true\nbandwidths = ["1Mbit"]\n')
    with subprocess.Popen(
        harness_words("run", str(plan), "--out", str(out)),
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        run_id = wait_for_trials(out, 1, process)
        time.sleep(2.5)  # in the middle of a transfer
        process.send_signal(end)
        _, talk = process.communicate(timeout=30)
    assert "Traceback" not in talk
    assert wait_until_clean(run_id) == []


def test_a_report_without_moves_says_nothing_of_them(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(PLAN)
    done = run_harness("run", str(plan), "--blocks", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Moved to" not in (out / "report.md").read_text()
    assert not (out / "plots" / "portability-moves.svg").exists()
