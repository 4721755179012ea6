"""Timings that other tools wrote: the JSON of hyperfine and of pyperf, as plain data.

A timing is a name with one value for each start. hyperfine starts its command anew for every
value. A pyperf worker process takes many values one after the other, which are alike for reasons
of that process: the median of a process is one value here, so that n counts processes.
"""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from harness.errors import InputError

METRIC = "timing"
"""What a value of another tool is called; it is none of the metrics, and never averaged with one.
"""

Tool = Literal["hyperfine", "pyperf"]
Unit = Literal["s", "B", "count"]

CLOCKS: Mapping[str, str] = {
    "hyperfine": "wall clock from starting the command until it has ended, less the start of a "
    "shell where it used one",
    "pyperf": "what the benchmark itself spans, by `perf_counter`, for one loop",
}
"""What the clock of each tool spans."""

SPANS: Mapping[str, str] = {"hyperfine": "the whole command", "pyperf": "one loop inside"}
"""The same in a few words."""

_UNITS: Mapping[str, Unit] = {"second": "s", "byte": "B", "integer": "count"}
_FACTS = {"hostname": "host", "cpu_model_name": "cpu", "cpu_count": "cpus"}
_HINT = "bring in what `hyperfine --export-json` or `pyperf -o` wrote"


@dataclass(frozen=True, slots=True)
class Timing:
    """One benchmark: its name, unit, one value a start, and how many of the starts failed."""

    name: str
    unit: Unit
    values: tuple[float, ...]
    failures: int = 0


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file of another tool. ``facts`` are the host's, by dimension, as far as it stores them."""

    path: Path
    tool: Tool
    timings: tuple[Timing, ...]
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def clock(self) -> str:
        return CLOCKS[self.tool]


class _Result(msgspec.Struct):
    command: str
    times: list[float] | None = None
    exit_codes: list[int | None] | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


def read_foreign(path: Path) -> ForeignFile:
    """Read a file of hyperfine or pyperf; two benchmarks of one name get a number each.

    Raises InputError where it cannot be read, is no JSON, of another shape, or has a benchmark
    without values or with a value that is no time.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint=_HINT) from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no JSON", hint=_HINT) from None
    if isinstance(document, dict) and "results" in document:
        return _parse_hyperfine(path, document)
    if isinstance(document, dict) and "benchmarks" in document:
        return _parse_pyperf(path, data)
    raise InputError(f"{path} is neither of hyperfine nor of pyperf", hint=_HINT)


def _parse_hyperfine(path: Path, document: Mapping[str, object]) -> ForeignFile:
    try:
        found = msgspec.convert(document, _Results)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} is not of hyperfine: {error}", hint=_HINT) from None
    timings = [
        Timing(
            _clean(each.command),
            "s",
            tuple(each.times or ()),
            sum(code != 0 for code in each.exit_codes or ()),
        )
        for each in found.results
    ]
    return ForeignFile(path, "hyperfine", _require_timings(path, timings))


def _parse_pyperf(path: Path, data: bytes) -> ForeignFile:
    import pyperf

    try:
        suite = pyperf.BenchmarkSuite.loads(data.decode())
        timings = [_parse_benchmark(path, each) for each in suite.get_benchmarks()]
        metadata = suite.get_metadata()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # pyperf lets through whatever its parser stumbles over.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is not of pyperf: {reason}", hint=_HINT) from None
    facts = {name: str(metadata[key]) for key, name in _FACTS.items() if key in metadata}
    return ForeignFile(path, "pyperf", _require_timings(path, timings), facts)


def _parse_benchmark(path: Path, benchmark: object) -> Timing:
    import pyperf

    assert isinstance(benchmark, pyperf.Benchmark)
    name, unit = _clean(str(benchmark.get_name())), str(benchmark.get_unit())
    if unit not in _UNITS:
        raise InputError(f"{path}: {name!r} is in {unit}", hint=f"known are {', '.join(_UNITS)}")
    values = [statistics.median(run.values) for run in benchmark.get_runs() if run.values]
    return Timing(name, _UNITS[unit], tuple(map(float, values)))


def _clean(name: str) -> str:
    """A name on one line without control characters, which a terminal would obey."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    return " ".join(shown.split()) or "?"


def _require_timings(path: Path, timings: Sequence[Timing]) -> tuple[Timing, ...]:
    if not timings:
        raise InputError(f"{path} holds no benchmark", hint=_HINT)
    for timing in timings:
        if not timing.values:
            raise InputError(f"{path}: {timing.name!r} has no times", hint=_HINT)
        for value in timing.values:
            if not math.isfinite(value) or value < 0:
                raise InputError(
                    f"{path}: {timing.name!r} holds {value}, which is no time", hint=_HINT
                )
    return _number(timings)


def _number(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """Timings of one name are told apart by a number, in their order."""
    many = {name for name, count in Counter(each.name for each in timings).items() if count > 1}
    seen: Counter[str] = Counter()
    found = []
    for timing in timings:
        seen[timing.name] += 1
        numbered = f"{timing.name} ({seen[timing.name]})"
        found.append(replace(timing, name=numbered) if timing.name in many else timing)
    return tuple(found)
