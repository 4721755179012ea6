"""The result folder that a run writes to: a new one, or an interrupted run's to go on with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.errors import HostError, InputError
from harness.store import Store
from harness.store.needs import note_run

if TYPE_CHECKING:
    from harness.session import Order


def open_store(order: "Order", manifest: Mapping[str, object]) -> Store:
    """A new result folder with its manifest, or the one to go on with."""
    note_run(order.run_id, order.folder)
    if not order.resume:
        return Store.create(order.folder, manifest)
    store = Store.open(order.folder)
    before = store.manifest.get("images")
    if before != manifest["images"]:
        store.close()
        raise InputError(
            f"{order.folder} was measured with other images",
            hint="begin a new run; two images are never mixed in one",
        )
    if changed := find_changed_guests(store.manifest, manifest):
        store.close()
        raise HostError(f"{order.folder} {changed}", hint="begin a new run, or mend that first")
    return store


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
