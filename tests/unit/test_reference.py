"""docs/reference.md against the code, in both directions: its tables are the code's tables.

`pytest tests/unit/test_reference.py --update-golden` writes the tables anew.
"""

import re
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec
import pytest

from harness.analysis.claim_list import Claim
from harness.certificate import DIMENSIONS
from harness.cli import harness
from harness.drivers import PLATFORMS, load_driver
from harness.drivers.base import Toolbox
from harness.inputs import find_meta, format_toml
from harness.marks import MARKS
from harness.metrics import METRICS, PHASE_WORDS
from harness.plan_file import PlanKeys, VariantKeys
from harness.workloads import FigureKeys, WorkloadKeys, list_workloads, read_workload

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
TOML_WORDS = {int: "integer", str: "string", bool: "boolean"}


def build_plan_table() -> str:
    return build_keys_table(PlanKeys)


def build_variant_table() -> str:
    return build_keys_table(VariantKeys)


def build_workload_table() -> str:
    return build_keys_table(WorkloadKeys)


def build_figure_table() -> str:
    return build_keys_table(FigureKeys)


def build_claim_table() -> str:
    return build_keys_table(Claim)


def build_keys_table(kind: type[msgspec.Struct]) -> str:
    hints = typing.get_type_hints(kind)
    rows = [
        (
            f"`{each.name}`",
            format_type(hints[each.name]),
            format_default(each),
            describe(kind, each),
        )
        for each in msgspec.structs.fields(kind)
    ]
    return build_table(("key", "type", "default", "meaning"), rows)


def describe(kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    meta = find_meta(kind, field.name)
    bounds = [f"{meta.ge} or more"] if meta.ge is not None else []
    bounds += [f"at most {meta.le}"] if meta.le is not None else []
    return "; ".join([meta.description or "", *([", ".join(bounds)] if bounds else [])])


def format_type(hint: object) -> str:
    """A Python type in the words of TOML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{word}`" for word in arguments)
    if origin in (typing.Union, types.UnionType):
        return format_type(arguments[0])
    if origin is tuple:
        return f"array of {format_type(arguments[0])}s"
    if origin is dict:
        return f"table of {format_type(arguments[1])}s"
    assert isinstance(hint, type)
    if issubclass(hint, msgspec.Struct):
        return "table"
    return TOML_WORDS[hint]


def format_default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "needed"
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        assert callable(field.default_factory)
        default = field.default_factory()
    if default in (None, msgspec.UNSET, "", (), {}):
        return "–"
    return f"`{format_toml(list(default) if isinstance(default, tuple) else default)}`"


def build_commands_table() -> str:
    rows = []
    for path, command in walk_commands(harness, ()):
        rows.append((f"`{' '.join(path)}`", first_sentence(command)))
        for each in command.params:
            if isinstance(each, click.Option):
                name = " ".join([*each.opts, *([each.metavar] if each.metavar else [])])
                rows.append((f"`{' '.join(find_words(path))} {name}`", each.help or ""))
    return build_table(("command or option", "what it does"), rows)


def walk_commands(
    group: click.Group, path: tuple[str, ...]
) -> Sequence[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in sorted(group.commands.items()):
        words = (*path, name)
        if isinstance(command, click.Group):
            found += walk_commands(command, words)
        else:
            arguments = [each for each in command.params if isinstance(each, click.Argument)]
            found.append(((*words, *(each.make_metavar(context()) for each in arguments)), command))
    return found


def find_words(path: Sequence[str]) -> list[str]:
    """A command without its arguments."""
    return [word for word in path if re.fullmatch("[a-z]+", word)]


def context() -> click.Context:
    return click.Context(harness)


def first_sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def build_platforms_table() -> str:
    drivers = [load_driver(name, Toolbox(starter=Path("starter"))) for name in PLATFORMS]
    rows = [
        (f"`{each.name}`", each.kind, " ".join((type(each).__doc__ or "").split("\n\n")[0].split()))
        for each in drivers
    ]
    return build_table(("platform", "kind", "what it is"), rows)


def build_workloads_table() -> str:
    found = [read_workload(name, folder=Path(), timeout=60) for name in list_workloads()]
    rows = [(f"`{each.name}`", f"`{each.image}`", each.description) for each in found]
    return build_table(("workload", "image", "what it does"), rows)


def build_metrics_table() -> str:
    better = {True: "less", False: "more", None: "–"}
    rows = [
        (f"`{each.name}`", each.unit, better[each.lower_is_better], each.definition, each.method)
        for each in METRICS.values()
    ]
    return build_table(("metric", "unit", "better", "what it is", "how it is got"), rows)


def build_phases_table() -> str:
    rows = [
        (f"`{name}`", f"`{where}`" if where else "–", words) for name, where, words in PHASE_WORDS
    ]
    return build_table(("phase", "where", "what happens"), rows)


def build_marks_table() -> str:
    rows = [(f"`{each.name}`", each.meaning, each.remedy) for each in MARKS.values()]
    return build_table(("mark", "what it says", "what mends it"), rows)


def build_dimensions_table() -> str:
    rows = [(f"`{name}`", f"{meaning[0].upper()}{meaning[1:]}") for name, meaning in
            DIMENSIONS.items()]  # fmt: skip
    return build_table(("dimension", "what it is"), rows)


def build_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


TABLES: dict[str, Callable[[], str]] = {
    "plan": build_plan_table,
    "variant": build_variant_table,
    "workload": build_workload_table,
    "figure": build_figure_table,
    "claim": build_claim_table,
    "commands": build_commands_table,
    "platforms": build_platforms_table,
    "workloads": build_workloads_table,
    "metrics": build_metrics_table,
    "phases": build_phases_table,
    "marks": build_marks_table,
    "dimensions": build_dimensions_table,
}


def find_table(name: str) -> re.Match[str]:
    pattern = rf"(?<=<!-- table: {name} -->\n).*?(?=<!-- end -->)"
    found = re.search(pattern, PAGE.read_text(), re.DOTALL)
    assert found, f"{PAGE} has no place for the table {name!r}"
    return found


@pytest.mark.parametrize("name", TABLES)
def test_the_reference_page_says_what_the_code_says(name: str, update_golden: bool) -> None:
    expected = TABLES[name]() + "\n"
    if update_golden:
        found, text = find_table(name), PAGE.read_text()
        PAGE.write_text(text[: found.start()] + expected + text[found.end() :])
    assert find_table(name)[0] == expected


def test_every_table_of_the_page_is_held_against_the_code() -> None:
    assert set(re.findall(r"<!-- table: (\S+) -->", PAGE.read_text())) == set(TABLES)


@pytest.mark.parametrize("kind", [PlanKeys, WorkloadKeys, FigureKeys, Claim])
def test_every_key_has_a_description_and_an_example_for_its_errors(
    kind: type[msgspec.Struct],
) -> None:
    for field in msgspec.structs.fields(kind):
        meta = find_meta(kind, field.name)
        assert meta.description, field.name
        assert meta.examples, field.name


def test_every_option_has_a_help_text() -> None:
    for path, command in walk_commands(harness, ()):
        for option in (each for each in command.params if isinstance(each, click.Option)):
            assert option.help, f"{' '.join(path)} {option.name}"
