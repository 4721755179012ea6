"""What is pruned and what is kept, and why: pure decisions over a table of what there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.stock.inventory import Item
from harness.units import format_age, format_bytes

Needs = Mapping[tuple[str, str], str]
"""What stored runs need, and the run that does: ``("image", digest)``, ``("disk", digest of its
image)``, ``("snapshot", name of its image)``, ``("kernel", release)``."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked to go besides what is out of date: things by name, by age (s), by the size
    (bytes) that shall be left, or all. With ``force`` also what stored runs need."""

    names: tuple[str, ...] = ()
    older_than: float | None = None
    until: int | None = None
    everything: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an item goes, and why; an item of which nobody wants anything has no verdict."""

    item: Item
    goes: bool
    why: str


def decide(items: Sequence[Item], wish: Wish, needs: Needs, now: float) -> list[Verdict]:
    """Verdicts in the order in which things go: out of date first, then least recently used."""
    ordered = sorted(_select(items, wish), key=lambda each: (not each.fault, each.used))
    verdicts = [
        _judge(each, why, wish, needs) for each in ordered if (why := _find_reason(each, wish, now))
    ]
    verdicts = _add_derived(items, verdicts, wish, needs)
    if wish.until is None:
        return verdicts
    for item in ordered:
        left = sum_left(items, verdicts)
        if left <= wish.until:
            break
        if item not in [each.item for each in verdicts]:
            why = f"the least recently used, above {format_bytes(wish.until)}"
            verdicts.append(_judge(item, why, wish, needs))
            verdicts = _add_derived(items, verdicts, wish, needs)
    return verdicts


def sum_left(items: Sequence[Item], verdicts: Sequence[Verdict]) -> int:
    """Bytes that the items take when the verdicts are carried out."""
    gone = {each.item.path for each in verdicts if each.goes}
    return sum(each.allocated for each in items if each.path not in gone)


def _select(items: Sequence[Item], wish: Wish) -> list[Item]:
    if not wish.names:
        return list(items)
    kinds = ("image", "disk", "snapshot", "leftover")
    return [each for each in items if each.kind in kinds and each.name in wish.names]


def _find_reason(item: Item, wish: Wish, now: float) -> str:
    if item.fault:
        return item.fault
    if wish.everything:
        return "all were asked for"
    if wish.older_than is not None:
        age = now - item.used
        return f"not used for {format_age(age)}" if age > wish.older_than else ""
    return "it was named" if wish.names and wish.until is None else ""


def _judge(item: Item, why: str, wish: Wish, needs: Needs) -> Verdict:
    if item.busy:
        return Verdict(item, goes=False, why=item.busy)
    run = needs.get((item.kind, _identify(item)))
    if run is not None and not wish.force:
        return Verdict(item, goes=False, why=f"{run} needs it")
    return Verdict(item, goes=True, why=why)


def _identify(item: Item) -> str:
    return item.digest if item.kind in ("image", "disk") else item.name


def _add_derived(
    items: Sequence[Item], verdicts: Sequence[Verdict], wish: Wish, needs: Needs
) -> list[Verdict]:
    """Disks go with the image that they were made of, snapshots with the last of that name."""
    judged = {each.item.path for each in verdicts}
    gone = {each.item.path for each in verdicts if each.goes}
    left = [each for each in items if each.kind == "image" and each.path not in gone]
    digests, names = {each.digest for each in left}, {each.name for each in left}
    derived = [
        each
        for each in items
        if each.path not in judged
        and (
            (each.kind == "disk" and each.digest not in digests)
            or (each.kind == "snapshot" and each.name not in names)
        )
    ]
    return [*verdicts, *(_judge(each, "its image goes", wish, needs) for each in derived)]
