"""Read TOML that users write: whatever is wrong with it becomes one line with the remedy.

The structs of ``harness.plan`` and ``harness.workloads`` carry bounds, description and example of
each key (``msgspec.Meta``); errors and the reference page speak from them.
"""

import json
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import msgspec

from harness.errors import InputError

T = TypeVar("T", bound=msgspec.Struct)

_TOML_WORDS = {
    "int": "an integer",
    "float": "a float",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "a table",
    "null": "nothing",
}
_AT = re.compile(r"(?P<reason>.*?)(?: - at `\$\.(?P<key>[^.\[`]+)(?P<inside>[^`]*)`)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a key's value was written: in a file, or by an option of the command line."""

    file: str
    option: str | None = None

    def name(self, key: str) -> str:
        return self.option or f"{self.file}: key {key!r}"

    def show(self, key: str, example: object) -> str:
        """How ``key`` is written here, by an example."""
        if self.option is None:
            return f"{key} = {format_toml(example)}"
        first = example[0] if isinstance(example, list) else example
        return f"{self.option} {first}"


def format_toml(value: object) -> str:
    """A string, number, list or flat table as TOML writes it."""
    if isinstance(value, dict):
        pairs = (f"{key} = {json.dumps(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value)


def read_toml(path: Path) -> dict[str, object]:
    """The keys of a TOML file; raises InputError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file", hint="check the path") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="name a readable file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not text in UTF-8", hint="name a TOML file") from None
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond all bounds
        raise InputError(f"{path}: not valid TOML: {error}", hint="see https://toml.io") from None


def convert_keys(
    document: Mapping[str, object], kind: type[T], origins: Mapping[str, Origin], file: str
) -> T:
    """``document`` as a struct of ``kind``; raises InputError that names place, key and remedy.

    ``origins`` says where a key was written if not in ``file``.
    """
    known = [field.name for field in msgspec.structs.fields(kind)]
    for key in document:
        if key not in known:
            raise InputError(f"{file}: unknown key {key!r}", hint=suggest(key, known, "keys"))
    try:
        return msgspec.convert(dict(document), kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), kind, origins, file) from None


def _explain(
    text: str, kind: type[msgspec.Struct], origins: Mapping[str, Origin], file: str
) -> InputError:
    """msgspec's sentence in the words of TOML, with the place and an example."""
    match = _AT.fullmatch(text)
    key, reason = (match["key"], match["reason"]) if match else (None, text)
    if key is None:
        missing = re.search("required field `(.*?)`", reason)
        key, reason = (missing[1], "is missing") if missing else ("", reason)
    inside = " inside it" if match and match["inside"] else ""
    for word, toml in _TOML_WORDS.items():
        reason = reason.replace(f"`{word}`", toml)
    reason = reason.replace("Expected ", "expected ").replace("Invalid ", "invalid ")
    origin = origins.get(key, Origin(file))
    return InputError(
        f"{origin.name(key)}: {reason}{inside}", hint=f"write {format_example(kind, key, origin)}"
    )


def build_error(
    kind: type[msgspec.Struct], key: str, origin: Origin, reason: str, hint: str | None = None
) -> InputError:
    """An InputError about the value of ``key``; without ``hint`` the key's example is shown."""
    remedy = hint or f"write {format_example(kind, key, origin)}"
    return InputError(f"{origin.name(key)}: {reason}", hint=remedy)


def format_example(kind: type[msgspec.Struct], key: str, origin: Origin) -> str:
    examples = find_meta(kind, key).examples or ["…"]
    return origin.show(key, examples[0])


def find_meta(kind: type[msgspec.Struct], key: str) -> msgspec.Meta:
    """Description, bounds and example of one key; empty where the key has none."""
    hint = typing.get_type_hints(kind, include_extras=True).get(key)
    metas = (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, msgspec.Meta))
    return next(metas, msgspec.Meta())


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """The remedy for an unknown name: the nearest known one, else all of them."""
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"the {what} are {', '.join(names)}"
