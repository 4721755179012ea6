"""Print data: aligned columns for people, JSON for scripts. stdout is data, stderr is talk."""

import contextlib
import errno
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from harness.errors import HostError


def print_json(value: object) -> None:
    """One JSON document on stdout; paths become strings."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Rows with the same keys, as a table with a head or as JSON."""
    if as_json:
        print_json(rows)
    elif rows:
        head = [str(key) for key in rows[0]]
        click.echo(format_columns([head, *([_format(v) for v in row.values()] for row in rows)]))


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one is left as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def format_tree(value: object, indent: str = "") -> str:
    """JSON types as an indented outline; texts of many lines (domain XML) keep their lines."""
    if isinstance(value, Mapping):
        return "\n".join(_format_branch(str(key), each, indent) for key, each in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(_format_item(each, indent) for each in value)
    return "\n".join(f"{indent}{line}" for line in str(value).splitlines())


def _format_item(value: object, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}- {format_tree(value, indent + '  ').lstrip()}"
    return f"{indent}- {value}"


def _format_branch(key: str, value: object, indent: str) -> str:
    nested = isinstance(value, Mapping | list | tuple) or "\n" in str(value)
    if nested and value:
        return f"{indent}{key}:\n{format_tree(value, indent + '  ')}"
    return f"{indent}{key}: {'–' if value is None or nested else value}"


def say(text: str) -> None:
    """A line for the person who waits."""
    click.echo(text, err=True)


def shorten_path(path: Path) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def is_watched() -> bool:
    """Whether a person watches stderr, for whom a bar may move."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _format(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


@contextlib.contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """While a run's report is written: a disk that gets full is named, with what helps. The trials
    are in the journal, so that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        shown = shorten_path(folder)
        raise HostError(
            f"the report of {shown} cannot be written: {error.strerror}; its trials are kept",
            hint=f"free some space, then: python -m harness report {shlex.quote(shown)}",
        ) from error
