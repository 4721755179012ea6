"""Figures read from what the tools really print, and workload files that state them wrongly."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import HostError, InputError, TrialError
from harness.figures import Figure, find_in_csv, find_in_json, read_figures
from harness.load import Load, build_load, require_generators, run_load
from harness.plan import build_document, parse_document
from harness.plan_file import read_plan
from harness.probes.efficiency import Span, build_rows
from harness.workloads import Workload, list_workloads, parse_workload, read_workload

TOOLS = Path(__file__).parents[1] / "golden" / "tools"
NEEDED = {"name": "mine", "image": "tiny", "command": ["true"], "ready": "exit"}
FIGURE = {"name": "throughput", "unit": "1/s", "regex": "did (.+) a second"}

PRINTED: Mapping[str, Mapping[str, float]] = {
    "sysbench-cpu": {"throughput": 3727.60, "latency_p99": 1.61e-3, "duration": 1.0003},
    "sysbench-memory": {"bandwidth": 28861.98 * 2**20, "latency_p99": 1e-4, "duration": 1.0002},
    "openssl-speed": {"bandwidth": 4393877504.0, "duration": 2.0},
    "python-bench": {"throughput": 1655.8477151238021, "latency_p50": 0.0004762600001413375,
                     "latency_p99": 0.004502078998484649, "duration": 1.0025076490055653},
    "stress-syscall": {"throughput": 4225.017433, "duration": 1.002363},
    "fio-randwrite-buffered": {"throughput": 3027.972028, "bandwidth": 12402573.0,
                               "latency_p50": 177152e-9, "latency_p99": 2023424e-9,
                               "duration": 1.001},
    "iperf3": {"bandwidth": 15609960421.996258 / 8, "duration": 2.002577},
    "nginx": {"throughput": 37902.97, "latency_p50": 393e-6, "latency_p99": 2.07e-3,
              "duration": 2.0},
    "redis": {"throughput": 56053.81, "latency_p50": 175e-6, "latency_p95": 319e-6,
              "latency_p99": 511e-6},
    "redis-ping": {"throughput": 40322.58, "latency_p50": 23e-6, "latency_p95": 31e-6,
                   "latency_p99": 87e-6},
    "postgres": {"throughput": 2208.179168, "latency_mean": 1.811e-3, "duration": 3.0},
}  # fmt: skip
"""What stands in tests/golden/tools, read by eye."""


@pytest.mark.parametrize("name", PRINTED)
def test_the_figures_of_a_workload_are_what_its_tool_printed(name: str) -> None:
    workload = read_workload(name, folder=Path(), timeout=60)
    text = (TOOLS / f"{name}.txt").read_text()
    streams = ("output", "errors", "load", "load-errors")
    found = read_figures(workload.figures, dict.fromkeys(streams, text))
    values = {metric.removeprefix("efficiency."): value for (metric, _), value in found.items()}
    assert values == pytest.approx(PRINTED[name])


def test_every_workload_with_a_load_or_figures_is_whole() -> None:
    found = [read_workload(name, folder=Path(), timeout=60) for name in list_workloads()]
    working = [each for each in found if each.figures]
    assert len(working) >= 19
    assert all("process" in each.skip for each in working if each.load)
    assert not [each.name for each in found if each.load and not each.figures]


# ---- what a figure is read from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pointer", "value"),
    [("/a/0/b", "1.5"), ("/x~1y", "2"), ("/99.000000", "3"), ("/m~0n", "4"), ("/text", "5")],
)
def test_a_json_pointer_leads_past_words_around_the_json(pointer: str, value: str) -> None:
    text = """note: [not json
    [1] warming up
    {"later": true}
    {"a": [{"b": 1.5}], "x/y": 2, "99.000000": 3, "m~n": 4, "text": "5"}
    done"""
    assert find_in_json(text, pointer) == value


@pytest.mark.parametrize(
    ("row", "column", "value"), [("SET", "rps", "12"), ("", "rps", "11"), ("SET", "p99", "0.5")]
)
def test_a_cell_of_csv_is_found_by_row_and_column(row: str, column: str, value: str) -> None:
    text = 'warning\n"test","rps","p99"\n"GET","11","0.4"\n"SET","12","0.5"\n'
    assert find_in_csv(text, row, column) == value


def figure(unit: str = "1/s", metric: str = "throughput", **where: str) -> Figure:
    return Figure(f"efficiency.{metric}", unit, **where)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "text", "value"),
    [
        (figure(regex="([0-9]+) ops"), "1 ops\n7 ops", 7.0),
        (figure("ms", regex="mean ([0-9]+)"), "mean 20", 50.0),
        (figure("1/min", regex="([0-9]+)"), "120", 2.0),
        (figure("Mbit/s", "bandwidth", regex="([0-9]+)"), "8", 1e6),
        (figure("KiB/s", "bandwidth", regex="([0-9]+)"), "2", 2048.0),
        (figure("auto", "latency_p99", regex="([0-9.]+)(us|ms)"), "1.5ms", 1.5e-3),
    ],
)
def test_units_become_those_of_the_metric(asked: Figure, text: str, value: float) -> None:
    ((_, found),) = read_figures([asked], {"output": text}).items()
    assert found == pytest.approx(value)


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        (figure(json="/rate"), "", "there is nothing"),
        (figure(json="/rate"), "no json here", "it is no JSON"),
        (figure(json="/rate"), '{"rate": ', "it is no JSON"),
        (figure(json="/rate/x"), '{"rate": 1}', "its JSON has nothing at '/rate/x'"),
        (figure(json="/l/9"), '{"l": [1]}', "its JSON has nothing at '/l/9'"),
        (figure(json="/rate"), '{"rate": null}', "its JSON has no number at '/rate'"),
        (figure(json="/rate"), '{"rate": true}', "its JSON has no number at '/rate'"),
        (figure(json="/rate"), '{"rate": NaN}', "'nan' is no figure"),
        (figure(json="/rate"), '{"rate": "fast"}', "'fast' is no number"),
        (figure(json="/rate"), '{"rate": -1}', "'-1' is no figure"),
        (figure(json="/a"), "[" * 100_000, "it is no JSON"),
        (figure("ms", json="/t"), '{"t": 0}', "no time at all is no rate"),
        (figure("ns", json="/t"), '{"t": 1e-320}', "no time at all is no rate"),
        (figure(json="/rate"), '[1]\n{"a": {"rate": 1}}', "its JSON has nothing at '/rate'"),
        (figure(regex="did (.+)"), "nothing", "nothing matches 'did (.+)'"),
        (figure("auto", regex="(.+) (.+)"), "7 sheep", "'sheep' is no unit of it"),
        (figure("auto", "latency_p99", regex="(.+) (.+)"), "7 sheep", "'sheep' is no unit of it"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_figure(
    asked: Figure, text: str, reason: str
) -> None:
    with pytest.raises(TrialError) as caught:
        read_figures([asked], {"output": text})
    name = asked.metric.removeprefix("efficiency.").replace("_", " ")
    assert caught.value.message == (
        f"the figure {name} cannot be read from what the workload printed: {reason}"
    )


# ---- workload files that state it wrongly ------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"figures": [{**FIGURE, "name": "troughput"}]}, "did you mean 'throughput'?"),
        ({"figures": [{**FIGURE, "name": "per_cpu_second"}]}, "'per_cpu_second' of number 1"),
        ({"figures": [{**FIGURE, "unit": "hours"}]}, "unit of number 1: 'hours' is none of 1/s"),
        ({"figures": [{**FIGURE, "regex": "did (.+"}]}, "is no regular expression: missing )"),
        ({"figures": [{**FIGURE, "regex": "did"}]}, "'did' has no group around the number"),
        ({"figures": [{**FIGURE, "unit": "auto"}]}, "and one around its unit"),
        ({"figures": [{**FIGURE, "json": "/a"}]}, "not json and regex"),
        ({"figures": [{"name": "throughput", "unit": "1/s"}]}, "not nothing"),
        ({"figures": [{"name": "throughput", "unit": "1/s", "json": "a.b"}]}, "no JSON pointer"),
        ({"figures": [{"name": "throughput", "unit": "1/s", "csv": ["a"]}]}, "a column's name"),
        ({"figures": [{"name": "throughput", "unit": "auto", "json": "/a"}]}, "of a regex"),
        ({"figures": [FIGURE, FIGURE]}, "number 2 is another throughput"),
        ({"figures": [{**FIGURE, "stream": "load"}]}, "there is no `load` that could print it"),
        ({"figures": [{**FIGURE, "stream": "both"}]}, "key 'figures': invalid enum value 'both'"),
        ({"figures": [{**FIGURE, "regexp": "x"}]}, "unknown field `regexp`"),
        ({"load": ["wrk"]}, 'with ready = "exit" the workload has ended'),
        ({"load": ["wrk"], "ready": "tcp:80"}, "there are no `figures`"),
        ({"load": ["a", "{port}"], "ready": "output:up"}, "and there is none"),
        ({"load": [""], "ready": "tcp:80"}, "the command is empty"),
        ({"load": ["wrk"], "load_threads": 0}, "key 'load_threads'"),
        ({"brings": ["pressure-disk"]}, "did you mean 'pressure-io'?"),
    ],
)
def test_a_wrong_workload_file_is_one_line_that_names_the_key(
    keys: Mapping[str, object], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse_workload({**NEEDED, **keys}, "mine.toml", 60)
    line = str(caught.value)
    assert line.startswith("mine.toml: key ") and "\n" not in line
    assert said in line


def test_a_plan_with_figures_comes_back_from_its_manifest() -> None:
    plan = read_plan(None, {"workloads": ["redis", "fio-read-direct"]}, new_seed=1)
    assert parse_document(build_document(plan)) == plan


# ---- the load generator ------------------------------------------------------------------------


def build_workload(*load: str, timeout: float = 10, threads: int = 1) -> Workload:
    return Workload(
        "mine", "tiny", ("true",), "tcp:80", timeout, load=load, load_threads=threads,
        figures=(figure(regex="(.+)"),),
    )  # fmt: skip


def test_address_and_port_are_filled_in_and_nothing_else() -> None:
    workload = build_workload("wrk", "http://{address}:{port}/{x}", "{}")
    assert build_load(workload, "10.1.2.3") == ("wrk", "http://10.1.2.3:80/{x}", "{}")


def test_a_generator_that_burns_and_one_that_sleeps_are_told_apart(tmp_path: Path) -> None:
    burning = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo 7"
    busy = run_load(build_workload("sh", "-c", burning), "127.0.0.1", tmp_path)
    idle = run_load(build_workload("sh", "-c", "sleep 0.3; echo 7"), "127.0.0.1", tmp_path)
    assert busy.printed == idle.printed == {"load": "7\n", "load-errors": ""}
    assert busy.cpu > 5 * idle.cpu and idle.share < 0.5
    assert idle.seconds >= 0.3


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (("sh", "-c", "echo refused >&2; exit 3"), "sh ended with 3: refused"),
        (("sh", "-c", "kill -9 $$"), "sh was ended by signal 9: it printed nothing"),
        (("sleep", "60"), "sleep did not end within 0.2 s"),
        (("/no/such/generator",), "/no/such/generator is not installed"),
        (("/etc/passwd",), "/etc/passwd cannot be started: Permission denied"),
    ],
)
def test_a_generator_that_fails_fails_the_trial(
    load: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(TrialError) as caught:
        run_load(build_workload(*load, timeout=0.2), "127.0.0.1", tmp_path)
    assert caught.value.message.startswith("the load generator ")
    assert caught.value.message.endswith(reason)


def test_a_generator_that_is_not_there_is_named_before_anything_is_built() -> None:
    require_generators([build_workload("sh"), build_workload()])
    with pytest.raises(HostError) as caught:
        require_generators([build_workload("wrkk")])
    assert caught.value.message == (
        "mine cannot be loaded: its load generator wrkk is not installed"
    )
    assert caught.value.exit_code == 3


def test_the_share_is_of_the_threads_that_the_generator_has() -> None:
    assert Load((), {}, seconds=2.0, cpu=1.9, cpus=1).share == pytest.approx(0.95)
    assert Load((), {}, seconds=2.0, cpu=1.9, cpus=2).share == pytest.approx(0.475)


# ---- rows ----------------------------------------------------------------------------------------

THROUGHPUT, DURATION = "efficiency.throughput", "efficiency.duration"


def rows_of(found: Mapping[tuple[str, str], float], span: Span) -> dict[tuple[str, str], float]:
    return {(row.metric, row.phase): row.value for row in build_rows(found, span)}


def test_work_per_cpu_second_is_what_was_done_over_what_was_used() -> None:
    rows = rows_of({(THROUGHPUT, ""): 100.0}, Span(2.0, 0.5))
    assert rows["efficiency.per_cpu_second", ""] == pytest.approx(400)
    assert (rows[DURATION, ""], rows["efficiency.cpu", ""]) == (2.0, 0.5)


def test_the_work_that_a_tool_did_is_counted_over_its_own_time() -> None:
    rows = rows_of({(THROUGHPUT, ""): 100.0, (DURATION, "tool"): 1.5}, Span(2.0, 0.5))
    assert rows["efficiency.per_cpu_second", ""] == pytest.approx(300)


@pytest.mark.parametrize("cpu", [None, 0.0])
def test_without_an_account_there_is_no_work_per_cpu_second(cpu: float | None) -> None:
    rows = rows_of({(THROUGHPUT, ""): 100.0}, Span(2.0, cpu))
    assert set(rows) == {(THROUGHPUT, ""), (DURATION, "")}


def test_two_things_one_after_the_other_share_no_account() -> None:
    rows = rows_of({(THROUGHPUT, "get"): 9.0, (THROUGHPUT, "set"): 8.0}, Span(2.0, 0.5))
    assert not [each for each in rows if each[0] == "efficiency.per_cpu_second"]
