"""A result folder: its manifest, and the journal that a run appends to.

``manifest.json`` is one JSON object; ``schema_version`` and ``run_id`` are always there, all else
is optional to readers. It is always replaced whole.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import InputError
from harness.model import SCHEMA_VERSION, Outcome
from harness.store.journal import Journal, read_journal, require_schema
from harness.store.names import JOURNAL, MANIFEST, write_atomically


@dataclass(slots=True)
class Store:
    """A result folder open for writing; a context manager that closes its journal."""

    folder: Path
    manifest: Mapping[str, object]
    journal: Journal

    @classmethod
    def create(cls, folder: Path, manifest: Mapping[str, object]) -> Self:
        """Make a new result folder. ``manifest`` needs a ``run_id``.

        Raises InputError where the folder already holds a run.
        """
        if (folder / MANIFEST).exists() or (folder / JOURNAL).exists():
            raise InputError(
                f"{folder} already holds a run",
                hint=f"go on with --resume {shlex.quote(str(folder))}, or name another",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made: {error.strerror}") from error
        whole = write_manifest(folder, manifest)
        return cls(folder, whole, Journal(folder / JOURNAL, str(whole["run_id"])))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing result folder to go on with it; a torn last line is cut off first."""
        manifest = read_manifest(folder)
        if (folder / JOURNAL).exists():
            read_journal(folder / JOURNAL)  # damage is an error before anything is appended
        return cls(folder, manifest, Journal(folder / JOURNAL, str(manifest["run_id"])))

    def append(self, *outcomes: Outcome) -> None:
        """Record finished trials together; returns when they are on the disk."""
        self.journal.append(*outcomes)

    def drop_last(self, count: int) -> None:
        """Take the last ``count`` trials away again, to begin anew what they are a part of."""
        self.journal.drop_last(count)

    def read_outcomes(self) -> list[Outcome]:
        """Every trial recorded so far."""
        return read_journal(self.folder / JOURNAL)

    def update_manifest(self, changes: Mapping[str, object]) -> None:
        """Replace the manifest by itself with ``changes`` (what is known only after the run)."""
        self.manifest = write_manifest(self.folder, {**self.manifest, **changes})

    def close(self) -> None:
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_manifest(folder: Path, manifest: Mapping[str, object]) -> dict[str, object]:
    """Write ``manifest.json`` whole, with the schema version; returns what was written."""
    if not manifest.get("run_id"):
        raise InputError("a manifest needs a run_id")
    whole = {"schema_version": SCHEMA_VERSION, **manifest}
    text = json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(folder / MANIFEST, text.encode("utf-8", "replace"))
    return whole


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest of a result folder.

    Raises InputError where it is missing, damaged or of another schema version.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", hint="name a result folder of `run`"
        ) from error
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document:
        raise InputError(f"{path} is damaged, not a JSON object")
    require_schema(document, path)
    if not document.get("run_id"):
        raise InputError(f"{path} has no run_id")
    return document
