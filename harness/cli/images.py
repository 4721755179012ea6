"""`images`: root file systems and their packings."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.measure import RESULTS
from harness.cli.output import print_rows, say, shorten_path

if TYPE_CHECKING:
    from harness.parity import Finding


@click.group()
def images() -> None:
    """Root file systems and their packings."""


@images.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--force", is_flag=True, help="Build again what is up to date.")
def build(names: tuple[str, ...], force: bool) -> None:
    """Build images from Debian's packages; without names, tiny, slim, python."""
    from harness.images.catalog import build_image
    from harness.images.recipes import ON_REQUEST, RECIPES

    for name in names or tuple(each for each in RECIPES if each not in ON_REQUEST):
        image = build_image(name, say, force=force)
        click.echo(f"{image.name}  {image.digest}")


@images.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def list_built(as_json: bool) -> None:
    """Show every packing of every image, its bootable disks and saved machines too."""
    from harness.cli.stock import build_plain_rows, build_rows
    from harness.stock.digests import find_digests
    from harness.stock.inventory import list_packed

    found = [(item, find_digests(item, say)) for item in list_packed()]
    if not found and not as_json:
        say("no image is built yet; `images build` does it, and so does a run")
    print_rows(build_plain_rows(found) if as_json else build_rows(found), as_json=as_json)


@images.command("import")
@click.argument("source")
@click.option("--name", metavar="NAME", required=True, help="What the image is called here.")
@click.option(
    "--limit",
    metavar="SIZE",
    default="20GiB",
    show_default=True,
    help="Refuse what unpacks to more than this.",
)
def import_source(source: str, name: str, limit: str) -> None:
    """Make an image of any OCI reference, layout, archive, folder or tarball."""
    from harness.images.catalog import import_image
    from harness.units import parse_size

    image = import_image(source, name, say, parse_size(limit))
    click.echo(f"{image.name}  {image.digest}")


@images.command()
@click.argument("name")
@click.option(
    "--platform",
    "platforms",
    metavar="P",
    multiple=True,
    help="Compare these with the first of them. [default: namespace, vm-direct]",
)
def check(name: str, platforms: tuple[str, ...]) -> int:
    """Compare an image's tree as containers and guests show it, entry by entry."""
    from harness.image_check import PLATFORMS, check_image
    from harness.images.catalog import list_names

    return check_image(name, platforms or PLATFORMS, list_names(), say, _print_finding)


def _print_finding(finding: "Finding") -> None:
    one, other = finding.platforms
    if not finding.differing:
        click.echo(f"{one} and {other}: {finding.entries} entries, all the same")
        return
    click.echo(f"{one} and {other}: {finding.differing} of {finding.entries} entries differ")
    for line in finding.examples:
        click.echo(f"  {line}")


@images.command()
@click.argument("name")
@click.option(
    "--packing", metavar="P", default="oci-zstd", show_default=True, help="The form to copy."
)
@click.option(
    "--out", metavar="PATH", type=click.Path(path_type=Path), required=True, help="A new path."
)
def export(name: str, packing: str, out: Path) -> None:
    """Copy one packing of an image out of the cache."""
    from harness.images.catalog import export_image

    click.echo(shorten_path(export_image(name, packing, out, say)))


@images.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--older-than", metavar="30d", help="What was not used for this long.")
@click.option("--until", metavar="10GiB", help="The least recently used, until this is left.")
@click.option("--all", "everything", is_flag=True, help="All that there is.")
@click.option(
    "--results",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Keep what the runs stored there need, besides those in ./results.",
)
@click.option("--force", is_flag=True, help="Also what stored runs need.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def prune(
    names: tuple[str, ...],
    older_than: str | None,
    until: str | None,
    everything: bool,
    results: tuple[Path, ...],
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Free the cache of what is out of date, and of what is asked for besides.

    That is the named images, with their disks and saved machines, or by age and size, of all or of
    the named ones. What stored runs need is kept, and what a run uses now.
    """
    from harness.cli.stock import prune_stock
    from harness.stock.decide import Wish
    from harness.store.needs import list_noted
    from harness.units import parse_duration, parse_size

    wish = Wish(
        names,
        None if older_than is None else parse_duration(older_than),
        None if until is None else parse_size(until),
        everything,
        force,
    )
    prune_stock(wish, (RESULTS, *results, *list_noted()), dry_run=dry_run, as_json=as_json)
