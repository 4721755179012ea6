"""Lay out a report's content with the templates. The same samples give the same bytes."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.analysis.claim_list import read_claims
from harness.analysis.collector import start_freeze
from harness.analysis.elsewhere import load_evidence
from harness.analysis.plots import Drawing, count_processes, draw_figures, write_figures
from harness.analysis.plots.style import INK, MUTED, PAPER, RULE
from harness.analysis.report.fitting import FOLDER, Fitted, fit_page, format_table
from harness.analysis.report.page import Page, build_page
from harness.analysis.results import load_results
from harness.analysis.tables import Row, Table
from harness.analysis.wording import quote
from harness.errors import InputError
from harness.store.foreign import read_foreign
from harness.store.names import write_atomically

Printer = Callable[[Path, Path], None]
"""Prints a page (first path) as a PDF file (second); the command line brings one along."""

_UNIT = re.compile(r"(?<=\d) (?=(?:[mµ]?s|[KMG]?i?B|×|%)(?!\w))")
_SCRIPT = Path(__file__).parents[1] / "templates" / "tables.js"
_MARKDOWN_WIDTH = 100
"""Columns that a pager shows; a table that fits has its columns aligned."""

_CODE = re.compile(r"`([^`]*)`")
_INKS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--paper"}


@dataclass(frozen=True, slots=True)
class Home:
    """The site that a report is on: the way up to it, and the run's name there."""

    up: str
    name: str


def render_report(
    folder: Path,
    formats: Sequence[str] = ("html", "md"),
    out: Path | None = None,
    print_page: Printer | None = None,
    beside: Sequence[Path] = (),
    claims: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    home: Home | None = None,
) -> list[Path]:
    """Write the report of a result folder in each of ``formats``; returns the paths.

    Reads manifest, journal and samples alone, and draws the figures anew. ``out`` names another
    file than ``report.html``, ``report.md`` or ``report.pdf``; then ``formats`` has one entry.
    ``beside`` are files of other tools whose timings get a section of their own, ``claims`` files
    of claims that are tested beside the usual ones, ``evidence`` folders of other runs of this host
    whose chapters come into it. ``home`` is where a page on a site leads back to.
    """
    tested = read_claims(claims)
    brought = [read_foreign(path) for path in dict.fromkeys(beside)]
    results = load_results(folder)
    with start_freeze():
        drawings = draw_figures(results, count_processes(results))
        others = load_evidence(results, evidence)
        fitted = fit_page(build_page(results, drawings, brought, tested, others))
        write_tables(folder, fitted)
        foreign = list_foreign(fitted.page, drawings)
        write_figures(results, {**drawings, "elsewhere": foreign})
        return [
            _write(fitted.page, wanted, out or folder / f"report.{wanted}", print_page, home)
            for wanted in formats
        ]


def _write(
    page: Page, wanted: str, path: Path, print_page: Printer | None, home: Home | None
) -> Path:
    if wanted == "pdf":
        _print_pdf(page, path, print_page)
    else:
        text = render_html(page, home) if wanted == "html" else render_markdown(page)
        write_atomically(path, text.encode("utf-8", "replace"))
    return path


def write_tables(folder: Path, fitted: Fitted) -> None:
    """``tables/<name>.csv`` for each table that the page shows only a part of, and no other."""
    place = folder / FOLDER
    for path in place.glob("*.csv"):
        if path.name not in fitted.files:
            path.unlink()
    if fitted.files:
        place.mkdir(exist_ok=True)
    for name, table in fitted.files.items():
        write_atomically(place / name, format_table(table))


def list_foreign(page: Page, own: Mapping[str, Sequence[Drawing]]) -> list[Drawing]:
    """The figures of a page that are from another run."""
    known = {each.name for drawings in own.values() for each in drawings}
    shown = [each.drawing for section in page.sections for each in section.exhibits]
    return [each for each in shown if each is not None and each.name not in known]


def _print_pdf(page: Page, path: Path, print_page: Printer | None) -> None:
    if print_page is None:
        raise InputError("nothing here can print a PDF", hint="print report.html from a browser")
    source = path.with_name(f".{path.name}.html")
    write_atomically(source, render_html(page).encode("utf-8", "replace"))
    try:
        print_page(source, path)
    finally:
        source.unlink()


def render_html(page: Page, home: Home | None = None) -> str:
    """The page as one self-contained HTML file; on a site, with the way back to ``home``."""
    script = _read_script()
    template = _load_templates().get_template("report.html.j2")
    policy = build_policy(script)
    return template.render(page=page, script=Markup(script), policy=policy, home=home)


def build_policy(script: str) -> str:
    """What the page may do: show itself and run that one script; it can ask nothing of anyone."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


@cache
def _read_script() -> str:
    return _SCRIPT.read_text(encoding="utf-8")


def render_markdown(page: Page) -> str:
    """The same content as Markdown; figures are linked from ``plots/``."""
    text = _load_templates().get_template("report.md.j2").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


# ---- templates -------------------------------------------------------------------------------


def render_template(name: str, **content: object) -> str:
    """Lay out ``content`` with one of the templates, for pages beside the report."""
    return _load_templates().get_template(name).render(content)


@cache
def _load_templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.analysis", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["words"] = mark_up
    environment.filters["md"] = escape_markdown
    environment.filters["quote"] = quote
    environment.filters["cell"] = escape_cell
    environment.globals.update(inline=inline_svg, grid=format_grid)
    return environment


def mark_up(text: str) -> Markup:
    """HTML of a sentence: escaped, with code spans; a number keeps its unit beside it.

    A long name in a code span may be broken after its slashes.
    """
    kept = _UNIT.sub("\N{NO-BREAK SPACE}", str(escape(text)))
    return Markup(_CODE.sub(_mark_code, kept))


def _mark_code(span: re.Match[str]) -> str:
    return f"<code>{re.sub(r'/(?=.)', '/<wbr>', span[1])}</code>"


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML within it take as it is, code spans apart."""
    parts = _CODE.split(text)
    parts[::2] = [_escape_plain(part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts)


def _escape_plain(text: str) -> str:
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ").replace("\r", " ")
    return re.sub(r"([\\*_\[\]#`])", r"\\\1", plain)


def escape_cell(text: str) -> str:
    """The same within a table, where a bar ends the cell, also in a code span."""
    return escape_markdown(text).replace("|", "\\|")


def format_grid(table: Table) -> str:
    """A table in Markdown; its columns stand aligned where they fit a pager."""
    rows = [[escape_cell(text) for text in table.head], *map(_list_cells, table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 > _MARKDOWN_WIDTH:
        widths = [3] * len(widths)
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in rows
    )


def _list_cells(row: Row) -> list[str]:
    cells = (f"{each.text}; {each.note}" if each.note else each.text for each in row.cells)
    return [escape_cell(text) for text in (row.head, *cells)]


def inline_svg(drawing: Drawing) -> Markup:
    """A figure for the page: ids of its own, the page's inks and fonts, and words for its picture.

    Replacing fixed inks by the page's variables is what lets a figure follow dark mode.
    """
    text = drawing.svg.decode()
    text = text[text.index("<svg") :]
    for ink, variable in _INKS.items():
        text = text.replace(f": {ink}", f": var({variable})")
    text = re.sub(r"(font(?:-family)?: [^'\";]*?)'DejaVu Sans'", r"\1var(--sans)", text)
    prefix = f"{drawing.name}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", text)
    head = f'<svg role="img" aria-label="{escape(drawing.alt)}"'
    text = re.sub(r"<svg\b", lambda _: head, text, count=1)
    return Markup(re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2))
