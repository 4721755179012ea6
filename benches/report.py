"""`python -m benches.report`: the report of a million samples, and of a thousand platforms.

The full folder has 20 platforms × 10 workloads × 100 blocks with some 50 figures of each trial,
the crowd a thousand platforms in six blocks; both are invented. Timed is what a user types,
`report --format html,md,pdf` in a process of its own. Then every stage is timed alone, in a process
that has its libraries loaded already. The load of the host is printed too: with other work on its
CPUs, times say little and CPU time more.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benches import ROOT
from harness.analysis.plots import count_processes, draw_figures, write_figures
from harness.analysis.report.fitting import fit_page
from harness.analysis.report.page import build_page
from harness.analysis.report.render import render_html, render_markdown
from harness.analysis.results import load_results
from harness.cli.printing import print_page
from harness.model import Measurement, Outcome
from harness.store import Store, write_samples
from harness.store.journal import encode_outcome
from harness.store.names import JOURNAL
from harness.units import format_bytes, format_seconds
from tests.unit.synthetic import Synthetic, build_manifest, build_outcomes

FULL = Synthetic(
    platforms=(
        "process", "namespace", "namespace/upper=tmpfs", "crun", "crun/upper=tmpfs", "runc",
        "gvisor", "podman", "docker", "vm-direct", "vm-direct/tuned", "vm-direct/disk=erofs",
        "vm-direct/disk=erofs/upper=tmpfs", "vm-microvm", "vm-microvm/tuned", "vm-disk",
        "vm-disk/uefi", "vm-disk/tuned", "vm-restore",
    ),
    workloads=("noop", "httpd", *(f"load-{number}" for number in range(8))),
    blocks=100,
)  # fmt: skip
"""Nineteen platforms and an A/A arm."""

CROWD = Synthetic(
    platforms=(
        "process",
        "namespace",
        *(f"{('crun', 'vm-direct')[number % 2]}/{number:03}" for number in range(998)),
    ),
    workloads=("noop",),
    blocks=6,
)

FIGURES = 50
"""Measurements of a trial of the full folder."""

FORMATS = ("html", "md", "pdf")
_FILLING = (
    "efficiency.throughput", "efficiency.latency_mean", "efficiency.latency_p50",
    "efficiency.latency_p95", "efficiency.latency_p99", "efficiency.latency_p999",
    "efficiency.duration", "efficiency.cpu", "efficiency.per_cpu_second", "efficiency.bandwidth",
    "efficiency.bytes_per_cpu_second", "memory.daemon", "disk.image_shared",
    "disk.instance_apparent", "disk.instance_shared", "portability.start_read",
    "portability.first_link", "portability.update_link", "portability.shared_base_link",
)  # fmt: skip


def write_folder(folder: Path, plan: Synthetic, figures: int = 0) -> int:
    """Write a result folder of ``plan``, at least ``figures`` of each trial; how many samples.

    The journal is written at once: a run would wait for the disk after every trial.
    """
    with Store.create(folder, build_manifest(plan)):
        pass
    samples = 0
    with (folder / JOURNAL).open("ab") as journal:
        for outcome in _fill(build_outcomes(plan), figures):
            journal.write(encode_outcome(outcome))
            samples += 0 if outcome.warmup else len(outcome.measurements)
    write_samples(folder)
    return samples


def _fill(outcomes: Iterator[Outcome], figures: int) -> Iterator[Outcome]:
    chance = random.Random(2)
    for outcome in outcomes:
        missing = _FILLING[: max(0, figures - len(outcome.measurements))]
        extra = tuple(Measurement(name, chance.lognormvariate(0, 0.05)) for name in missing)
        yield replace(outcome, measurements=outcome.measurements + extra)


def measure_report(folder: Path) -> Mapping[str, float]:
    """``seconds``, ``cpu_seconds``, ``peak_bytes`` and each format's size in bytes.

    CPU time (of all processes) and memory (of the largest) are without the browser's, whose own
    processes nobody waits for.
    """
    words = [sys.executable, "-m", "harness", "report", str(folder), "--format", ",".join(FORMATS)]
    begin = time.perf_counter()
    child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, words)
    sizes = {name: float((folder / f"report.{name}").stat().st_size) for name in FORMATS}
    return {
        "seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024.0, **sizes,
    }  # fmt: skip


def measure_stages(folder: Path) -> Mapping[str, float]:
    """Seconds of each stage of a report, in the order that they follow each other."""
    found: dict[str, float] = {}
    with _time(found, "read and summarise"):
        results = load_results(folder)
    with _time(found, "draw figures"):
        drawings = draw_figures(results, count_processes(results))
        write_figures(results, drawings)
    with _time(found, "tables and sentences"):
        page = fit_page(build_page(results, drawings)).page
    with _time(found, "HTML"):
        html = render_html(page)
    with _time(found, "Markdown"):
        render_markdown(page)
    source = folder / "stage.html"
    source.write_text(html, "utf-8")
    with _time(found, "PDF"):
        print_page(source, folder / "stage.pdf")
    return found


@contextmanager
def _time(found: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    found[name] = time.perf_counter() - begin


def measure(name: str, plan: Synthetic, figures: int, limit: str) -> list[tuple[str, str, str]]:
    """Rows of what was measured: name, value, limit."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "run")
        samples = write_folder(folder, plan, figures)
        load = os.getloadavg()[0]
        whole, stages = measure_report(folder), measure_stages(folder)
    rows = [
        (f"{name}: {samples} samples to {', '.join(FORMATS)}", format_seconds(whole["seconds"]),
         limit),
        ("  its CPU time, without the browser's", format_seconds(whole["cpu_seconds"]), ""),
        ("  its peak memory, without the browser's", format_bytes(whole["peak_bytes"]), ""),
        ("  load of the host before and after", f"{load:.1f}, {os.getloadavg()[0]:.1f}", ""),
    ]  # fmt: skip
    rows += [(f"  {each}", format_seconds(seconds), "") for each, seconds in stages.items()]
    limits = {"html": "under 3 MB"}
    return rows + [
        (f"  report.{each}", format_bytes(whole[each]), limits.get(each, "")) for each in FORMATS
    ]


def main() -> None:
    rows = measure("the full folder", FULL, FIGURES, "under 30 s")
    rows += measure("a thousand platforms", CROWD, 0, "under 60 s")
    width = max(len(name) for name, _, _ in rows)
    for name, value, limit in rows:
        print(f"{name:{width}}  {value:>9}  {limit}")


if __name__ == "__main__":
    main()
