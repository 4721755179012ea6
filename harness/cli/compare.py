"""`compare`: two results as a gate. Exit 0: no regression; 1: regression; 2: not comparable."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import format_columns, print_json
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.analysis.compare_sides import Side

REGRESSION = 1


@click.command(short_help="Is the new run worse than the old one? Exit 1 if it is.")
@click.argument("base", metavar="BASE", type=click.Path(path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@click.option(
    "--threshold", default="5%", show_default=True, metavar="5%",
    help="Changes below it do not matter.",
)  # fmt: skip
@click.option(
    "--allow", multiple=True, metavar="D,…",
    help="Dimensions that may differ: host, cpu, image, workload and others.",
)  # fmt: skip
@click.option("--relative-to", metavar="P", help="Compare ratios to this platform: `process`.")
@click.option("--all", "every", is_flag=True, help="Every metric and phase, not only headlines.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def compare(
    base: Path,
    new: Path,
    threshold: str,
    allow: tuple[str, ...],
    relative_to: str | None,
    every: bool,
    as_json: bool,
) -> int:
    """Say whether NEW is worse than BASE: exit 1 if it is, 0 if not, 2 if they cannot be compared.

    Both are result folders of `run`, or both JSON files of hyperfine or both of pyperf.
    """
    from harness.analysis.compare import compare_sides
    from harness.analysis.compare_result import Terms
    from harness.analysis.compare_text import build_document, build_rows, list_lines
    from harness.analysis.compare_traits import build_refusal, require_dimensions

    names = tuple(word.strip() for each in allow for word in each.split(",") if word.strip())
    terms = Terms(_parse_threshold(threshold), require_dimensions(names), relative_to, every)
    report = compare_sides(_load("BASE", base), _load("NEW", new), terms)
    if as_json:
        print_json(build_document(report))
    if report.refused:
        raise build_refusal(report.refused)
    if not as_json:
        click.echo(format_columns(build_rows(report)))
        click.echo("\n" + "\n".join(list_lines(report)))
    if report.verdict == "not comparable":
        raise InputError(
            f"not comparable: every comparison is withheld; {report.comparisons[0].withheld}",
            hint="measure again, with more blocks or less other load",
        )
    return REGRESSION if report.verdict == "regression" else 0


def _load(label: str, path: Path) -> "Side":
    from harness.analysis.compare_sides import build_foreign_side, load_side
    from harness.store.foreign import read_foreign

    return (
        build_foreign_side(label, read_foreign(path)) if path.is_file() else load_side(label, path)
    )


def _parse_threshold(text: str) -> float:
    """A share above 0 % and below 100 %."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = float("nan")
    if number == text.strip() or not 0 < share < 1:
        raise InputError(
            f"--threshold: {text!r} is no share above 0 % and below 100 %", hint="say it as 5%"
        )
    return share
