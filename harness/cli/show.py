"""`doctor`, `list` and `report`: commands that only look."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from harness.cli.output import naming_full_disk, print_rows, shorten_path
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.images.model import Image

FORMATS = ("html", "md", "pdf")
Rows = list[dict[str, object]]
_SHORT = {
    "metrics": ("name", "unit", "definition"),
    "published": ("id", "platform", "value", "unit", "source", "year", "beside", "difference"),
    "claims": ("id", "claim", "metric", "hypothesis"),
}
"""What people are shown of things with many fields; `--json` has all."""


@click.command(short_help="Say what can run here, why not, and what is noisy.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--prove/--no-prove", default=True, help="Try each platform with one trial of noop.")
@click.option("--start-engines", is_flag=True, help="Start a Docker daemon of one's own for it.")
def doctor(as_json: bool, prove: bool, start_engines: bool) -> int:
    """Say what can run on this host, what cannot and why, and what makes it noisy.

    Each platform is proved by a real trial; what that needs is built first.
    """
    from harness import doctor as examination

    return examination.main(as_json, prove=prove, start_engines=start_engines)


@click.command("list")
@click.argument(
    "things",
    metavar="platforms|workloads|images|metrics|plans|published|claims",
    type=click.Choice(
        ["platforms", "workloads", "images", "metrics", "plans", "published", "claims"]
    ),
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def list_things(things: str, as_json: bool) -> None:
    """Show what there is."""
    builders: dict[str, Callable[[], Rows]] = {
        "platforms": _list_platforms,
        "workloads": _list_workloads,
        "images": _list_images,
        "metrics": _list_metrics,
        "plans": _list_plans,
        "published": _list_published,
        "claims": _list_claims,
    }
    rows = builders[things]()
    if things in _SHORT and not as_json:
        rows = [{key: row[key] for key in _SHORT[things]} for row in rows]
    print_rows(rows, as_json=as_json)


def _list_platforms() -> Rows:
    from harness.doctor import check_platform
    from harness.drivers import PLATFORMS

    checks = [check_platform(name, ()) for name in PLATFORMS]
    return [
        {"platform": each.name, "kind": each.kind, "runs here": each.available} for each in checks
    ]


def _list_workloads() -> Rows:
    from harness.workloads import list_workloads, read_workload

    found = [read_workload(name, folder=Path(), timeout=60.0) for name in list_workloads()]
    return [
        {
            "workload": each.name,
            "image": each.image,
            "ready": each.ready,
            "description": each.description,
        }
        for each in found
    ]


def _list_images() -> Rows:
    from harness.images.catalog import list_images
    from harness.images.recipes import RECIPES

    built = {image.name: image for image in list_images()}
    return [
        {
            "image": name,
            "digest": built[name].digest if name in built else None,
            **{fact: _find_fact(built.get(name), fact) for fact in ("packages", "files")},
            "description": RECIPES[name].summary if name in RECIPES else "imported",
        }
        for name in sorted({*RECIPES, *built})
    ]


def _find_fact(image: "Image | None", fact: str) -> int | None:
    return None if image is None else image.facts.get(fact)


def _list_plans() -> Rows:
    from harness.inputs import read_toml
    from harness.plans import FOLDER, list_plans

    plans = {name: read_toml(FOLDER / f"{name}.toml") for name in list_plans()}
    return [
        {"plan": name, "platforms": _join(keys, "platforms"), "workloads": _join(keys, "workloads")}
        for name, keys in plans.items()
    ]


def _join(keys: Mapping[str, object], key: str) -> str:
    found = keys.get(key, ())
    return ", ".join(map(str, found)) if isinstance(found, list) else ""


def _list_metrics() -> Rows:
    from harness.metrics import METRICS

    return [asdict(metric) for metric in METRICS.values()]


def _list_published() -> Rows:
    from harness.analysis.published import list_rows

    return list_rows()


def _list_claims() -> Rows:
    from harness.analysis.claim_list import list_rows

    return list_rows()


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@click.option(
    "--format", "formats", default="html,md", show_default=True, metavar="html,md,pdf",
    help="What to write.",
)  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="One file instead, in the format its name ends in.",
)
@click.option(
    "--beside", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="Bring in another tool's timings: JSON of hyperfine or pyperf.",
)  # fmt: skip
@click.option(
    "--claims", multiple=True, metavar="FILE", type=click.Path(path_type=Path),
    help="Test claims of your own too: TOML with [[claims]], as `list claims` has them.",
)  # fmt: skip
@click.option(
    "--evidence", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Another run of this host, of `isolation` or `layers` say: its chapters come in too.",
)  # fmt: skip
def report(
    folders: tuple[Path, ...],
    formats: str,
    out: Path | None,
    beside: tuple[Path, ...],
    claims: tuple[Path, ...],
    evidence: tuple[Path, ...],
) -> None:
    """Render again from the stored samples; the same samples give the same bytes."""
    wanted = _parse_formats(formats)
    if out is not None:
        wanted = _choose_format(out, wanted)
        if len(folders) > 1:
            raise InputError("--out is one file, for one report", hint="name one DIR")
    from harness.analysis.report import render_report
    from harness.cli.printing import print_page

    for folder in folders:
        with naming_full_disk(folder):
            written = render_report(folder, wanted, out, print_page, beside, claims, evidence)
        for path in written:
            click.echo(shorten_path(path))


def _choose_format(out: Path, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The one format of the file ``out``: that of its name, where --format leaves a choice."""
    if len(wanted) == 1:
        return wanted
    source = click.get_current_context().get_parameter_source("formats")
    choice = FORMATS if source == ParameterSource.DEFAULT else wanted
    if (suffix := out.suffix.removeprefix(".")) in choice:
        return (suffix,)
    raise InputError(
        f"--out is one file, and --format has {' and '.join(wanted)}",
        hint=f"name one format, or end {out.name} in one of them; without --out each is a file "
        "beside the samples",
    )


def _parse_formats(text: str) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in wanted:
        if word not in FORMATS:
            raise InputError(
                f"--format: unknown format {word!r}", hint=f"the formats are {', '.join(FORMATS)}"
            )
    return wanted
