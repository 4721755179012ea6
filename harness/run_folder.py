"""The result folder that a run writes to: a new one, or an interrupted run's to go on with."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from harness.errors import HostError, InputError
from harness.model import Outcome, base_platform
from harness.store import Store
from harness.store.needs import note_run

if TYPE_CHECKING:
    from harness.session import Order

_OF_THIS_START = ("left_out", "left_out_details")


def open_store(order: "Order", manifest: Mapping[str, object]) -> Store:
    """A new result folder with its manifest, or the one to go on with."""
    note_run(order.run_id, order.folder)
    if not order.resume:
        return Store.create(order.folder, manifest)
    store = Store.open(order.folder)
    try:
        _require_same(store, manifest)
        store.update_manifest(build_changes(store.manifest, manifest))
    except BaseException:
        store.close()
        raise
    return store


def _require_same(store: Store, manifest: Mapping[str, object]) -> None:
    """Raise an error where what goes on would not be the run that was begun."""
    if store.manifest.get("images") != manifest["images"]:
        raise InputError(
            f"{store.folder} was measured with other images",
            hint="begin a new run; two images are never mixed in one",
        )
    changed = find_changed_guests(store.manifest, manifest) or find_missing(
        store.read_outcomes(), manifest
    )
    if changed:
        raise HostError(f"{store.folder} {changed}", hint="begin a new run, or mend that first")


def build_changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """What of a manifest is another since the run goes on: what is left out by now, and what was
    left out before and takes part now. Pure."""
    changes = {key: now[key] for key in _OF_THIS_START if key in now}
    for key in ("platforms", "accelerator"):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes[key] = {**old, **{name: new[name] for name in new if name not in old}}
    if before.get("guest_kernel") is None and now.get("guest_kernel") is not None:
        changes["guest_kernel"] = now["guest_kernel"]
    return changes


def find_missing(outcomes: Iterable[Outcome], now: Mapping[str, object]) -> str | None:
    """A platform that has trials, whole or with a workload, and is left out now; pure."""
    told = now.get("left_out_details")
    out = [each for each in told if isinstance(each, Mapping)] if isinstance(told, list) else []
    for outcome in outcomes:
        for each in out:
            workloads = str(each["part"]).removeprefix("with ").split(", ")
            concerned = not each["part"] or outcome.workload in workloads
            if concerned and each["platform"] == base_platform(outcome.platform):
                what = " ".join(filter(None, [str(each["platform"]), str(each["part"])]))
                return f"has trials of {what}, which cannot run here now: {each['reason']}"
    return None


def find_changed_guests(before: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """What guests ran on before and would run on now, where that is another thing."""
    old, new = before.get("accelerator"), now.get("accelerator")
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return None
    for platform in (each for each in old if each in new):
        was, found = old[platform], new[platform]
        if was["name"] != found["name"]:
            return f"has {platform} on {was['name']}, and now it is {found['name']}: " + str(
                found["reason"]
            )
    return None
