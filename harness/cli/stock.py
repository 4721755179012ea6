"""`images list` and `images prune`: what is shown of the cache."""

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.output import print_json, say
from harness.images.store import read_record
from harness.stock.decide import Verdict, Wish, decide, sum_left
from harness.stock.inventory import Item, list_items
from harness.stock.prune import carry_out, require_names
from harness.store.needs import read_needs
from harness.units import format_age, format_bytes

Found = Sequence[tuple[Item, Mapping[str, str]]]
_DIGITS = 12


def build_rows(found: Found) -> list[Mapping[str, object]]:
    """A row for each packing, for people; what is out of date stands in brackets."""
    now = time.time()
    return [
        {
            "image": f"({item.name})" if item.fault else item.name,
            "packing": packing.name,
            "apparent": format_bytes(packing.apparent),
            "allocated": format_bytes(packing.allocated),
            "virtual": None if packing.virtual is None else format_bytes(packing.virtual),
            "digest": _shorten(digests.get(packing.name)),
            "built": format_age(now - item.built),
            "used": format_age(now - item.used),
        }
        for item, digests in found
        for packing in item.packings
    ]


def build_plain_rows(found: Found) -> list[Mapping[str, object]]:
    """The same in full, for scripts: bytes, whole digests, UTC times, paths."""
    return [
        {
            "image": item.name,
            "kind": item.kind,
            "current": not item.fault,
            "fault": item.fault or None,
            "in_use": bool(item.busy),
            "image_digest": item.digest or None,
            "packing": packing.name,
            "digest": digests.get(packing.name),
            "apparent": packing.apparent,
            "allocated": packing.allocated,
            "virtual": packing.virtual,
            "built": _format_time(item.built),
            "used": _format_time(item.used),
            "path": packing.path,
            "config": _describe_config(item),
        }
        for item, digests in found
        for packing in item.packings
    ]


def _describe_config(item: Item) -> dict[str, object] | None:
    """How an imported image says it is run."""
    record = read_record(item.path) if item.kind == "image" else None
    return asdict(record.image.config) if record and record.image.config else None


def prune_stock(wish: Wish, folders: Sequence[Path], *, dry_run: bool, as_json: bool) -> None:
    """Remove what is to go, say it line by line, and what was kept and why."""
    needs = {} if wish.force else read_needs(folders)
    items = list_items()
    require_names(items, wish.names)
    verdicts = decide(items, wish, needs, time.time())
    done: list[Verdict] = []
    try:
        for verdict in verdicts if dry_run else carry_out(verdicts):
            done.append(verdict)
            if not as_json:
                _show(verdict, dry_run)
    finally:
        if as_json:
            print_json([_describe(each, dry_run) for each in done])
        elif done or not verdicts:
            for line in _sum_up(items, done, wish, dry_run):
                say(line)


def _show(verdict: Verdict, dry_run: bool) -> None:
    item = verdict.item
    line = f"{item.path} ({format_bytes(item.allocated)}): {verdict.why}"
    if verdict.goes:
        click.echo(f"{'would remove' if dry_run else 'removed'} {line}")
    else:
        say(f"kept {line}")


def _describe(verdict: Verdict, dry_run: bool) -> dict[str, object]:
    item = verdict.item
    return {
        "kind": item.kind,
        "name": item.name,
        "digest": item.digest or None,
        "path": item.path,
        "allocated": item.allocated,
        "removed": verdict.goes and not dry_run,
        "goes": verdict.goes,
        "why": verdict.why,
    }


def _sum_up(
    items: Sequence[Item], done: Sequence[Verdict], wish: Wish, dry_run: bool
) -> Iterator[str]:
    gone = [each.item for each in done if each.goes]
    left = sum_left(items, done)
    if not gone:
        yield "nothing else is to go" if done else "nothing is to go: all is up to date"
    else:
        freed = format_bytes(sum(each.allocated for each in gone))
        verb = "would be" if dry_run else "are"
        yield f"{freed} {verb} free again, {format_bytes(left)} {verb} left"
    if wish.until is not None and left > wish.until:
        yield f"more than {format_bytes(wish.until)}: the rest is needed or in use"


def _shorten(digest: str | None) -> str | None:
    return None if digest is None else digest.removeprefix("sha256:")[:_DIGITS]


def _format_time(stamp: float) -> str:
    return datetime.datetime.fromtimestamp(stamp, datetime.UTC).isoformat(timespec="seconds")
