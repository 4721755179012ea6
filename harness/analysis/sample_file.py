"""samples.parquet as an Arrow table that holds what it should, or one clear error."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError
from harness.model import SAMPLE_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

_AGAIN = "remove it and render again: it is made anew from the journal"
_FLAGS = ("warmup",)
_LISTS = ("marks",)
_INSTANTS = ("started_at",)
_NUMBERS = ("value",)
_INTEGERS = ("block", "trial", "order", "instances")


def read_sample_file(path: Path) -> "pa.Table":
    """The measured samples: the columns of METRICS, warm-up left out, marks joined by spaces.

    Raises InputError where the file cannot be read, lacks a column, has one of another type or
    with gaps, or holds infinities: a number that is none must not turn into a median.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read: {reason}", hint=_AGAIN) from error
    _require_columns(table, path)
    table = table.filter(pc.invert(table["warmup"]))
    _require_numbers(table, path)
    joined = pc.binary_join(table["marks"], " ")
    return table.set_column(table.column_names.index("marks"), "marks", joined)


def _require_columns(table: "pa.Table", path: Path) -> None:
    for name in SAMPLE_COLUMNS:
        if name not in table.column_names:
            raise InputError(f"{path} has no column {name}", hint=_AGAIN)
        column = table.column(name)
        if not _is_right(name, column.type):
            raise InputError(f"column {name} of {path} is of type {column.type}", hint=_AGAIN)
        if column.null_count:
            raise InputError(
                f"column {name} of {path} has {column.null_count} gaps; a missing value is no row",
                hint=_AGAIN,
            )


def _is_right(name: str, kind: "pa.DataType") -> bool:
    """Whether a column of ``kind`` can be read as what METRICS has under ``name``."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if name in _NUMBERS:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    if name in _INTEGERS:
        return bool(pa.types.is_integer(kind))
    if name in _FLAGS:
        return bool(pa.types.is_boolean(kind))
    if name in _INSTANTS:
        return bool(pa.types.is_timestamp(kind))
    if name in _LISTS:
        return bool(pa.types.is_list(kind) and pa.types.is_string(kind.value_type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _require_numbers(table: "pa.Table", path: Path) -> None:
    import pyarrow.compute as pc

    wrong = table.filter(pc.invert(pc.is_finite(table["value"])))
    if len(wrong):
        row = wrong.slice(0, 1).to_pylist()[0]
        raise InputError(
            f"{path} holds {len(wrong)} values that are no numbers; the first is {row['value']} "
            f"for {row['metric']} in trial {row['trial']} on {row['platform']}",
            hint=f"remove trial {row['trial']} from the journal and {path.name}, and render again",
        )
