"""`images`: root file systems and their packings."""

from pathlib import Path

import click

from harness.cli.output import print_rows, say, shorten_path
from harness.units import format_bytes


@click.group()
def images() -> None:
    """Root file systems and their packings."""


@images.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--force", is_flag=True, help="Build again what is up to date.")
def build(names: tuple[str, ...], force: bool) -> None:
    """Build images from Debian's packages; without names, all that there are recipes for."""
    from harness.images.catalog import build_image
    from harness.images.recipes import RECIPES

    for name in names or tuple(RECIPES):
        image = build_image(name, say, force=force)
        click.echo(f"{image.name}  {image.digest}")


@images.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def list_built(as_json: bool) -> None:
    """Show every image and its packings."""
    from harness.images.catalog import list_images

    rows: list[dict[str, object]] = [
        {
            "image": image.name,
            "digest": image.digest if as_json else image.digest[:19],
            "packing": packing.name,
            "apparent": packing.apparent if as_json else format_bytes(packing.apparent),
            "allocated": packing.allocated if as_json else format_bytes(packing.allocated),
            "path": packing.path,
        }
        for image in list_images()
        for packing in image.packings.values()
    ]
    if not rows and not as_json:
        say("no image is built yet; `images build` does it, and so does a run")
    print_rows(rows, as_json=as_json)


@images.command("import")
@click.argument("source")
@click.option("--name", metavar="NAME", required=True, help="What the image is called here.")
def import_source(source: str, name: str) -> None:
    """Make an image of any OCI reference, layout, archive, folder or tarball."""
    from harness.images.catalog import import_image

    image = import_image(source, name, say)
    click.echo(f"{image.name}  {image.digest}")


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
def prune(names: tuple[str, ...]) -> None:
    """Remove images: the named ones, else those that are out of date.

    Bootable disks and saved machines go with the images they were made from.
    """
    from harness.drivers.snapshot import prune_snapshots
    from harness.images.bootable import prune_disks
    from harness.images.catalog import list_images, prune_images

    removed = prune_images(names, lambda _: None)
    kept = list_images()
    removed += prune_disks(kept, lambda _: None)
    removed += prune_snapshots([image.name for image in kept])
    for folder in removed:
        click.echo(f"removed {folder}")
    if not removed:
        say("nothing is out of date")
